"""Where other programs have their axes: `humans.to("blender")`. Metres everywhere, the camera in the origin.

             x      y        z        handed   the camera looks along
    opencv   right  down     forward  right    z         as `Humans` has it
    opengl   right  up       back     right    -z        also glTF and our mesh files, three.js, USD, Godot
    blender  right  forward  up       right    y         where Blender puts our .glb files, too
    unity    right  up       forward  left     z         also Direct3D

A left-handed frame is the mirror image of a right-handed one: triangles turn the other way round, and so do
rotations. That is why `InFrame` has faces of its own, and no rotations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Rows are the axes of the other frame, in those of the camera frame (opencv).
FRAMES = {
    "opencv": np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32),
    "opengl": np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]], np.float32),
    "blender": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32),
    "unity": np.array([[1, 0, 0], [0, -1, 0], [0, 0, 1]], np.float32),
}


@dataclass(frozen=True, eq=False)
class InFrame:
    """The points of N people in the axes of another program [m].

    name                  of the frame, one of FRAMES
    vertices (N, V, 3), joints (N, J, 3), translation (N, 3), pelvis (N, 3)   as in `Humans`
    faces    (F, 3)       triangles that face outwards there
    matrix   (3, 3)       turns a point of the camera frame into one of this: matrix @ point
    """

    name: str
    vertices: np.ndarray
    joints: np.ndarray
    translation: np.ndarray
    pelvis: np.ndarray
    faces: np.ndarray
    matrix: np.ndarray


def camera_to_frame(points: np.ndarray, name: str) -> np.ndarray:
    """(..., 3) points in the camera frame of `Humans` -> the same points in the axes of FRAMES[name]."""
    return points @ frame_matrix(name).T


def frame_to_camera(points: np.ndarray, name: str) -> np.ndarray:
    """(..., 3) points in the axes of FRAMES[name] -> the same points in the camera frame of `Humans`."""
    return points @ frame_matrix(name)


def frame_matrix(name: str) -> np.ndarray:
    """(3, 3) from the camera frame to another; ValueError lists the names."""
    if name not in FRAMES:
        raise ValueError(f"no frame {name!r}: there are {', '.join(FRAMES)}")
    return FRAMES[name]
