"""Body measurements: lengths and circumferences of the mesh in the rest pose.

Circumferences are those of the convex hull of a horizontal slice, as a tape measures them. Where
to slice follows ISO 8559-1 (2017) as far as a mesh allows: chest and hips where they are fullest, the
waist at the level where the package `anny` (Apache-2.0, NAVER) measures it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from .anny_base import PhenotypeBody
from .loading import float32_on_cpu

DIRECTIONS = 180  # of a hull's width; more change its perimeter by less than 0.1 mm
LEVELS = 24  # slices between two heights, of which the fullest counts
MIDLINE = 0.01  # vertices of the crotch are nearer to the middle than this [m]
# Front, back and sides of anny's ring around the waist (anny/anthropometry.py), as vertices of the base mesh.
WAIST_VERTICES = (4121, 10781, 4181, 10821, 4196, 4138)
ARM_JOINTS = ("upperarm01", "lowerarm01", "wrist")


@dataclass(frozen=True)
class Measurements:
    """Of N people, (N,) each, in metres.

    height      from the soles to the top of the head, without shoes and hair
    chest       circumference where the chest is fullest, below the armpits
    waist       circumference at the waist
    hip         circumference where hips and buttocks are fullest
    inseam      from the crotch to the soles
    arm_length  from the shoulder joint over the elbow to the wrist, mean of both arms
    """

    height: np.ndarray
    chest: np.ndarray
    waist: np.ndarray
    hip: np.ndarray
    inseam: np.ndarray
    arm_length: np.ndarray

    def scaled(self, height: np.ndarray | float) -> Measurements:
        """The measurements scaled to these heights [m]; the proportions stay.

        ValueError for a height that is not a positive number, or for another number of people.
        """
        wanted = np.broadcast_to(np.asarray(height, np.float64), self.height.shape)
        if not (np.isfinite(wanted).all() and (wanted > 0).all()):
            raise ValueError(f"height must be in metres, above 0, got {height}")
        factor = (wanted / np.maximum(self.height, 1e-9)).astype(np.float32)
        return Measurements(**{field.name: getattr(self, field.name) * factor for field in fields(self)})


@float32_on_cpu()
@torch.no_grad()
def measure(body: Any, shape: np.ndarray, *, height: np.ndarray | float | None = None) -> Measurements:
    """Measurements of people of these shapes (N, S), standing at rest.

    Args:
        body: an Anny or Anny163 with all its vertices.
        shape: phenotypes of each person, as `Humans.shape`.
        height: how tall they are [m], (N,) or one for all, where that is known: all lengths are scaled to it.

    Raises:
        ValueError: another body, for which the places are not known; a shape of another length; or a height
            that is not positive.
    """
    if not isinstance(body, PhenotypeBody):
        raise ValueError(
            f"measurements are known of the bodies 'anny' and 'anny-163', not of "
            f"{getattr(body, 'name', type(body).__name__)!r}"
        )
    shape_NS = torch.from_numpy(np.array(shape, np.float32))
    if shape_NS.ndim != 2 or shape_NS.shape[1] != body.shape_count:
        raise ValueError(f"shape must be (N, {body.shape_count}), got {tuple(shape_NS.shape)}")
    shape_NS = shape_NS.to(body.mean_shape_S.device)
    face = shape_NS.new_zeros(len(shape_NS), body.expression_count)
    rest = body.rest(shape_NS, face).cpu().numpy()
    pose = torch.eye(3, dtype=shape_NS.dtype, device=shape_NS.device).expand(
        len(shape_NS), body.rotation_count, 3, 3
    )
    joints = body(pose, shape_NS, face).joints_PJ3.cpu().numpy()
    tape = _Tape(body)
    rows = [tape.measure(vertices, points) for vertices, points in zip(rest, joints, strict=True)]
    table = np.array(rows, np.float32).reshape(len(rows), len(fields(Measurements)))
    found = Measurements(*table.T)
    return found if height is None else found.scaled(height)


def hull_perimeter(points: np.ndarray) -> float:
    """Perimeter of the convex hull of (M, 2) points: the mean width times pi (Cauchy's formula)."""
    angles = np.arange(DIRECTIONS) * (np.pi / DIRECTIONS)
    along = points @ np.stack([np.cos(angles), np.sin(angles)])
    return float((along.max(0) - along.min(0)).mean() * np.pi)


def slice_mesh(vertices: np.ndarray, edges: np.ndarray, level: float) -> np.ndarray:
    """(M, 2) x and y of the points where edges (E, 2) cross the height z = level."""
    a, b = vertices[edges[:, 0]], vertices[edges[:, 1]]
    crosses = (a[:, 2] < level) != (b[:, 2] < level)
    a, b = a[crosses], b[crosses]
    share = (level - a[:, 2]) / (b[:, 2] - a[:, 2])
    return (a + share[:, None] * (b - a))[:, :2]


class _Tape:
    """Precomputed topology of a body for measuring any of its shapes."""

    def __init__(self, body: PhenotypeBody) -> None:
        topology = body.topology
        assert topology.skin_indices is not None
        assert topology.skin_weights is not None
        names = np.array(topology.joint_names)
        strongest = topology.skin_weights.argmax(1)
        bones = names[topology.skin_indices[np.arange(len(strongest)), strongest]]
        arms = ("upperarm", "lowerarm", "wrist", "finger", "metacarpal", "shoulder")
        torso = ~np.array([bone.startswith(arms) for bone in bones])
        edges = topology.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
        edges = np.unique(np.sort(edges, 1), axis=0)
        self.edges = edges[torso[edges].all(1)]
        upper_arm = np.array([bone.startswith(("upperarm", "shoulder")) for bone in bones])
        self.armpit = np.unique(edges[torso[edges].any(1) & upper_arm[edges].any(1)])
        places = {int(vertex): i for i, vertex in enumerate(body.base_vertices)}
        if not set(WAIST_VERTICES) <= set(places):
            raise ValueError("measurements need a body with all its vertices, got one of few")
        self.waist = [places[vertex] for vertex in WAIST_VERTICES]
        self.joints = {name: i for i, name in enumerate(topology.joint_names)}
        self.legs = np.array([bone.startswith(("upperleg", "pelvis", "root", "spine05")) for bone in bones])

    def measure(self, vertices: np.ndarray, joints: np.ndarray) -> list[float]:
        """The fields of Measurements of one person: rest mesh (V, 3) and joints (J, 3) [m], z up."""
        sole, top = vertices[:, 2].min(), vertices[:, 2].max()
        waist = vertices[self.waist, 2].mean()
        armpit = vertices[self.armpit, 2].min()
        middle = self.legs & (np.abs(vertices[:, 0]) < MIDLINE)
        crotch = vertices[middle, 2].min()
        chest = self._fullest(vertices, waist + 0.4 * (armpit - waist), armpit)
        hip = self._fullest(vertices, crotch, waist)
        return [
            top - sole,
            chest,
            hull_perimeter(slice_mesh(vertices, self.edges, waist)),
            hip,
            crotch - sole,
            self._arm(joints),
        ]

    def _fullest(self, vertices: np.ndarray, low: float, high: float) -> float:
        levels = np.linspace(low, high, LEVELS + 2)[1:-1]
        return max(hull_perimeter(slice_mesh(vertices, self.edges, float(level))) for level in levels)

    def _arm(self, joints: np.ndarray) -> float:
        lengths = []
        for side in ("L", "R"):
            chain = joints[[self.joints[f"{name}.{side}"] for name in ARM_JOINTS]]
            lengths.append(np.linalg.norm(np.diff(chain, axis=0), axis=1).sum())
        return float(np.mean(lengths))
