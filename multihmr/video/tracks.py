"""Tracks: `Track`, one identity of a video over time; `collect` makes them of a stream of Humans.

Camera frame, metres, pixels: as in `Humans`. A track stores no meshes; the body computes them on request.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bodies.topology import Topology
from ..humans import Humans, rotmat_to_rotvec
from ..humans.distortion import Distortion, distortion_arrays, stored_distortion
from ..storage.atomic import write_bytes
from ..storage.npz import read_npz

SMPLX_JOINTS = 55  # of the smplx package: root, body, jaw, eyes, hands
NPZ_FORMAT = "multihmr-track-1"

# Trailing shapes of the arrays per frame; a letter is any length.
_PER_FRAME: dict[str, tuple[str | int, ...]] = {
    "frames": (),
    "times": (),
    "pose": ("R", 3, 3),
    "expression": ("E",),
    "translation": (3,),
    "pelvis": (3,),
    "scores": (),
    "boxes": (4,),
    "filled": (),
    "K": (3, 3),
    "image_sizes": (2,),
}
_PERSON = ("scores", "boxes", "translation", "pelvis", "pose", "expression", "filled")  # Humans has them, too
_DTYPES: dict[str, Any] = {"frames": np.int64, "times": np.float64, "filled": bool, "image_sizes": np.int64}


@dataclass(frozen=True, eq=False)
class Track:
    """One identity of a video in the T frames that show it: `track[10:20]`, `track[~track.filled]`.

    id           the `track_ids` of Humans
    frames       (T,) int64    numbers of the frames with the person, from 0, increasing
    times        (T,) float64  seconds since the beginning of the video
    pose         (T, R, 3, 3)  rotations; the first orients the person in the camera frame
    shape        (S,)          the same in every frame
    expression   (T, E)
    translation  (T, 3)        the head in metres, camera frame
    pelvis       (T, 3)        metres, camera frame
    scores       (T,)          confidence, 0 to 1; 0 where filled
    boxes        (T, 4)        x0, y0, x1, y1 in pixels
    filled       (T,) bool     not detected in this frame but interpolated between two others
    K            (T, 3, 3)     intrinsics in pixels
    image_sizes  (T, 2)        height and width in pixels
    fps          frames a second, on average
    body, topology, unpredicted, distortion   as in Humans

    Arrays are read-only; a length or shape that does not fit raises ValueError by name.
    """

    id: int
    frames: np.ndarray
    times: np.ndarray
    pose: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    translation: np.ndarray
    pelvis: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    filled: np.ndarray
    K: np.ndarray
    image_sizes: np.ndarray
    fps: float
    body: str
    topology: Topology
    unpredicted: tuple[str, ...] = ()
    distortion: Distortion | None = None

    def __post_init__(self) -> None:
        count = len(np.asarray(self.frames))
        for name, trailing in _PER_FRAME.items():
            array = np.array(getattr(self, name), _DTYPES.get(name, np.float32))
            fits = array.ndim == 1 + len(trailing) and len(array) == count
            if not fits or any(
                e not in (n, "R", "E") for e, n in zip(trailing, array.shape[1:], strict=True)
            ):
                form = ", ".join(map(str, (count, *trailing)))
                raise ValueError(f"{name} of a track must be ({form}), got {array.shape}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if (np.diff(self.frames) <= 0).any():
            raise ValueError("frames of a track must increase: each frame once, in order")
        if not self.fps > 0:
            raise ValueError(f"fps of a track must be greater than 0, got {self.fps}")
        object.__setattr__(self, "shape", np.asarray(self.shape, np.float32))

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int | slice | np.ndarray) -> Track:
        """The frames at an int (length 1), slice, mask (T,) or increasing list of indices."""
        rows = np.atleast_1d(np.arange(len(self))[index])
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in _PER_FRAME})

    def __iter__(self) -> Iterator[Track]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        span = f"frames {self.frames[0]} to {self.frames[-1]}, " if len(self) else ""
        return f"Track(id {self.id}, {span}{len(self)} frames, body {self.body!r}, {self.fps:g} fps)"

    def humans(self, body: Any) -> Iterator[Humans]:
        """The person in each frame with a mesh; `body` is `model.body`, or what `hub.load_body` gives.

        K_source is "given", expressions and pose are those of the track. ValueError if it is another body.
        """
        return (with_meshes(self._bare(row), body) for row in range(len(self)))

    def _bare(self, row: int) -> Humans:
        """The person in one frame, without the vertices that the body computes from the parameters."""
        bones = len(self.topology.joint_names)
        return Humans(
            **{name: getattr(self, name)[row, None] for name in _PERSON},
            shape=self.shape[None],
            vertices=np.zeros((1, 0, 3)),
            joints=np.zeros((1, bones, 3)),
            joints_2d=np.zeros((1, bones, 2)),
            K=self.K[row],
            K_source="given",
            image_size=(int(self.image_sizes[row, 0]), int(self.image_sizes[row, 1])),
            body=self.body,
            topology=without_faces(self.topology),
            track_ids=np.array([self.id]),
            unpredicted=self.unpredicted,
            distortion=self.distortion,
        )

    def at(self, frame: int) -> Track:
        """The frame with this number; ValueError if the track has none."""
        found = np.flatnonzero(self.frames == frame)
        if not len(found):
            raise ValueError(f"person {self.id} is not in frame {frame}; track.frames lists its frames")
        return self[int(found[0])]


def collect(
    stream: Iterable[Humans], fps: float = 30.0, *, times: Iterable[float] | None = None
) -> list[Track]:
    """The tracks of all people in a stream of Humans with track_ids, as predict_video gives it, by id.

    times: seconds of each frame, for videos with a variable frame rate; else frame number / fps. The
    shape of a track is the mean over the frames in which the person was detected. Keeps no meshes: 4 kB per
    person and frame. ValueError if Humans have no track_ids.
    """
    rows: dict[int, list[dict[str, Any]]] = {}
    last: dict[int, Humans] = {}
    clock = iter(times) if times is not None else (number / fps for number in itertools.count())
    for number, humans in enumerate(stream):
        time = next(clock)
        if humans.track_ids is None:
            raise ValueError(
                f"the people of frame {number} have no track_ids; collect what predict_video gives"
            )
        for i, identity in enumerate(humans.track_ids.tolist()):
            rows.setdefault(identity, []).append(_row(humans, i, number, time))
            last[identity] = humans
    return [_track(identity, rows[identity], last[identity], fps) for identity in sorted(rows)]


def _row(humans: Humans, i: int, number: int, time: float) -> dict[str, Any]:
    filled = np.zeros(len(humans), bool) if humans.filled is None else humans.filled
    person = {name: filled[i] if name == "filled" else getattr(humans, name)[i] for name in _PERSON}
    view = {"frames": number, "times": time, "K": humans.K, "image_sizes": humans.image_size}
    return person | view | {"shape": humans.shape[i]}


def _track(identity: int, rows: list[dict[str, Any]], like: Humans, fps: float) -> Track:
    seen = [row["shape"] for row in rows if not row["filled"]] or [row["shape"] for row in rows]
    columns: dict[str, Any] = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in _PER_FRAME}
    return Track(
        id=identity,
        **columns,
        shape=np.mean(np.stack(seen), axis=0),
        fps=fps,
        body=like.body,
        topology=like.topology,
        unpredicted=like.unpredicted,
        distortion=like.distortion,
    )


def without_meshes(humans: Humans) -> Humans:
    """The same people without vertices and faces, to hold many frames; `with_meshes` computes them again."""
    topology = without_faces(humans.topology)
    return dataclasses.replace(humans, vertices=humans.vertices[:, :0], topology=topology)


@functools.lru_cache(maxsize=8)
def without_faces(topology: Topology) -> Topology:
    """The topology of people without meshes."""
    return dataclasses.replace(topology, faces=np.zeros((0, 3)), faces_uv=None, keypoint_sets={})


def with_meshes(humans: Humans, body: Any) -> Humans:
    """The same people with vertices, joints and all that follows from them recomputed by `body`.

    Only their pose, shape, expression, translation and camera are used.
    """
    from ..bodies.base import posed  # imported here: collecting tracks needs no torch

    if body.name != humans.body:
        raise ValueError(f"the people have the body {humans.body!r}, got {body.name!r}; give model.body")
    vertices, joints = posed(body, humans.pose, humans.shape, humans.expression, humans.translation)
    outline = humans.project(vertices)
    limit = np.array([humans.image_size[1], humans.image_size[0]], np.float32)
    corners = [np.clip(corner, 0, limit) for corner in (outline.min(1), outline.max(1))]
    return dataclasses.replace(
        humans,
        vertices=vertices,
        joints=joints,
        joints_2d=humans.project(joints),
        boxes=np.concatenate(corners, axis=1),
        pelvis=joints[:, body.pelvis_joint],
        topology=body.topology,
    )


def rows_at_rate(times: np.ndarray, fps: float) -> np.ndarray:
    """(C,) indices into `times` (T,) that resample to a constant rate.

    Formats of a constant rate (BVH, AMASS) have one row per 1 / fps seconds; where a person is missing, or
    the rate of the video varies, the row before is repeated.
    """
    count = round(float(times[-1] - times[0]) * fps) + 1
    clock = times[0] + (np.arange(count) + 0.5) / fps
    return np.searchsorted(times, clock) - 1


def save_track(track: Track, path: str | os.PathLike[str]) -> Path:
    """Write a track to a .npz with the fields of Track and those of AMASS; `load_track` reads it back.

    Beside the fields of Track, one row per frame of the video in which the person is there, the file has the
    names of AMASS at a constant rate, so that its tools read it as it is: poses (C, 3 R) axis-angle and trans
    (C, 3) with one row per 1 / mocap_frame_rate seconds from `mocap_start_time` [s] on, as .bvh has them;
    betas (S,), gender and surface_model_type (the body). mocap_rows (C,) is the row of the fields of Track,
    such as times and expression, that each of these rows holds. Of SMPL-X poses are the 165 numbers of its
    package and trans what it adds to its vertices; of other bodies poses are in the order of pose_names and
    trans is the pelvis. Camera frame: y down, z forward.

    Args:
        track: of a video.
        path: of the file; its folder must exist.

    Returns:
        The path.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot save {path.name!r}: there is no folder {path.parent}; make it first")
    buffer, topology = io.BytesIO(), track.topology
    np.savez_compressed(
        buffer,
        format=NPZ_FORMAT,
        **{name: getattr(track, name) for name in (*_PER_FRAME, "id", "shape", "fps", "body")},
        pose_names=np.array(topology.pose_names, np.str_),
        shape_names=np.array(topology.shape_names, np.str_),
        expression_names=np.array(topology.expression_names, np.str_),
        unpredicted=np.array(track.unpredicted, np.str_),
        **distortion_arrays(track.distortion),
        **_amass(track),
    )
    return write_bytes(path, buffer.getvalue())


def _amass(track: Track) -> dict[str, Any]:
    rows = rows_at_rate(track.times, track.fps) if len(track) else np.zeros(0, int)
    arrays = amass_arrays(
        track.topology,
        body=track.body,
        rotvec=rotmat_to_rotvec(track.pose[rows]),
        shape=np.tile(track.shape, (len(rows), 1)),
        expression=track.expression[rows],
        pelvis=track.pelvis[rows],
    )
    return arrays | {
        "betas": track.shape,
        "mocap_frame_rate": track.fps,
        "mocap_start_time": track.times[0] if len(track) else 0.0,
        "mocap_rows": rows,
    }


def amass_arrays(
    topology: Topology,
    *,
    body: str,
    rotvec: np.ndarray,
    shape: np.ndarray,
    expression: np.ndarray,
    pelvis: np.ndarray,
) -> dict[str, Any]:
    """Rows of poses and trans as AMASS's tools read them; camera frame, radians and metres.

    Args:
        topology: of the body.
        body: its name. Of "smplx", poses are the 165 numbers of its package, in its order, relative to the
            flat hand, and trans is what the package adds to its vertices, which it turns about the pelvis of
            the rest pose. Of "smpl" poses are its 72 numbers, and trans is the same. Of other bodies, poses
            are in the order of `topology.pose_names`, and trans is the pelvis.
        shape: (T, S). expression: (T, E). pelvis: (T, 3).
    """
    poses, trans = rotvec, pelvis
    if topology.rest_pelvis is not None and body in ("smplx", "smpl"):
        if body == "smplx":
            poses = np.zeros((len(rotvec), SMPLX_JOINTS, 3), np.float32)
            poses[:, topology.pose_joints] = rotvec
        numbers = np.concatenate([np.ones((len(rotvec), 1)), shape, expression], axis=1)
        trans = (pelvis - numbers @ topology.rest_pelvis).astype(np.float32)
    width = int(np.prod(poses.shape[1:]))
    return {
        "poses": poses.reshape(-1, width),
        "trans": trans,
        "gender": "neutral",
        "surface_model_type": body,
    }


def load_track(path: str | os.PathLike[str], body: Any = None) -> Track:
    """Read the Track that `save_track` wrote.

    Args:
        path: of the .npz.
        body: the body of the person, of which only the topology is used; None loads it by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such .npz, or of another body.
    """
    stored = read_npz(path, NPZ_FORMAT)
    name = str(stored["body"])
    if body is None:
        from ..bodies.loading import load_body_of_people

        body = load_body_of_people(name, shape_count=len(stored["shape"]))
    if body.name != name:
        raise ValueError(f"{path} holds a person of body {name!r}, got body {body.name!r}")
    return Track(
        id=int(stored["id"]),
        **{key: stored[key] for key in (*_PER_FRAME, "shape")},
        fps=float(stored["fps"]),
        body=name,
        topology=body.topology,
        unpredicted=tuple(map(str, stored["unpredicted"])),
        distortion=stored_distortion(stored),
    )
