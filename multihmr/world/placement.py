"""People in a world whose axes are vertical and horizontal, with the floor at 0."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..humans import Humans
from ..humans.fields import people_text
from ..humans.people import save_in_world
from .frames import frame_matrix
from .ground import Ground, estimate_ground
from .heights import KnownHeights, heights, with_heights
from .one_floor import fit_one_floor

if TYPE_CHECKING:
    from ..bodies.base import Body


# Of each world, by the name of its frame.
AXES = {
    "opengl": "x right, y up, z towards the camera, metres",
    "blender": "x right, y forward, z up, metres",
    "unity": "x right, y up, z forward (left-handed), metres",
    "unreal": "x forward, y right, z up (left-handed), centimetres",
    "opencv": "x right, y down, z forward, metres",
}


@dataclass(frozen=True, eq=False, repr=False)
class InWorld:
    """The points of N people in a world with a vertical axis; the origin is on the floor below the camera.

    Attributes:
        name: of the axes: "opengl" (x right, y up, z towards the camera), "blender" (x right, y forward,
            z up), "unity" (x right, y up, z forward, left-handed), "unreal" (x forward, y right, z up,
            centimetres) or "opencv" (x right, y down, z forward).
        vertices: (N, V, 3), joints (N, J, 3), translation (N, 3), pelvis (N, 3): as in `Humans`.
        faces: (F, 3) triangles that face outwards there.
        camera_to_world: (4, 4) from a point of the camera frame [m] to one of this world.
        ground: the vertical and the floor that were used.
        height_m: (N,) how tall the people are.
        over_floor: (N,) of the lowest point of each person [m]; about 0 for who stands, NaN without a floor.
        humans: these people in the frame of the camera, with the sizes and distances that they have here.
    """

    name: str
    vertices: np.ndarray
    joints: np.ndarray
    translation: np.ndarray
    pelvis: np.ndarray
    faces: np.ndarray
    camera_to_world: np.ndarray
    ground: Ground
    height_m: np.ndarray
    over_floor: np.ndarray
    humans: Humans

    def __repr__(self) -> str:
        height = self.ground.camera_height
        floor = "no floor known" if height is None else f"camera {height:.2f} m over the floor"
        return f"InWorld({self.name!r}, {people_text(len(self.humans))}, in {self.unit}, {floor})"

    def from_camera(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points of `humans` in the frame of the camera [m] -> (..., 3) in this world.

        Examples:
            >>> world = humans.in_world(camera_pitch=10, floor=1.5)
            >>> keypoints = world.from_camera(world.humans.keypoints("coco17").xyz)  # (N, 17, 3)
        """
        return np.asarray(points @ self.camera_to_world[:3, :3].T + self.camera_to_world[:3, 3])

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        rigged: bool = False,
        bones: str | Mapping[str, str] | None = None,
        body: Body | None = None,
        rest: str | None = None,
    ) -> Path:
        """Write the people, where they are in this world, in the format of the suffix.

        .obj, .ply, .stl and .off, .json and .csv have the axes and the unit of this world. .glb, .fbx, .bvh
        and USD define their axes: y up, metres, the floor at y = 0; programs turn them to their own when they
        read them. A .npz has the parameters in the frame of the camera, which `load_humans` reads back, and
        `camera_to_world`, `world_joints` and more beside them.

        Args:
            path: of the file; its folder must exist.
            rigged: as in `Humans.save`.
            bones: as in `Humans.save`.
            body: as in `Humans.save`.
            rest: as in `Humans.save`.

        Returns:
            The path.

        Raises:
            ValueError: the suffix is unknown, or .coco.json, which has pixels alone.
            FileNotFoundError: the folder does not exist.
            IsADirectoryError: the path is a folder.
            ImportError: the format needs a package that is not installed.

        Examples:
            >>> world = humans.in_world("blender", camera_pitch=10, floor=1.5)
            >>> world.save("people.ply").name  # z up
            'people.ply'
        """
        options = {"rigged": rigged, "bones": bones, "body": body, "rest": rest}
        return save_in_world(self, path, options)

    @property
    def unit(self) -> str:
        """Of all lengths: "m", or "cm" for Unreal."""
        return {1: "m", 100: "cm"}[round(float(np.linalg.norm(self.camera_to_world[0, :3])))]


def in_world(
    humans: Humans,
    frame: str = "opengl",
    *,
    ground: Ground | None = None,
    camera_pitch: float | None = None,
    camera_roll: float | None = None,
    floor: Any = None,
    known_heights: KnownHeights | None = None,
    one_floor: bool = True,
    body: Any = None,
) -> InWorld:
    """See `Humans.in_world`."""
    axes = frame_matrix(frame).astype(np.float64)
    given = (camera_pitch, camera_roll, floor)
    if ground is not None and given != (None, None, None):
        raise ValueError("give either ground, or camera_pitch, camera_roll and floor")
    if one_floor:
        humans, ground = fit_one_floor(humans, ground, given, known_heights, body)
    else:
        if known_heights is not None:
            humans = with_heights(humans, known_heights, body=body)
        if ground is None:
            ground = estimate_ground(humans, camera_pitch=camera_pitch, camera_roll=camera_roll, floor=floor)
    rotation, offset = ground.camera_to_level()
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes @ rotation, axes @ offset
    names = ("vertices", "joints", "translation", "pelvis")
    points = {
        name: (getattr(humans, name) @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32) for name in names
    }
    mirrored = bool(np.linalg.det(axes) < 0)
    over = np.full(len(humans), np.nan)
    if ground.camera_height is not None and humans.vertices.shape[1]:
        over = ground.heights(humans.vertices).min(1, initial=np.inf)
    return InWorld(
        name=frame,
        **points,
        faces=humans.topology.faces[:, ::-1] if mirrored else humans.topology.faces,
        camera_to_world=matrix.astype(np.float32),
        ground=ground,
        height_m=humans.height_m if body is None else heights(humans, body=body),
        over_floor=over.astype(np.float32),
        humans=humans,
    )


def camera_in_gltf(ground: Ground) -> np.ndarray:
    """(4, 4) of the camera in glTF's axes (x right, y up, z to the viewer), for files of level people."""
    rotation, offset = ground.camera_to_level()
    flip = np.diag([1.0, -1, -1])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = flip @ rotation @ flip, flip @ offset
    return matrix


def level_humans(humans: Humans, ground: Ground) -> Humans:
    """The people in the frame of a level camera on the floor below the camera: x right, y down, z forward.

    `joints_2d`, `boxes`, K and `image_size` stay those of the image, so that they no longer fit to the
    points: for exporters, which write the camera where it is.

    Raises:
        ValueError: the vertical is unknown; the sentence says why.
    """
    rotation, offset = ground.camera_to_level()
    names = ("vertices", "joints", "translation", "pelvis")
    moved = {name: (getattr(humans, name) @ rotation.T + offset).astype(np.float32) for name in names}
    pose = humans.pose.copy()
    pose[:, 0] = rotation @ pose[:, 0]
    return dataclasses.replace(humans, pose=pose, **moved)
