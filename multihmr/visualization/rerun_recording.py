"""Log people, camera and picture to Rerun (https://rerun.io): what `humans.to_rerun()` and `--rerun` record.

    world                       x right, y down, z forward, metres (the camera frame)
    world/camera                pinhole; world/camera/image the picture, world/camera/boxes the boxes
    world/people/person_1       mesh; person_1/keypoints and person_1/skeleton
    world/tracks/person_1       where the pelvis was in the last frames
    distance_m/person_1         from the camera to the head, as a plot

Timelines: "frame" (number) and "time" (seconds since the first frame).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..humans import Humans
from ..preprocessing.distortion import undistort_boxes, undistort_image
from ..preprocessing.image import LoadedImage, read_image
from ..storage.atomic import atomic_path
from ..storage.paths import settings_folder

if TYPE_CHECKING:
    from rerun import RecordingStream

VIEWER_PORT = 9876  # rerun's own
START_SECONDS = 20  # that a viewer may take to open
PICTURE_SIDE = 1280  # pixels of the longer side of a recorded picture, at most
PICTURE_QUALITY = 85  # of its JPEG
TRAIL = 60  # frames that the line behind a tracked person covers
DEFAULT_KEYPOINTS = "coco17"  # of bodies that have them
KEYPOINT_RADIUS, BONE_RADIUS = 0.015, 0.006  # [m]


def rerun_module() -> ModuleType:
    """The package rerun; ImportError says what to install."""
    try:
        import rerun
    except ImportError as error:
        raise ImportError("Rerun recordings need rerun-sdk: pip install 'multihmr[rerun]'") from error
    if not hasattr(rerun, "RecordingStream"):  # PyPI has an unrelated package of this name
        raise ImportError(
            "the installed package rerun is another one: pip uninstall rerun; pip install 'multihmr[rerun]'"
        )
    return rerun


def humans_to_rerun(
    humans: Humans,
    image: Any = None,
    *,
    recording: RecordingStream | None = None,
    frame: int | None = None,
    time: float | None = None,
    keypoints: str | None = DEFAULT_KEYPOINTS,
) -> RecordingStream:
    """See `Humans.to_rerun`."""
    rerun = rerun_module()
    if recording is None:
        recording = rerun.get_data_recording() or new_recording()
    logger = _logger(recording.get_recording_id())
    logger.log(recording, humans, image, frame=frame, time=time, keypoints=keypoints)
    return recording


def new_recording() -> RecordingStream:
    """A recording stream of its own, which is kept in memory until it is saved or sent to a viewer."""
    recording: RecordingStream = rerun_module().RecordingStream("multihmr")
    recording.send_blueprint(_blueprint())
    return recording


@contextlib.contextmanager
def record(path: Path | None = None, viewer: Viewer | None = None) -> Iterator[RecordingStream]:
    """A recording that is written to an .rrd, shown by a viewer, or both, while it is made.

    path: of the .rrd, complete when the block ends without error; None writes none.
    """
    rerun = rerun_module()
    recording = rerun.RecordingStream("multihmr")
    with contextlib.ExitStack() as stack:
        sinks = [] if viewer is None else [rerun.GrpcSink(viewer.server)]
        if path is not None:
            sinks.append(rerun.FileSink(str(stack.enter_context(atomic_path(path)))))
        if sinks:
            recording.set_sinks(*sinks)
        recording.send_blueprint(_blueprint())
        yield recording
        recording.flush()
        recording.disconnect()


class Viewer:
    """The window of the Rerun viewer, one that is open or a new one; it stays open.

    It listens on this machine only (rerun.spawn would listen to the whole network). `server` is the address
    that recordings are sent to.
    """

    def __init__(self, port: int = VIEWER_PORT) -> None:
        rerun_module()
        self.server = f"rerun+http://127.0.0.1:{port}/proxy"
        if _is_open(port):
            return
        _disable_analytics()
        command = [sys.executable, "-m", "rerun", "--bind", "127.0.0.1", "--port", str(port)]
        command += ["--hide-welcome-screen", "--expect-data-soon"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C ends the prediction and not the viewer
        )
        for _ in range(START_SECONDS * 10):
            if process.poll() is not None:
                break
            if _is_open(port):
                return
            time.sleep(0.1)
        process.kill()
        raise OSError("the Rerun viewer did not start: is there a display? An .rrd file needs none")


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _disable_analytics() -> None:
    """Turn off the viewer's usage reports, unless the user has already chosen."""
    if not (settings_folder() / "rerun").exists():
        command = [sys.executable, "-m", "rerun", "analytics", "disable"]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _blueprint() -> Any:
    """The layout of the viewer: 3D, the picture with the meshes over it, the distances."""
    import rerun.blueprint as views

    picture = views.Spatial2DView(
        origin="world/camera", contents=["world/camera/**", "world/people/**"], name="picture"
    )
    plots = views.TimeSeriesView(origin="distance_m", name="distance [m]")
    scene = views.Spatial3DView(origin="world", name="3D")
    return views.Blueprint(
        views.Horizontal(scene, views.Vertical(picture, plots, row_shares=[3, 1]), column_shares=[3, 2])
    )


@lru_cache(maxsize=16)
def _logger(recording_id: str) -> _Logger:
    """What was logged to the recording with this id so far."""
    return _Logger()


class _Logger:
    """Logs one image after the other; remembers constant data and the people of the last image."""

    def __init__(self) -> None:
        self.present: set[int] = set()  # numbers of the people of the last image
        self.started: set[int] = set()  # whose triangles are logged
        self.trails: dict[int, deque[np.ndarray]] = {}
        self.has_world = False

    def log(
        self,
        stream: RecordingStream,
        humans: Humans,
        image: Any,
        *,
        frame: int | None,
        time: float | None,
        keypoints: str | None,
    ) -> None:
        rerun = rerun_module()
        if frame is not None:
            stream.set_time("frame", sequence=frame)
        if time is not None:
            stream.set_time("time", duration=time)
        if not self.has_world:
            stream.log("world", rerun.ViewCoordinates.RDF, static=True)
            self.has_world = True
        self._log_camera(stream, *without_distortion(humans, image))
        numbers = humans.numbers.tolist()
        for gone in sorted(self.present - set(numbers)):
            for path in ("people", "tracks"):
                stream.log(f"world/{path}/person_{gone}", rerun.Clear(recursive=True))
            self.trails.pop(gone, None)
        self.present = set(numbers)
        for i, number in enumerate(numbers):
            self._log_person(stream, humans[i], number, humans.colors[i], keypoints)

    def _log_camera(self, stream: RecordingStream, humans: Humans, image: Any) -> None:
        rerun = rerun_module()
        height, width = humans.image_size
        scale = min(1.0, PICTURE_SIDE / max(height, width)) if image is not None else 1.0
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        shrink = np.diag([size[0] / width, size[1] / height, 1.0])
        pinhole = rerun.Pinhole(
            image_from_camera=shrink @ humans.K, resolution=size, camera_xyz=rerun.ViewCoordinates.RDF
        )
        stream.log("world/camera", pinhole)
        if image is not None:
            stream.log(
                "world/camera/image",
                rerun.EncodedImage(contents=_jpeg(image, size, humans), media_type="image/jpeg"),
            )
        corners = humans.boxes * np.tile(np.diag(shrink)[:2], 2)
        labels = [f"{n}  {s:.2f}" for n, s in zip(humans.numbers, humans.scores, strict=True)]
        boxes = rerun.Boxes2D(
            array=corners, array_format=rerun.Box2DFormat.XYXY, labels=labels, colors=humans.colors
        )
        stream.log("world/camera/boxes", boxes)

    def _log_person(
        self, stream: RecordingStream, person: Humans, number: int, color: Any, keypoints: str | None
    ) -> None:
        rerun, path = rerun_module(), f"world/people/person_{number}"
        if number not in self.started:
            self.started.add(number)
            constant = rerun.Mesh3D.from_fields(
                triangle_indices=person.topology.faces.astype(np.uint32), albedo_factor=color
            )
            stream.log(path, constant, static=True)
            plot = rerun.SeriesLines(colors=color, names=f"person {number}")
            stream.log(f"distance_m/person_{number}", plot, static=True)
        stream.log(
            path,
            rerun.Mesh3D.from_fields(vertex_positions=person.vertices[0], vertex_normals=person.normals[0]),
        )
        known = person.topology.keypoint_sets
        if keypoints is not None and (keypoints in known or keypoints != DEFAULT_KEYPOINTS):
            points = person.keypoints(keypoints)
            joints = rerun.Points3D(points.xyz[0], radii=KEYPOINT_RADIUS, colors=color)
            stream.log(f"{path}/keypoints", joints)
            bones = [points.xyz[0][[a, b]] for a, b in points.edges]
            stream.log(f"{path}/skeleton", rerun.LineStrips3D(bones, radii=BONE_RADIUS, colors=color))
        stream.log(f"distance_m/person_{number}", rerun.Scalars(float(person.distances[0])))
        if person.track_ids is not None:
            trail = self.trails.setdefault(number, deque(maxlen=TRAIL))
            trail.append(person.pelvis[0])
            line = rerun.LineStrips3D([np.stack(trail)], radii=BONE_RADIUS, colors=color)
            stream.log(f"world/tracks/person_{number}", line)


def without_distortion(humans: Humans, image: Any) -> tuple[Humans, Any]:
    """The people and the image as a camera without distortion sees them, for programs that know no other."""
    if humans.distortion is None:
        return humans, image
    height, width = humans.image_size
    pixels = np.zeros((height, width, 3), np.uint8) if image is None else read_image(image)
    straight, K = undistort_image(LoadedImage(pixels), humans.K, humans.distortion)
    boxes = undistort_boxes(humans.boxes, humans.K, humans.distortion, K)
    boxes = boxes.clip(0, (width, height, width, height))
    humans = dataclasses.replace(humans, K=K, boxes=boxes, distortion=None)
    humans = dataclasses.replace(humans, joints_2d=humans.project(humans.joints))
    return humans, None if image is None else straight.pixels


def _jpeg(image: Any, size: tuple[int, int], humans: Humans) -> bytes:
    pixels = read_image(image)
    if pixels.shape[:2] != humans.image_size:
        height, width = humans.image_size
        raise ValueError(
            f"image is {pixels.shape[1]}x{pixels.shape[0]} but these humans were found in {width}x{height}; "
            "give the image that predict was given"
        )
    picture = Image.fromarray(pixels)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=PICTURE_QUALITY)
    return buffer.getvalue()
