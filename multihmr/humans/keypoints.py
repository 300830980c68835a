"""`Keypoints`: a named joint set of the people of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..bodies.topology import Topology
from .fields import people_text


@dataclass(frozen=True, eq=False, repr=False)
class Keypoints:
    """A named joint set of N people.

    Attributes:
        names: M names of the points.
        xy: (N, M, 2) in pixels of the image as given.
        xyz: (N, M, 3) in metres, camera frame.
        edges: pairs of points that form the skeleton.
    """

    names: tuple[str, ...]
    xy: np.ndarray
    xyz: np.ndarray
    edges: tuple[tuple[int, int], ...] = ()

    def __repr__(self) -> str:
        some = ", ".join(self.names[:3]) + (", ..." if len(self.names) > 3 else "")
        return f"Keypoints({people_text(len(self.xy))}, {len(self.names)} points: {some})"


def named_keypoints(
    name: str,
    topology: Topology,
    vertices: np.ndarray,
    joints: np.ndarray,
    to_pixels: Callable[[np.ndarray], np.ndarray],
) -> Keypoints:
    """The keypoint set `name` of a topology, of N people.

    Args:
        name: one of `topology.keypoint_sets`.
        topology: of the body.
        vertices: (N, V, 3) in metres, camera frame.
        joints: (N, J, 3) in metres, camera frame.
        to_pixels: (..., 3) points in the camera frame -> (..., 2) pixels of the image.

    Raises:
        ValueError: the body has no such set; the message lists those there are.
    """
    check_keypoint_set(name, topology)
    sets = topology.keypoint_sets
    xyz = sets[name].points(vertices, joints)
    return Keypoints(sets[name].names, to_pixels(xyz), xyz, sets[name].edges)


def check_keypoint_set(name: str, topology: Topology) -> None:
    """Raises ValueError if the body has no keypoint set of that name; the message lists those there are."""
    if name not in topology.keypoint_sets:
        known = ", ".join(sorted(topology.keypoint_sets)) or "none"
        raise ValueError(f"no keypoint set {name!r} for body {topology.name!r}; known: {known}")
