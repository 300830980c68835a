"""Axes of other programs, in those of a camera or of a level camera: x right, y down, z forward, metres."""

from __future__ import annotations

import numpy as np

# Rows are the axes of the other frame in those of the camera frame (opencv); their length is the unit.
FRAMES = {
    "opencv": np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32),
    "opengl": np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]], np.float32),
    "blender": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32),
    "unity": np.array([[1, 0, 0], [0, -1, 0], [0, 0, 1]], np.float32),
    "unreal": np.array([[0, 0, 100], [100, 0, 0], [0, -100, 0]], np.float32),
}


def frame_matrix(name: str) -> np.ndarray:
    """(3, 3) from the camera frame [m] to another; ValueError lists the names."""
    if name not in FRAMES:
        raise ValueError(f"no frame {name!r}: there are {', '.join(FRAMES)}")
    return FRAMES[name]
