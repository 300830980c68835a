"""`Humans`: the people of one image, with the methods that measure, convert, save and draw them."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bodies.topology import Topology, frozen_array
from .colors import PALETTE
from .distortion import Distortion
from .fields import (
    K_SOURCES,
    PER_PERSON,
    SHAPES,
    checked_arrays,
    concatenated_arrays,
    empty_arrays,
    people_text,
)
from .keypoints import Keypoints, named_keypoints
from .points import nearest_first, project, vertex_normals

if TYPE_CHECKING:
    from pandas import DataFrame
    from rerun import RecordingStream
    from trimesh import Scene

    from ..bodies.base import Body
    from ..bodies.measurements import Measurements
    from ..fitting.conversion import ConvertedHumans
    from ..io.coordinate_frames import InFrame
    from ..preprocessing.types import ImageLike
    from ..visualization.notebook import Html
    from ..world.ground import Ground
    from ..world.placement import InWorld


@dataclass(frozen=True, eq=False, kw_only=True)
class Humans:
    """The N people of one image: meshes, joints and body parameters in metres, and the camera.

    Length, iteration and indexing give people; an image without people has length 0. Predict sorts them by
    distance, nearest first; indexing keeps the order of the index. Arrays are read-only float32.

    Attributes:
        scores: (N,) confidence, 0 to 1.
        vertices: (N, V, 3) in metres, camera frame; triangles in `topology.faces`.
        joints: (N, J, 3) in metres, camera frame; names in `topology.joint_names`.
        joints_2d: (N, J, 2) `joints` in pixels of the image as given.
        boxes: (N, 4) x0, y0, x1, y1 in pixels, around the person, within the image.
        translation: (N, 3) the person's centre (the head joint) in metres, camera frame.
        pelvis: (N, 3) in metres, camera frame.
        pose: (N, R, 3, 3) rotations; the first orients the whole person in the camera frame.
        shape: (N, S) shape parameters, named in `topology.shape_names`.
        expression: (N, E) face parameters, named in `topology.expression_names`.
        K: (3, 3) intrinsics in pixels of the image as given.
        K_source: where K came from: "given", "exif", "predicted" or "assumed".
        image_size: (height, width) in pixels.
        body: name of the body model that the parameters belong to.
        topology: what all people of this body share: faces, joint names, skin.
        track_ids: (N,) int or None; identities in a video, from 1.
        unpredicted: names of joints and expressions that the checkpoint never moves; empty: it predicts all.
        filled: (N,) bool or None; True for a person of a video who was interpolated, not detected, here.
        refined: (N, 3) bool or None; with `hands_and_faces=True`, whether left hand, right hand and face were
            found and are as they were seen there.
        moved: (N, 3) or None; likewise, by how many metres each person was moved to where the face was found.
        distortion: of the lens, as given to predict, or None; pixels are those that the lens shows.

    Raises:
        ValueError: an array has another length or shape, or numbers that are not finite; it is named.

    Examples:
        >>> model = load_model()
        >>> humans = model.predict("street.jpg")
        >>> humans.vertices.shape[0] == humans.scores.shape[0] == len(humans)
        True
        >>> confident = humans[humans.scores > 0.5]
        >>> for person in confident:
        ...     assert person.vertices.shape[0] == 1
    """

    scores: np.ndarray
    vertices: np.ndarray
    joints: np.ndarray
    joints_2d: np.ndarray
    boxes: np.ndarray
    translation: np.ndarray
    pelvis: np.ndarray
    pose: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    K: np.ndarray
    K_source: str
    image_size: tuple[int, int]
    body: str
    topology: Topology
    track_ids: np.ndarray | None = None
    unpredicted: tuple[str, ...] = ()
    filled: np.ndarray | None = None
    distortion: Distortion | None = None
    refined: np.ndarray | None = None
    moved: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, array in checked_arrays({**self._arrays(), "K": self.K}, self.topology).items():
            object.__setattr__(self, name, array)
        height, width = self.image_size
        object.__setattr__(self, "image_size", (int(height), int(width)))
        object.__setattr__(self, "unpredicted", tuple(self.unpredicted))
        if self.K_source not in K_SOURCES:
            raise ValueError(f"K_source must be one of {', '.join(K_SOURCES)}; got {self.K_source!r}")

    @classmethod
    def empty(
        cls,
        *,
        topology: Topology,
        K: np.ndarray,
        K_source: str,
        image_size: tuple[int, int],
        body: str | None = None,
        unpredicted: tuple[str, ...] = (),
        vertex_count: int | None = None,
        rotation_count: int | None = None,
        shape_count: int | None = None,
        expression_count: int | None = None,
    ) -> Humans:
        """Humans of length 0 with the trailing shapes of the body.

        Args:
            topology: of the body.
            K: (3, 3) intrinsics in pixels.
            K_source: "given", "exif", "predicted" or "assumed".
            image_size: (height, width) in pixels.
            body: name of the body; that of the topology if not given.
            unpredicted: as in `Humans`.
            vertex_count: length V of the vertices; that of the topology if not given, as all that follow.
            rotation_count: length R of the pose.
            shape_count: length S of the shape.
            expression_count: length E of the expression.

        Examples:
            >>> camera = {"K": np.eye(3), "K_source": "given", "image_size": (480, 640)}
            >>> len(Humans.empty(topology=humans.topology, **camera))
            0
        """
        return cls(
            **empty_arrays(topology, vertex_count, rotation_count, shape_count, expression_count),
            K=K,
            K_source=K_source,
            image_size=image_size,
            body=topology.name if body is None else body,
            topology=topology,
            unpredicted=unpredicted,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Humans]) -> Humans:
        """The people of several Humans of one image as one, in the order given.

        Camera, image size, body and the rest of what is not per person are those of the first. `track_ids`,
        `filled`, `refined` and `moved` are kept where all parts have them; they are None where no part has
        them. Of people without `refined` beside others with it nothing counts as found.

        Args:
            parts: at least one; all of the same body.

        Raises:
            ValueError: no parts, other bodies, other image sizes, or only some parts have track_ids.

        Examples:
            >>> len(Humans.concatenate([humans, humans[:1]])) == len(humans) + 1
            True
        """
        if not parts:
            raise ValueError("Humans.concatenate needs at least one Humans, got none")
        first, rest = parts[0], parts[1:]
        for part in rest:
            if (part.body, part.image_size) != (first.body, first.image_size):
                raise ValueError(
                    f"Humans.concatenate takes people of one image and body, got {first!r} and {part!r}"
                )
        return dataclasses.replace(first, **concatenated_arrays([part._arrays() for part in parts]))

    def _arrays(self) -> dict[str, Any]:
        """The arrays with one entry per person, by name; None for those that are not there."""
        return {name: getattr(self, name) for name in (*SHAPES, *PER_PERSON)}

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Humans]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice | list[int] | np.ndarray) -> Humans:
        """The people at an int (length 1), slice, boolean mask (N,) or list of ints, in that order.

        Raises:
            IndexError: there is no such person.
        """
        if isinstance(index, list) and not index:  # numpy reads it as an index of floats
            index = np.zeros(0, int)
        rows = np.atleast_1d(np.arange(len(self))[index])
        chosen: dict[str, Any] = {
            name: None if array is None else array[rows] for name, array in self._arrays().items()
        }
        return dataclasses.replace(self, **chosen)

    def __repr__(self) -> str:
        height, width = self.image_size
        people = people_text(len(self))
        near = f", nearest at {self.distances.min():.2f} m" if len(self) else ""
        return f"Humans({people}{near}, body {self.body!r}, {width}x{height} image, K {self.K_source})"

    @property
    def distances(self) -> np.ndarray:
        """(N,) from the camera to each head [m]; predict sorts people by it, nearest first."""
        return np.linalg.norm(self.translation, axis=-1)

    @property
    def numbers(self) -> np.ndarray:
        """(N,) int, the number of each person in pictures, tables and files: the track id, else 1, 2, ..."""
        return np.arange(1, len(self) + 1) if self.track_ids is None else self.track_ids

    @property
    def colors(self) -> np.ndarray:
        """(N, 3) uint8 RGB of each person in pictures, videos and meshes, by `numbers`."""
        return PALETTE[(self.numbers - 1) % len(PALETTE)]

    @cached_property
    def normals(self) -> np.ndarray:
        """(N, V, 3) unit vectors pointing out of the surface; larger triangles count more."""
        return frozen_array(vertex_normals(self.vertices, self.topology.faces), np.float32)

    def nearest_first(self) -> Humans:
        """The same people, sorted by `distances`.

        Examples:
            >>> bool((np.diff(humans.nearest_first().distances) >= 0).all())
            True
        """
        return self[nearest_first(self.translation)]

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels of the image in which points in space are seen, through its lens if it has a `distortion`.

        Args:
            points: (M, 3) or (..., 3) in metres, camera frame; depths below 1 mm are taken as 1 mm.

        Returns:
            (M, 2) or (..., 2) pixels of the image as given.

        Examples:
            >>> bool(np.allclose(humans.project(humans.joints), humans.joints_2d, atol=0.01))
            True
        """
        xy = project(np.asarray(points), self.K)
        return xy if self.distortion is None else self.distortion.distort_points(xy, self.K).astype(xy.dtype)

    def keypoints(self, name: str) -> Keypoints:
        """A named joint set of all people.

        Args:
            name: "coco17", "openpose25", "h36m17" or another of `topology.keypoint_sets`.

        Returns:
            Keypoints: M names, xy (N, M, 2) in pixels of the image, xyz (N, M, 3) in metres.

        Raises:
            ValueError: the body has no such set; the message lists those there are.

        Examples:
            >>> keypoints = humans.keypoints("coco17")
            >>> keypoints.xyz.shape == (len(humans), 17, 3)
            True
            >>> keypoints.names[0]
            'nose'
        """
        return named_keypoints(name, self.topology, self.vertices, self.joints, self.project)

    def masks(self, *, occluded: bool = False) -> np.ndarray:
        """(N, H, W) bool: the pixels of the image that show each person's mesh.

        Args:
            occluded: include what is hidden behind other people (amodal masks). By default the nearest
                person hides those behind, and no pixel belongs to two people.

        Examples:
            >>> masks = humans.masks()
            >>> masks.shape == (len(humans), *humans.image_size)
            True
            >>> int(masks.sum(0).max())
            1
        """
        from ..visualization.draw import person_masks

        return person_masks(self, occluded=occluded)

    def to_dicts(self) -> list[dict[str, np.ndarray]]:
        """One dict per person, with the keys that users of the first Multi-HMR release know.

        Returns:
            Of each person: scores (), loc (2,) head in pixels, transl (3,) head and transl_pelvis (3,) in
            metres, rotvec (R, 3) axis-angle in radians, expression (E,), shape (S,), v3d (V, 3) and j3d
            (J, 3) in metres, j2d (J, 2) in pixels.

        Examples:
            >>> [person["transl"].shape for person in humans[:1].to_dicts()]
            [(3,)]
        """
        from ..io.records import humans_to_dicts

        return humans_to_dicts(self)

    def to_pandas(self, keypoints: str | None = "coco17") -> DataFrame:
        """A table with one row per person: number, score, place, box, shape and named keypoints.

        Args:
            keypoints: the set whose points become columns NAME_x_m, NAME_y_m, NAME_z_m (camera frame) and
                NAME_x_px, NAME_y_px (image); None, or a default that the body does not have: no keypoints.

        Returns:
            pandas.DataFrame; units are part of the column names. `humans.save("people.csv")` writes the same.

        Raises:
            ImportError: pandas is not installed.
            ValueError: the body has no such keypoint set.

        Examples:
            >>> table = humans.to_pandas()
            >>> len(table) == len(humans)
            True
            >>> list(table.columns[:4])
            ['person', 'score', 'distance_m', 'head_x_m']
        """
        from ..io.tables import humans_to_pandas

        return humans_to_pandas(self, keypoints)

    def measurements(
        self, *, height: float | np.ndarray | None = None, body: Body | None = None
    ) -> Measurements:
        """Height, chest, waist, hip, inseam and arm length of each person [m], from the shape at rest.

        Args:
            height: how tall the people are [m], one for all or (N,), where that is known: a picture tells
                proportions better than size, and all lengths are scaled to it.
            body: the one that the people were predicted with (`model.body`); None loads the one they name.

        Returns:
            Measurements: an (N,) array in metres for each.

        Raises:
            ValueError: the body is not Anny; or a height is not positive.

        Examples:
            >>> measured = humans.measurements(height=1.75, body=model.body)
            >>> measured.height.shape == (len(humans),)
            True
            >>> bool(np.allclose(measured.height, 1.75))
            True
        """
        from ..bodies.loading import load_body_of_people
        from ..bodies.measurements import measure

        return measure(
            load_body_of_people(self.body, shape_count=self.shape.shape[1]) if body is None else body,
            self.shape,
            height=height,
        )

    @cached_property
    def height_m(self) -> np.ndarray:
        """(N,) how tall each person is [m]: upright, from the soles to the top of the head, without shoes."""
        from ..world.heights import heights

        return frozen_array(heights(self), np.float32)

    def with_heights(
        self, known: float | Mapping[int, float] | np.ndarray, *, body: Body | None = None
    ) -> Humans:
        """The people if they are that tall: body and distance change, the place in the image stays.

        A picture shows sizes and distances only up to a common factor, which a known height tells. People
        keep their numbers and order, so that they may no longer be ordered by distance.

        Args:
            known: height [m] of all people, or a dict from some numbers (`numbers`) to heights, or (N,) with
                NaN for unknown ones; others stay as they are.
            body: the one that the people were predicted with (`model.body`); None loads the one they name.

        Raises:
            ValueError: a height is out of range, or there is no such person.

        Examples:
            >>> taller = humans[:1].with_heights(1.85)
            >>> bool(taller.distances[0] / humans.distances[0] > 1) == bool(humans.height_m[0] < 1.85)
            True
        """
        from ..world.heights import with_heights

        return with_heights(self, known, body=body)

    def ground(
        self,
        *,
        camera_pitch: float | None = None,
        camera_roll: float | None = None,
        floor: float | Sequence[float] | np.ndarray | None = None,
    ) -> Ground:
        """The vertical and the floor in the camera frame, from the people who stand, or as given.

        Args:
            camera_pitch: degrees by which the camera looks down, if known.
            camera_roll: degrees by which it is turned clockwise about its axis, if known.
            floor: height of the camera over the floor [m], or the plane (a, b, c, d), if known.

        Returns:
            Ground: `up` is None where no standing person is in view and nothing is given, `camera_height`
            where no standing person shows the feet; `reason` is a sentence about it.

        Raises:
            ValueError: an angle or the floor is out of range.

        Examples:
            >>> ground = humans.ground(camera_pitch=10, floor=1.5)
            >>> ground.known
            True
        """
        from ..world.ground import estimate_ground

        return estimate_ground(self, camera_pitch=camera_pitch, camera_roll=camera_roll, floor=floor)

    def on_one_floor(
        self,
        *,
        ground: Ground | None = None,
        camera_pitch: float | None = None,
        camera_roll: float | None = None,
        floor: float | Sequence[float] | np.ndarray | None = None,
        known_heights: float | Mapping[int, float] | np.ndarray | None = None,
        body: Body | None = None,
    ) -> Humans:
        """The people with sizes and distances that agree with the floor they stand on; the image stays.

        A picture shows sizes and distances only up to a factor, which differs from person to person as
        predicted. That all stand on one floor, upright, tells the factors much better; where neither feet nor
        legs are seen, only the mean error of predicted heights is removed. People keep numbers and order.

        Args:
            ground: of another image of the same camera, say; None estimates it.
            camera_pitch: as in `ground`.
            camera_roll: as in `ground`.
            floor: as in `ground`.
            known_heights: as in `with_heights`: these people keep their size, and others follow the floor
                under them.
            body: the one that the people were predicted with (`model.body`); None loads the one they name.

        Raises:
            ValueError: an option is out of range, or both ground and its parts are given.

        Examples:
            >>> standing = humans.on_one_floor()
            >>> standing.joints_2d.shape == humans.joints_2d.shape
            True
        """
        from ..world.one_floor import on_one_floor

        options: dict[str, Any] = {"camera_pitch": camera_pitch, "camera_roll": camera_roll, "floor": floor}
        return on_one_floor(self, ground=ground, known_heights=known_heights, body=body, **options)

    def in_world(
        self,
        frame: str = "opengl",
        *,
        ground: Ground | None = None,
        camera_pitch: float | None = None,
        camera_roll: float | None = None,
        floor: float | Sequence[float] | np.ndarray | None = None,
        known_heights: float | Mapping[int, float] | np.ndarray | None = None,
        one_floor: bool = True,
        body: Body | None = None,
    ) -> InWorld:
        """The people in a world with a vertical axis and the floor at 0; the origin is below the camera.

        Args:
            frame: "opengl" (y up), "blender" (z up), "unity", "unreal" (centimetres) or "opencv" (y down).
            ground: of `humans.ground()`, of another image of the same camera, say; None estimates it.
            camera_pitch: as in `ground`.
            camera_roll: as in `ground`.
            floor: as in `ground`.
            known_heights: as in `with_heights`; the people are changed first.
            one_floor: give the people sizes and distances that agree with the floor, as `on_one_floor`;
                False leaves them as they are.
            body: the one that the people were predicted with (`model.body`); None loads the one they name.

        Returns:
            InWorld: vertices, joints, translation and pelvis there, camera_to_world, ground, height_m, and
            how high each person is over the floor. Without a floor the camera's height is 0.

        Raises:
            ValueError: no standing person is in view and nothing is given, so that the vertical is not known;
                the sentence says so. Or the frame is unknown.

        Examples:
            >>> world = humans.in_world(camera_pitch=10, floor=1.5)
            >>> world.camera_to_world[:3, 3].round(2).tolist()  # the camera is 1.5 m over the floor
            [0.0, 1.5, 0.0]
        """
        from ..world.placement import in_world

        options: dict[str, Any] = {"camera_pitch": camera_pitch, "camera_roll": camera_roll, "floor": floor}
        options |= {"known_heights": known_heights, "one_floor": one_floor, "body": body}
        return in_world(self, frame, ground=ground, **options)

    def to_trimesh(self, *, ground: Ground | None = None) -> Scene:
        """The meshes as a trimesh.Scene, one coloured geometry "person_1", ... per person.

        Axes as in glTF and in our mesh files: x right, y up, z to the viewer, metres; the camera is in the
        origin. `numbers` names the people, score and track id are in the metadata of each mesh.

        Args:
            ground: of `humans.ground()`: people stand upright, the floor is at y = 0, the camera over it.

        Examples:
            >>> scene = humans.to_trimesh()
            >>> sorted(scene.geometry)[:1]
            ['person_1']
            >>> bool(np.allclose(scene.geometry["person_1"].vertices * [1, -1, -1], humans.vertices[0]))
            True
        """
        from ..io.meshes import humans_to_scene

        if ground is None:
            return humans_to_scene(self)
        from ..world.placement import level_humans

        return humans_to_scene(level_humans(self, ground), ground)

    def to_body(
        self, body: str | Body, *, file: str | Path | None = None, source: Body | None = None
    ) -> ConvertedHumans:
        """The same people as parameters of another body, such as SMPL-X from your own file, or back.

        Pose, shape and, where both bodies have them, hands and expression are fitted to corresponding points
        of the surfaces, which are found from the two bodies' meshes and joint names; no licensed table is
        needed. What the other body has and these people do not tell is named in `unpredicted`.

        Args:
            body: "smplx", "smpl" or "anny", or a loaded body.
            file: your SMPLX_NEUTRAL.npz or SMPL file, of whichever of the two bodies needs one; None searches
                SMPL-X where `load_model` does.
            source: the body of these people, if it is loaded already (`model.body`); None loads it by name.

        Returns:
            ConvertedHumans: Humans with `errors_mm` (N,) and `vertex_errors_mm` (N, V), the distances of
            corresponding points of the two surfaces.

        Raises:
            FileNotFoundError: the body's file is licensed and not there; the message says where to get it.
            ImportError: the package smplx is not installed.
            ValueError: the body is unknown or shares no joints with this one.

        Examples:
            >>> people = humans.to_body("anny")  # or to_body("smplx", file="SMPLX_NEUTRAL.npz")
            >>> people.errors_mm.shape == (len(humans),)
            True
        """
        from ..fitting.conversion import to_body

        return to_body(self, body, file=file, source=source)

    def in_frame(self, frame: str) -> InFrame:
        """The points and triangles in the axes of another program.

        Args:
            frame: "opencv", "opengl", "blender", "unity" (metres) or "unreal" (centimetres).

        Returns:
            InFrame: vertices, joints, translation and pelvis there, faces that turn outwards there, and the
            (3, 3) matrix that leads there.

        Raises:
            ValueError: the frame is unknown; the message lists the known ones.

        Examples:
            >>> there = humans.in_frame("blender")
            >>> bool(np.allclose(there.vertices[..., 1], humans.vertices[..., 2]))  # depth is Blender's y
            True
        """
        from ..io.coordinate_frames import in_frame

        return in_frame(self, frame)

    def to(self, frame: str) -> InFrame:
        """Deprecated: use `in_frame`."""
        warnings.warn(
            "humans.to(frame) is now humans.in_frame(frame); the old name goes in version 0.5",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.in_frame(frame)

    def to_supervision(self, keypoints: str = "coco17", *, masks: bool = True) -> tuple[Any, Any]:
        """(Detections, KeyPoints) of the supervision library, which draws, filters and tracks them.

        One row per person, class 0; `data` of the detections has "distance" [m].

        Args:
            keypoints: name of the set; those outside of the image are not visible.
            masks: give the detections the visible pixels of each person, (N, H, W) bool: a byte per pixel
                and person.

        Raises:
            ImportError: supervision is not installed.
            ValueError: the body has no such keypoint set.

        Examples:
            >>> detections, points = humans.to_supervision()
            >>> len(detections) == len(humans)
            True
            >>> points.xy.shape == (len(humans), 17, 2)
            True
        """
        from ..io.records import humans_to_supervision

        return humans_to_supervision(self, keypoints, masks=masks)

    def to_rerun(
        self,
        image: ImageLike | None = None,
        *,
        recording: RecordingStream | None = None,
        frame: int | None = None,
        time: float | None = None,
        keypoints: str | None = "coco17",
    ) -> RecordingStream:
        """Log the people, the camera and the image to Rerun (https://rerun.io), and return the recording.

        Entities: "world/people/person_1" (mesh, keypoints, skeleton), "world/camera" (pinhole, image, boxes),
        "world/tracks/person_1" and "distance_m/person_1"; in metres, x right, y down, z forward.

        Args:
            image: what predict was given; None logs no image.
            recording: the rerun.RecordingStream to log to; None takes the active one (`rerun.init`), else a
                new one, which keeps what is logged until `.save("people.rrd")` or `.spawn()`.
            frame: number on the timeline "frame"; for videos, call this for each frame with one recording.
            time: seconds on the timeline "time".
            keypoints: the set whose points are logged; None, or one that the body does not have: none.

        Raises:
            ImportError: rerun-sdk is not installed.
            ValueError: the image has not the size of the one in which the people were found.

        Examples:
            >>> recording = humans.to_rerun("street.jpg")
            >>> recording.save("street.rrd")
        """
        from ..visualization.rerun_recording import humans_to_rerun

        return humans_to_rerun(self, image, recording=recording, frame=frame, time=time, keypoints=keypoints)

    def save(
        self,
        path: str | Path,
        *,
        rigged: bool = False,
        bones: str | Mapping[str, str] | None = None,
        body: Body | None = None,
        rest: str | None = None,
        ground: Ground | None = None,
    ) -> Path:
        """Write the people in the format of the suffix: .glb, .npz, .json, .csv, .ply, .obj, .stl and more.

        Args:
            path: of the file; its folder must exist.
            rigged: a .glb with bones, skin and face.
            bones: names of the bones: "mixamo", "vrm", "smplx" or a dict from ours to yours.
            body: the body to make the bones with (`model.body`); None loads it by name.
            rest: rest pose of a rigged file: "t-pose", "a-pose" or None for that of the body.
            ground: of `humans.ground()`: meshes and bones stand upright with the floor at y = 0.

        Returns:
            The path. See `multihmr.save` for the formats and errors.

        Examples:
            >>> humans.save("street.glb").name
            'street.glb'
        """
        from ..io.save import save

        return save(self, path, rigged=rigged, bones=bones, body=body, rest=rest, ground=ground)

    def show(self, image: ImageLike | None = None) -> Html:
        """An HTML view for notebooks: the people over `image` and, beside it, as 3D meshes to turn.

        Args:
            image: what predict was given; None draws the people before plain paper.

        Returns:
            Html that a notebook displays; `.save("people.html")` writes a page for any browser. Neither
            needs the internet.

        Examples:
            >>> page = humans.show("street.jpg").save("people.html")
        """
        from ..visualization.notebook import show

        return show(self, image)

    def draw(self, image: ImageLike | None = None, **options: Any) -> np.ndarray:
        """(H', W', 3) uint8 RGB picture of the people over `image`, in its pixels.

        Args:
            image: what predict was given; None draws the people before plain paper.
            options: side_views, boxes, labels and the others of `multihmr.draw`.

        Examples:
            >>> picture = humans.draw("street.jpg", side_views=False, boxes=True)
            >>> picture.shape == (*humans.image_size, 3)
            True
        """
        from ..visualization.draw import draw

        return draw(self, image, **options)


def save_in_world(world: InWorld, path: str | os.PathLike[str], options: Mapping[str, Any]) -> Path:
    """`InWorld.save`: here, because files are above `world` in the layers, and this module is the facade."""
    from ..io.save import save_world

    return save_world(world, path, options)
