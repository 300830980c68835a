"""Who stands, which way their bodies point, and where their feet are: what gravity is estimated from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np

from ..bodies.body_parts import body_joints
from ..bodies.topology import Topology
from ..humans import Humans

# Indices in `body_joints`, left and right.
PELVIS, NECK, HEAD = 0, 12, 15
HIPS, KNEES, ANKLES, TOES = [1, 2], [4, 5], [7, 8], [10, 11]
SHOULDERS, ELBOWS, WRISTS = [16, 17], [18, 19], [20, 21]

# Most bending [degrees] of the straighter and of the other knee or hip of a person who stands. Tighter limits
# leave out half of those who stand; with wider ones gravity is not better (250 renders, tuning split).
STRAIGHT, BENT = 35.0, 65.0
MOST_ROLL, MOST_PITCH = 50.0, 60.0  # [degrees] of a camera before which a straight body is taken as standing
MARGIN = 0.02  # of the longer side of the image, by which a joint may lie outside of it
SOLE_VERTICES = 30  # the lowest of a person's feet, whose mean touches the floor

# Shares of the body's mass and where they lie between two joints (de Leva, "Adjustments to
# Zatsiorsky-Seluyanov's segment inertia parameters", 1996, means of women and men; trunk between the middles
# of hips and shoulders).
_TRUNK, _HEAD = 0.43, 0.068
_LIMBS = (  # share of one limb, from, to, where between them
    (0.0263, SHOULDERS, ELBOWS, 0.576),
    (0.0150, ELBOWS, WRISTS, 0.457),
    (0.0059, WRISTS, WRISTS, 0.0),
    (0.1447, HIPS, KNEES, 0.385),
    (0.0457, KNEES, ANKLES, 0.442),
    (0.0133, ANKLES, TOES, 0.4),
)


@dataclass(frozen=True)
class Stances:
    """What M people say about the vertical; camera frame, metres.

    Attributes:
        axes: (M, 3) unit vectors along the bodies, from the feet to the head.
        stands: (M,) bool: legs and trunk are straight, the knees are in the image, and a camera that is held
            as most are sees the body upright.
        shows_feet: (M,) bool: who stands and has an ankle in the image.
        shows_ankles: (M,) bool: an ankle is in the image, and the body is not clearly lying.
        shows_hips: (M,) bool: likewise of both hips.
        feet: (M, F, 3) float32 points of the feet, some of which touch the floor.
        distances: (M,) of the heads.
    """

    axes: np.ndarray
    stands: np.ndarray
    shows_feet: np.ndarray
    shows_ankles: np.ndarray
    shows_hips: np.ndarray
    feet: np.ndarray
    distances: np.ndarray

    @classmethod
    def of(cls, humans: Humans) -> Stances:
        """Of the people of one image."""
        return _stances(humans)

    @classmethod
    def joined(cls, parts: Sequence[Stances]) -> Stances:
        """Of the people of several images of a camera that does not move."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def scaled(self, scales: np.ndarray) -> Stances:
        """The same people with all points times (M,) `scales`, which the image does not show."""
        feet = (self.feet * scales[:, None, None]).astype(self.feet.dtype)
        return replace(self, feet=feet, distances=self.distances * scales)


def _stances(humans: Humans) -> Stances:
    topology = humans.topology
    indices = [topology.joint_names.index(name) for name in body_joints(topology)]
    J = humans.joints[:, indices].astype(np.float64)
    trunk = _unit(J[:, NECK] - J[:, PELVIS])
    thighs, shins = _unit(J[:, KNEES] - J[:, HIPS]), _unit(J[:, ANKLES] - J[:, KNEES])
    knees = angles(thighs, shins)
    hips = angles(-thighs, np.broadcast_to(trunk[:, None], thighs.shape))
    support = (J[:, ANKLES] + J[:, TOES]).mean(1) / 2
    pelvis_up = humans.pose[:, 0].astype(np.float64) @ rest_up(topology)
    # A body at rest balances over its feet, its spine and pelvis are about upright: each is wrong now and
    # then, their mean less.
    balance, length = _unit(mass_center(J) - support), _unit(J[:, NECK] - J[:, ANKLES].mean(1))
    axes = _unit(balance + length + pelvis_up + 0.5 * trunk)
    roll, pitch = roll_and_pitch(axes)
    straight = np.ones(len(humans), bool)
    for bend in (knees, hips):
        straight &= (bend.min(1) < STRAIGHT) & (bend.max(1) < BENT)
    inside = _inside(humans, indices)
    likely = (np.abs(roll) < np.radians(MOST_ROLL)) & (np.abs(pitch) < np.radians(MOST_PITCH))
    stands = straight & likely & inside[:, KNEES].all(1)
    return Stances(
        axes=axes,
        stands=stands,
        shows_feet=stands & inside[:, ANKLES].any(1),
        shows_ankles=likely & inside[:, ANKLES].any(1),
        shows_hips=likely & inside[:, HIPS].all(1),
        feet=feet_points(humans),
        distances=humans.distances.astype(np.float64),
    )


def mass_center(J: np.ndarray) -> np.ndarray:
    """(N, 22, 3) body joints -> (N, 3) centres of mass, by the mean shares of adults."""
    middle = (J[:, HIPS].mean(1) + J[:, SHOULDERS].mean(1)) / 2
    total = _TRUNK * middle + _HEAD * J[:, HEAD]
    for share, start, end, between in _LIMBS:
        total += 2 * share * ((1 - between) * J[:, start] + between * J[:, end]).mean(1)
    return total / (_TRUNK + _HEAD + 2 * sum(share for share, *_ in _LIMBS))


def lowest_points(feet: np.ndarray, up: np.ndarray) -> np.ndarray:
    """(M, F, 3) points of the feet -> (M, 3) where they touch a floor with that normal."""
    count = min(SOLE_VERTICES, feet.shape[1])
    lowest = np.argpartition(feet @ up.astype(feet.dtype), count - 1, axis=1)[:, :count]
    points: np.ndarray = np.take_along_axis(feet, lowest[..., None], axis=1).mean(1)
    return points


def feet_points(humans: Humans) -> np.ndarray:
    """(N, F, 3) vertices of the feet; ankles and toes of people without meshes."""
    topology = humans.topology
    if not humans.vertices.shape[1] or topology.skin_weights is None:
        joints = [topology.joint_names.index(name) for name in body_joints(topology)]
        return humans.joints[:, np.array(joints)[[*ANKLES, *TOES]]]
    return humans.vertices[:, foot_vertices(topology)]


@lru_cache(maxsize=8)
def foot_vertices(topology: Topology) -> np.ndarray:
    """(F,) indices of vertices that the joints of the feet, from the ankles on, move by more than half."""
    assert topology.skin_indices is not None
    assert topology.skin_weights is not None
    names = body_joints(topology)
    is_foot = np.zeros(len(topology.joint_names), bool)
    is_foot[[topology.joint_names.index(names[joint]) for joint in ANKLES]] = True
    for joint, parent in enumerate(topology.parents):
        is_foot[joint] |= parent >= 0 and is_foot[parent]
    return np.flatnonzero((topology.skin_weights * is_foot[topology.skin_indices]).sum(1) > 0.5)


def rest_up(topology: Topology) -> np.ndarray:
    """(3,) which way the head of a body at rest points: y of SMPL and SMPL-X, z of the others."""
    return np.array([0.0, 1, 0] if topology.name.startswith("smpl") else [0.0, 0, 1])


def roll_and_pitch(up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 3) unit vectors that point upwards in the camera frame -> roll and pitch (...) of it [rad]."""
    return np.arctan2(-up[..., 0], -up[..., 1]), np.arcsin(np.clip(-up[..., 2], -1, 1))


def up_of(roll: float, pitch: float) -> np.ndarray:
    """(3,) what points upwards in the frame of a camera with this roll and pitch [rad]."""
    return np.array([-np.sin(roll) * np.cos(pitch), -np.cos(roll) * np.cos(pitch), -np.sin(pitch)])


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(...) degrees between unit vectors (..., 3)."""
    return np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1)))


def _inside(humans: Humans, joints: list[int]) -> np.ndarray:
    """(N, 22) whether the body joints are in the image, or close to its edge."""
    height, width = humans.image_size
    margin = MARGIN * max(height, width)
    xy = humans.joints_2d[:, joints]
    low, high = xy > -margin, xy < np.array([width, height]) + margin
    return np.all(low & high, axis=-1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
