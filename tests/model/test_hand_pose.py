"""Rotations of wrists and fingers from the 21 points of hands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multihmr.bodies.loading import load_body
from multihmr.fitting.prior import load_prior
from multihmr.humans import rotvec_to_rotmat
from multihmr.model.hand_pose import HandBody, fit_hands, fit_hands_either_way

EXACT = (0.001, 0.001, 0.001)


def posed_people(body: HandBody, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Poses (N, R, 3, 3) with hands drawn from the prior and arms turned anyhow, and shapes (N, S)."""
    rng = np.random.default_rng(3)
    pose = np.tile(np.eye(3, dtype=np.float32), (count, body.tips.rotation_count, 1, 1))
    for side, letter in zip(body.sides, "LR", strict=True):
        _, mean, basis = load_prior().hand(letter)
        vectors = mean + rng.normal(size=(count, len(basis))).clip(-2, 2) @ basis
        pose[:, side.fingers] = rotvec_to_rotmat(vectors.reshape(count, 5, 3, 3))
        turned = (*side.above, side.wrist)
        pose[:, turned] = rotvec_to_rotmat(rng.normal(scale=0.5, size=(count, len(turned), 3)))
    shape = rng.uniform(0.3, 0.7, (count, body.tips.shape_count)).astype(np.float32)
    return pose, shape


def turns_of(pose: np.ndarray, joints: tuple[int, ...]) -> np.ndarray:
    """(N, 3, 3) of the last of a chain of bones from the root on."""
    turns = np.eye(3)
    for joint in joints:
        turns = turns @ pose[:, joint]
    return turns


@pytest.mark.parametrize("number", [0, 1])
def test_points_of_a_posed_hand_give_the_hand_back(number: int) -> None:
    body = HandBody.of(load_body("anny"))
    pose, shape = posed_people(body)
    _, points = body.points(pose, shape)
    side, bones = body.sides[number], body.bones(pose, shape)[number]
    fit = fit_hands(side, bones, points[:, number].astype(float) * 1.3 + [1, 2, 3], EXACT)
    assert fit.errors.max() < 0.02
    new = pose.copy()
    new[:, side.fingers] = fit.fingers
    new[:, side.wrist] = turns_of(pose, side.above).swapaxes(-1, -2) @ fit.turns
    _, moved = body.points(new, shape)
    distances = np.linalg.norm(moved[:, number] - points[:, number], axis=-1)
    assert np.median(distances) < 0.0005
    assert distances.max() < 0.002


def test_points_of_a_mirrored_hand_give_the_mirrored_pose() -> None:
    body = HandBody.of(load_body("anny"))
    pose, shape = posed_people(body)
    _, points = body.points(pose, shape)
    bones = body.bones(pose, shape)
    left = fit_hands(body.sides[0], bones[0], points[:, 0].astype(float))
    right = fit_hands(body.sides[1], bones[1], points[:, 0] * [-1.0, 1, 1])
    signs = np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]])
    assert np.abs(left.fingers - right.fingers * signs).max() < 0.05  # Anny's hands differ a little
    assert np.abs(left.turns - right.turns * signs).max() < 0.05


def test_points_behind_a_mirror_are_recognised() -> None:
    """A network that takes a left hand for a right one sees it mirrored in depth."""
    body = HandBody.of(load_body("anny"))
    pose, shape = posed_people(body)
    _, points = body.points(pose, shape)
    side, bones = body.sides[0], body.bones(pose, shape)[0]
    seen = points[:, 0].astype(float)
    straight = fit_hands_either_way(side, bones, seen)
    mirrored = fit_hands_either_way(side, bones, seen * [1, 1, -1])
    assert np.allclose(straight.turns, turns_of(pose, (*side.above, side.wrist)), atol=0.2)
    assert np.allclose(mirrored.fingers, straight.fingers)
    assert np.allclose(mirrored.turns, straight.turns)


def test_wild_points_give_a_possible_hand() -> None:
    """Fingers stay within the range of the prior, whatever the points."""
    body = HandBody.of(load_body("anny"))
    pose, shape = posed_people(body)
    wild = np.random.default_rng(0).normal(size=(len(pose), 21, 3))
    fit = fit_hands(body.sides[0], body.bones(pose, shape)[0], wild)
    angles = np.degrees(np.arccos((np.trace(fit.fingers, axis1=-2, axis2=-1) - 1) / 2))
    assert np.isfinite(fit.turns).all()
    assert angles.max() < 95.1


def test_a_body_without_these_hands_is_refused(fake_smplx_file: Path) -> None:
    body = load_body("smplx", smplx=fake_smplx_file)
    with pytest.raises(ValueError, match="moves the hands of the body 'anny'; this model has 'smplx'"):
        HandBody.of(body)
