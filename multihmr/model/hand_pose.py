"""Rotations of the wrist and fingers of Anny from 21 points of a hand: damped Gauss-Newton with a prior.

The fingers' rotation vectors are mean + c basis, the principal directions of posed hands that come with
`fitting.prior`; c has a normal distribution, so that what the points leave open stays likely. Sought are c,
the turn of the whole hand, its place and its size, so that the points on the body lie on the given ones. A
hand has 19 unknowns and 63 residuals: all hands of a picture are solved at once in numpy, in milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ..bodies.anny import Anny
from ..bodies.base import Body
from ..fitting.point_sets import FINGERS, find_points
from ..fitting.prior import load_prior
from ..humans.rotations import cross_matrices, rotvec_to_rotmat

SIDES = ("left", "right")
STEPS = 5
# [m] of found points, sideways and in depth: of some that were tried, those with the least error of the
# fingers on 900 hands of the renders for training.
POINT_SPREAD = (0.01, 0.01, 0.04)
# The range of the posed hands that the prior was learned from, about: spreads of its first direction, which
# closes the hand, and of the others; and how far a bone turns.
MOST_CLOSED, MOST_SPREADS, MOST_BENT = 2.6, 5.0, np.radians(95.0)

DAMPING = 1e-3


class HandFit(NamedTuple):
    """H hands fitted to points.

    turns       (H, 3, 3) of the wrist bone, from the axes of the body into those of the points
    fingers     (H, 5, 3, 3, 3) rotations of the three bones of each finger, as in `Humans.pose`
    errors      (H,) root mean square distance of the 21 points, as part of the length from the wrist to the
                first joint of the middle finger
    """

    turns: np.ndarray
    fingers: np.ndarray
    errors: np.ndarray


class HandBones(NamedTuple):
    """H hands with all fingers straight, the wrist in the origin and not turned [m].

    starts      (H, 5, 3) first joint of each finger
    palms       (H, 5, 3, 3) how its bone in the palm is turned
    ways        (H, 5, 3, 3) in its own axes: from the first joint to the second, on to the third, to the tip
    """

    starts: np.ndarray
    palms: np.ndarray
    ways: np.ndarray


class Side(NamedTuple):
    """One hand of a body: indices of joints, and the posed hands that `fitting.prior` was learned from.

    wrist       the bone that turns the hand
    above       the bones that it hangs on, from the root on
    palms       (5,) bone of the palm that carries each finger; the wrist carries the thumb
    fingers     (5, 3) bones of each finger
    mean        (45,) rotation vectors of the average hand [rad]
    basis       (F, 45) their principal directions, each times its standard deviation
    """

    wrist: int
    above: tuple[int, ...]
    palms: np.ndarray
    fingers: np.ndarray
    mean: np.ndarray
    basis: np.ndarray


class HandBody:
    """What is needed of a body to pose its hands: both sides, and the body with only the finger tips.

    ValueError for a body other than Anny.
    """

    _made: ClassVar[WeakKeyDictionary[Body, HandBody]] = WeakKeyDictionary()

    def __init__(self, body: Body) -> None:
        if not isinstance(body, Anny):
            raise ValueError(
                f"hands_and_faces=True moves the hands of the body 'anny'; this model has '{body.name}'"
            )
        vertices: list[int] = []
        for side in SIDES:
            tips = find_points(body, "", [f"{side}_{finger}4" for finger in FINGERS])[0]
            vertices += tips.vertex_indices[:, 0].tolist()
        self.tips = body.with_vertices(vertices)
        self.sides = [_side(body, side) for side in SIDES]

    @classmethod
    def of(cls, body: Body) -> HandBody:
        """That of a body, made once."""
        if body not in cls._made:
            cls._made[body] = cls(body)
        return cls._made[body]

    def points(self, pose: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joints (N, J, 3) and hand points (N, 2, 21, 3) of people in the frame of the body [m]."""
        device = self.tips.mean_shape_S.device
        with torch.inference_mode():
            given = [torch.tensor(array, dtype=torch.float32, device=device) for array in (pose, shape)]
            given.append(given[0].new_zeros(len(pose), self.tips.expression_count))
            vertices, joints = (points.float().cpu().numpy() for points in self.tips(*given))
        hands = []
        for i, side in enumerate(self.sides):
            fingers = np.concatenate([joints[:, side.fingers], vertices[:, 5 * i : 5 * i + 5, None]], axis=2)
            hands.append(np.concatenate([joints[:, side.wrist, None], fingers.reshape(-1, 20, 3)], axis=1))
        return joints, np.stack(hands, axis=1)

    def bones(self, pose: np.ndarray, shape: np.ndarray) -> list[HandBones]:
        """The N left and N right hands of people, their palms as in the pose."""
        straight = np.tile(np.eye(3, dtype=np.float32), (*pose.shape[:2], 1, 1))
        joints, points = self.points(straight, shape)
        hands = []
        for side, hand in zip(self.sides, points.swapaxes(0, 1).astype(np.float64), strict=True):
            wrist = hand[:, 0, None]
            fingers = hand[:, 1:].reshape(-1, 5, 4, 3)
            knuckles = joints[:, side.palms] - wrist
            palms = pose[:, side.palms].astype(np.float64)
            palms[:, side.palms == side.wrist] = np.eye(3)
            ways = fingers[:, :, 0] - wrist - knuckles
            starts = knuckles + (palms @ ways[..., None])[..., 0]
            hands.append(HandBones(starts, palms, np.diff(fingers, axis=2)))
        return hands


def _side(body: Body, name: str) -> Side:
    """The hand on a side, "left" or "right", of Anny."""
    names, parents, letter = body.topology.joint_names, body.topology.parents, name[0].upper()
    wrist = names.index(f"wrist.{letter}")
    bones, mean, basis = load_prior().hand(letter)
    fingers = np.array([names.index(bone) for bone in bones]).reshape(5, 3)
    palms = np.array([parents[first] for first in fingers[:, 0]])
    return Side(wrist, body.topology.path(parents[wrist]), palms, fingers, mean, basis)


def fit_hands(
    side: Side, bones: HandBones, points: np.ndarray, spread: Sequence[float] = POINT_SPREAD
) -> HandFit:
    """Rotations that bring the points of H hands of one side onto given ones.

    Args:
        side: of the body.
        bones: of the hands.
        points: (H, 21, 3) [m] in axes of which z leads away from the viewer; only directions and proportions
            count.
        spread: standard deviation of the points along x, y, z [m]; larger ones leave more to the prior.
    """
    count, width = len(points), len(side.basis)
    c, sigma = np.zeros((count, width)), np.array(spread)
    most = np.array([MOST_CLOSED] + [MOST_SPREADS] * (width - 1))
    posed, ways = _posed_points(side, bones, c)
    turns, scale, shift = _aligned(posed, points)
    for _ in range(STEPS):
        placed = scale[:, None, None] * (posed @ turns.mT)
        residual = (placed + shift[:, None] - points) / sigma
        moved = scale[:, None, None, None] * (turns[:, None] @ ways)
        eye = np.broadcast_to(np.eye(3), (*placed.shape, 3))
        columns = [moved, -cross_matrices(placed), placed[..., None], eye]
        J = (np.concatenate(columns, -1) / sigma[:, None]).reshape(count, 63, -1)
        normal = J.mT @ J + DAMPING * np.eye(J.shape[-1])
        gradient = (J.mT @ residual.reshape(count, 63, 1))[..., 0]
        diagonal = np.arange(width)
        normal[:, diagonal, diagonal] += 1  # of the prior
        gradient[:, :width] += c
        change = -np.linalg.solve(normal, gradient[..., None])[..., 0]
        c = np.clip(c + change[:, :width], -most, most)
        turns = rotvec_to_rotmat(change[:, width : width + 3]) @ turns
        scale = scale * np.exp(np.clip(change[:, width + 3], -0.5, 0.5))
        shift = shift + change[:, width + 4 :]
        posed, ways = _posed_points(side, bones, c)
    placed = scale[:, None, None] * (posed @ turns.mT) + shift[:, None]
    palm = np.linalg.norm(placed[:, 9] - placed[:, 0], axis=-1)
    errors = np.sqrt(((placed - points) ** 2).sum(-1).mean(-1)) / palm
    vectors = _vectors(side, c)
    angles = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return HandFit(turns, rotvec_to_rotmat(vectors * np.minimum(1, MOST_BENT / angles)), errors)


def fit_hands_either_way(side: Side, bones: HandBones, points: np.ndarray) -> HandFit:
    """`fit_hands` to the points or to their mirror image in depth, whichever fits better.

    In one picture a right hand and a left one behind a mirror look alike. A network that takes one for the
    other finds the right pixels and bends the fingers to the wrong side, which this hand cannot do. Of hands
    with a presence above 0.5 on renders, 8 % are then turned by more than 60 degrees, else 16 %.
    """
    doubled = HandBones(*(np.concatenate([array, array]) for array in bones))
    both = fit_hands(side, doubled, np.concatenate([points, points * [1, 1, -1]]))
    count = len(points)
    rows = np.arange(count) + count * (both.errors[count:] < both.errors[:count])
    return HandFit(*(array[rows] for array in both))


def _vectors(side: Side, c: np.ndarray) -> np.ndarray:
    """(H, F) coordinates -> (H, 5, 3, 3) rotation vectors of the fingers' bones [rad]."""
    return (side.mean + c @ side.basis).reshape(len(c), 5, 3, 3)


def _posed_points(side: Side, bones: HandBones, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 21 points (H, 21, 3) before the hand turns, and their derivatives by c (H, 21, 3, F)."""
    count, width = c.shape
    vectors = _vectors(side, c)
    local, axes = rotvec_to_rotmat(vectors), _left_jacobians(vectors)
    turn, start = bones.palms, bones.starts
    starts, by_joint = [start], []
    basis = side.basis.reshape(width, 5, 3, 3)
    for k in range(3):
        by_joint.append(turn @ axes[:, :, k] @ basis[:, :, k].transpose(1, 2, 0))
        turn = turn @ local[:, :, k]
        start = start + (turn @ bones.ways[:, :, k, :, None])[..., 0]
        starts.append(start)
    ways = np.zeros((count, 5, 4, 3, width))
    for k in range(3):
        for point in range(k + 1, 4):
            arms = cross_matrices(starts[point] - starts[k])
            ways[:, :, point] -= arms @ by_joint[k]
    points = np.zeros((count, 21, 3))
    points[:, 1:] = np.stack(starts, 2).reshape(count, 20, 3)
    derivatives = np.zeros((count, 21, 3, width))
    derivatives[:, 1:] = ways.reshape(count, 20, 3, width)
    return points, derivatives


def _aligned(source: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turns (H, 3, 3), sizes (H,) and shifts (H, 3) that bring the points of `source` onto `goal`.

    All points: the palm alone is so flat that some hands start from a turn that no step leads away from.
    """
    mean, goal_mean = source.mean(1), goal.mean(1)
    a, b = source - mean[:, None], goal - goal_mean[:, None]
    U, values, V = np.linalg.svd(b.mT @ a)
    signs = np.ones_like(values)
    signs[:, 2] = np.sign(np.linalg.det(U @ V))
    turns = U * signs[:, None] @ V
    scale = (values * signs).sum(1) / (a**2).sum((1, 2))
    return turns, scale, goal_mean - scale[:, None] * (turns @ mean[..., None])[..., 0]


def _left_jacobians(vectors: np.ndarray) -> np.ndarray:
    """(..., 3, 3) L of rotation vectors v: rotation(v + d) = rotation(L d) rotation(v) for small d."""
    angle = np.maximum(np.linalg.norm(vectors, axis=-1), 1e-4)[..., None, None]
    K = cross_matrices(vectors)
    half = (1 - np.cos(angle)) / angle**2
    return np.eye(3) + half * K + (angle - np.sin(angle)) / angle**3 * (K @ K)
