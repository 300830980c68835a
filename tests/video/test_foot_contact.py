"""Feet that stand stay in place; the rest of the motion stays what it was."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from multihmr.bodies.anny import Anny
from multihmr.humans import Humans
from multihmr.video.foot_contact import FootContact, _legs, bend_legs, find_contacts, frames_of, lock_feet
from multihmr.video.tracks import Track

FPS = 30
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def body() -> Anny:
    return Anny().eval()


def track(body: Anny, translation: np.ndarray, pose: np.ndarray | None = None) -> Track:
    count, topology = len(translation), body.topology
    if pose is None:
        pose = body.mean_pose_R33.numpy()[None].repeat(count, 0)
    K = np.array([[1000, 0, 640], [0, 1000, 360], [0, 0, 1]], np.float32)
    return Track(
        id=1,
        frames=np.arange(count),
        times=np.arange(count) / FPS,
        pose=pose,
        shape=body.mean_shape_S.numpy(),
        expression=np.zeros((count, len(topology.expression_names))),
        translation=translation,
        pelvis=translation + [0, 0.6, 0],
        scores=np.ones(count),
        boxes=np.zeros((count, 4)),
        filled=np.zeros(count, bool),
        K=K[None].repeat(count, 0),
        image_sizes=np.tile([720, 1280], (count, 1)),
        fps=FPS,
        body="anny",
        topology=topology,
    )


def bent(body: Anny, count: int) -> np.ndarray:
    """Poses with knees that bend and stretch over time, as somebody does who bobs up and down."""
    pose = body.mean_pose_R33.numpy()[None].repeat(count, 0)
    names = body.topology.pose_names
    for t in range(count):
        angle = 0.35 + 0.1 * np.sin(2 * np.pi * t / 30)
        for side in "LR":
            for name, turn in ((f"upperleg01.{side}", -angle), (f"lowerleg01.{side}", 2 * angle)):
                c, s = np.cos(turn), np.sin(turn)
                pose[t, names.index(name)] = [[1, 0, 0], [0, c, -s], [0, s, c]]
    return pose


def test_somebody_who_stands_slides_no_more(body: Anny) -> None:
    random = np.random.default_rng(0)
    where = np.tile(np.array([0.3, -0.4, 4.0]), (60, 1)) * (1 + random.normal(0, 0.006, (60, 1)))
    before = track(body, where.astype(np.float32), bent(body, 60))
    after = lock_feet(before, body)
    steps = [np.linalg.norm(np.diff(_legs(t, body).balls, axis=0), axis=-1).mean() for t in (before, after)]
    assert steps[0] > 0.015
    assert steps[1] < 0.003
    assert np.abs(after.translation[:, :2] - where[:, :2]).max() < 0.08
    assert len(after) == 60
    assert (after.shape == before.shape).all()
    rotations = after.pose @ np.swapaxes(after.pose, -1, -2)
    np.testing.assert_allclose(rotations, np.broadcast_to(np.eye(3), rotations.shape), atol=1e-4)


def test_somebody_who_is_carried_is_left_alone(body: Anny) -> None:
    where = np.array([0.0, -0.4, 5.0]) + np.arange(30)[:, None] * [0.05, 0, 0]  # 1.5 m/s
    moving = track(body, where.astype(np.float32))
    assert not find_contacts(moving, _legs(moving, body).balls, None, FootContact()).any()
    assert lock_feet(moving, body) is moving
    short = moving[:3]
    assert lock_feet(short, body) is short


def test_legs_reach_and_feet_keep_their_orientation(body: Anny) -> None:
    before = track(body, np.tile(np.float32([0, -0.3, 4]), (5, 1)), bent(body, 5))
    legs = _legs(before, body)
    moves = np.zeros((5, 2, 3))
    moves[1:, 0], moves[1:, 1] = (0.02, -0.03, 0.04), (-0.01, 0.02, -0.03)
    after = bend_legs(before, legs, moves)
    bent_legs = _legs(after, body)
    np.testing.assert_allclose(bent_legs.ankles, legs.ankles + moves, atol=1e-3)
    np.testing.assert_allclose(bent_legs.balls, legs.balls + moves, atol=1e-3)  # the foot has not turned
    np.testing.assert_allclose(bent_legs.hips, legs.hips, atol=1e-4)
    assert (after.pose[0] == before.pose[0]).all()
    arms = [i for i, name in enumerate(body.topology.pose_names) if "arm" in name]
    assert (after.pose[:, arms] == before.pose[:, arms]).all()


def test_frames_show_the_changed_tracks(body: Anny) -> None:
    still = track(body, np.tile(np.float32([0, -0.3, 4]), (4, 1)))
    frames = [dataclasses.replace(humans, track_ids=np.array([1])) for humans in still.humans(body)]
    frames.append(Humans.empty(topology=body.topology, K=np.eye(3), K_source="given", image_size=(720, 1280)))
    moved = dataclasses.replace(still, translation=still.translation + np.float32([0, 0, 0.5]))
    shown = list(frames_of([moved], frames, body))
    assert [len(humans) for humans in shown] == [1, 1, 1, 1, 0]
    assert shown[2].translation[0, 2] == pytest.approx(4.5)
    assert shown[2].vertices.shape[1] == 13718
