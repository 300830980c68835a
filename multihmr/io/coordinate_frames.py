"""Coordinate frames of other programs: `humans.in_frame("blender")`; the camera is the origin of all.

             x        y        z        handed   unit   the camera looks along
    opencv   right    down     forward  right    m      z         as `Humans` has it
    opengl   right    up       back     right    m      -z        also glTF, three.js, USD, Godot
    blender  right    forward  up       right    m      y         where Blender puts our .glb files, too
    unity    right    up       forward  left     m      z         also Direct3D
    unreal   forward  right    up       left     cm     x         Unreal Engine

A left-handed frame is the mirror image of a right-handed one: triangles have the opposite winding, and
rotations the opposite sense. That is why `InFrame` has faces of its own, and no rotations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..humans import Humans
from ..humans.fields import people_text
from ..world.frames import FRAMES, frame_matrix

__all__ = ["FRAMES", "InFrame", "camera_to_frame", "frame_matrix", "frame_to_camera", "in_frame"]


@dataclass(frozen=True, eq=False, repr=False)
class InFrame:
    """The points of N people in the axes and the unit of another program.

    Attributes:
        name: of the frame, one of FRAMES.
        vertices: (N, V, 3), joints (N, J, 3), translation (N, 3), pelvis (N, 3): as in `Humans`.
        faces: (F, 3) triangles that face outwards there.
        matrix: (3, 3) from a point of the camera frame [m] to one of this frame: matrix @ point.
        unit: "m", or "cm" for Unreal.
    """

    name: str
    vertices: np.ndarray
    joints: np.ndarray
    translation: np.ndarray
    pelvis: np.ndarray
    faces: np.ndarray
    matrix: np.ndarray

    def __repr__(self) -> str:
        return f"InFrame({self.name!r}, {people_text(len(self.vertices))}, in {self.unit})"

    @property
    def unit(self) -> str:
        return {1: "m", 100: "cm"}[round(float(np.abs(self.matrix).max()))]


def in_frame(humans: Humans, frame: str) -> InFrame:
    """See `Humans.in_frame`."""
    matrix, faces = frame_matrix(frame), humans.topology.faces
    names = ("vertices", "joints", "translation", "pelvis")
    points = {name: camera_to_frame(getattr(humans, name), frame) for name in names}
    mirrored = bool(np.linalg.det(matrix) < 0)
    return InFrame(name=frame, **points, faces=faces[:, ::-1] if mirrored else faces, matrix=matrix)


def camera_to_frame(points: np.ndarray, name: str) -> np.ndarray:
    """(..., 3) points in the camera frame [m] -> the same points in the axes and unit of FRAMES[name]."""
    return points @ frame_matrix(name).T


def frame_to_camera(points: np.ndarray, name: str) -> np.ndarray:
    """(..., 3) points in the axes and unit of FRAMES[name] -> the same points in the camera frame [m]."""
    matrix = frame_matrix(name)
    return points @ (matrix / (matrix**2).sum(1, keepdims=True))
