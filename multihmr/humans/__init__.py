"""`Humans`: the people of one image, as predict returns them and as every output format takes them.

Camera frame: x right, y down, z forward (OpenCV), metres. Pixels: (x, y) of the image as given, where the
centre of the top-left pixel is (0.5, 0.5). numpy only.

people      `Humans`
keypoints   `Keypoints`, named joint sets
distortion  `Distortion` of a lens
fields      shapes of the arrays of `Humans`, and their checks
colors      `PALETTE`
points      `project`, `nearest_first`, `vertex_normals`
rotations   `rotvec_to_rotmat`, `rotmat_to_rotvec`, `rotmat_to_quaternion`
"""

from __future__ import annotations

from typing import Any

from .._deprecated import moved_name
from ..bodies.topology import Topology
from .colors import PALETTE
from .distortion import Distortion
from .fields import K_SOURCES
from .keypoints import Keypoints
from .people import Humans
from .points import nearest_first, project, vertex_normals
from .rotations import rotmat_to_quaternion, rotmat_to_rotvec, rotvec_to_rotmat

__all__ = [
    "K_SOURCES",
    "PALETTE",
    "Distortion",
    "Humans",
    "Keypoints",
    "Topology",
    "nearest_first",
    "project",
    "rotmat_to_quaternion",
    "rotmat_to_rotvec",
    "rotvec_to_rotmat",
    "vertex_normals",
]


def __getattr__(name: str) -> Any:
    return moved_name(__name__, name)
