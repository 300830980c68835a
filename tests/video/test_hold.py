"""Hands and faces that are found in some frames only do not switch between found and predicted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import roma
import torch

from multihmr.bodies.loading import load_body
from multihmr.humans import Humans
from multihmr.video.hold import FADE, HELD, LONGEST_GAP, DetailHolder
from multihmr.video.prediction_cache import PredictionCache
from multihmr.video.tracker import LIVE, Tracking, follow

FPS = 10
STILL = Tracking(smoothing=None)
FINGER, WRIST, OTHER, HEAD = "finger2-1.L", "wrist.L", "finger2-1.R", "head"


@pytest.fixture(scope="module")
def person() -> Humans:
    """One person of Anny, without a mesh, whose pose is the identity."""
    body = load_body("anny")
    topology = dataclasses.replace(body.topology, faces=np.zeros((0, 3)), faces_uv=None, keypoint_sets={})
    joints = np.random.default_rng(0).normal(0, 0.3, (1, len(topology.joint_names), 3)) + [0, 0, 3]
    return Humans(
        scores=[0.9],
        vertices=np.zeros((1, 0, 3)),
        joints=joints,
        joints_2d=np.zeros((1, len(topology.joint_names), 2)),
        boxes=[[10, 10, 60, 90]],
        translation=[[0, 0, 3]],
        pelvis=[[0, 0, 3]],
        pose=np.eye(3)[None, None].repeat(body.rotation_count, 1),
        shape=np.full((1, body.shape_count), 0.5),
        expression=np.zeros((1, body.expression_count)),
        K=np.diag([100, 100, 1]),
        K_source="given",
        image_size=(100, 100),
        body="anny",
        topology=topology,
    )


def frames(person: Humans, found: dict[int, float], count: int, part: int = 0) -> list[Humans]:
    """The person, a part of whom is found in some frames, turned by so many degrees."""
    result = []
    for i in range(count):
        pose, expression = np.array(person.pose), np.array(person.expression)
        refined = np.zeros((1, 3), bool)
        if i in found:
            vector = torch.tensor([0.0, 0.0, np.radians(found[i])])
            for name in (WRIST, FINGER) if part == 0 else (HEAD,):
                pose[0, row(person, name)] = roma.rotvec_to_rotmat(vector)
            refined[0, part] = True
            expression[0] = 0.5 if part == 2 else 0
        result.append(dataclasses.replace(person, pose=pose, expression=expression, refined=refined))
    return result


def row(person: Humans, name: str) -> int:
    return list(person.topology.pose_joints).index(person.topology.joint_names.index(name))


def turned(person: Humans, result: list[Humans], name: str) -> list[float]:
    """By how many degrees a bone is turned in each frame."""
    poses = np.stack([humans.pose[0, row(person, name)] for humans in result])
    return np.degrees(roma.rotmat_to_rotvec(torch.tensor(poses))[:, 2].numpy()).tolist()


def timed(people: list[Humans]) -> list[tuple[float, Humans]]:
    return [(i / FPS, humans) for i, humans in enumerate(people)]


def test_a_hand_is_interpolated_between_frames_in_which_it_is_found(person):
    result = list(follow(timed(frames(person, {0: 40, 4: 60, 5: 60}, 6)), STILL))
    for name in (WRIST, FINGER):
        assert turned(person, result, name) == pytest.approx([40, 45, 50, 55, 60, 60], abs=0.01)
    assert turned(person, result, OTHER) == pytest.approx([0] * 6, abs=0.01)
    assert [bool(humans.refined[0, 0]) for humans in result] == [True, False, False, False, True, True]


def test_it_is_held_before_the_first_frame_and_after_the_last_and_fades(person):
    result = turned(person, list(follow(timed(frames(person, {15: 50}, 31)), STILL)), FINGER)
    hold, fade = round(HELD * FPS), round(FADE * FPS)
    expected = [50.0] * (hold + 1) + [50 * (1 - i / fade) for i in range(1, fade + 1)]
    expected += [0.0] * (16 - len(expected))
    assert result == pytest.approx(expected[:0:-1] + expected, abs=0.01)


def test_a_long_gap_is_not_bridged(person):
    later = round(1.5 * LONGEST_GAP * FPS)
    result = turned(person, list(follow(timed(frames(person, {0: 40, later: 40}, later + 1)), STILL)), WRIST)
    assert result[later // 2] == pytest.approx(40 * (1 - (later // 2 / FPS - HELD) / FADE), abs=6)
    assert min(result) < 15
    assert result[0] == result[-1] == pytest.approx(40, abs=0.01)


def test_live_a_hand_is_held_without_later_frames(person):
    live = dataclasses.replace(LIVE, smoothing=None)
    result = turned(person, list(follow(timed(frames(person, {2: 40, 5: 60}, 8)), live)), FINGER)
    assert result == pytest.approx([0, 0, 40, 40, 40, 60, 60, 60], abs=0.01)


def test_a_face_keeps_its_expression_and_its_turn(person):
    result = list(follow(timed(frames(person, {0: 30, 3: 30}, 4, part=2)), STILL))
    assert turned(person, result, HEAD) == pytest.approx([30] * 4, abs=0.01)
    assert np.stack([humans.expression[0] for humans in result]) == pytest.approx(0.5)


def moving(person: Humans, found: dict[int, float], count: int) -> list[Humans]:
    """The person, who is moved away by so many metres in the frames in which the face is found."""
    result = []
    for i, humans in enumerate(frames(person, dict.fromkeys(found, 10.0), count, part=2)):
        moved = np.float32([[0, 0, found.get(i, 0.0)]])
        result.append(dataclasses.replace(humans, moved=moved, translation=humans.translation + moved))
    return result


def test_who_was_moved_to_a_face_stays_there_while_it_is_held(person):
    """The distance went to and fro by the way to the face, in frames in which it was found and was not."""
    result = list(follow(timed(moving(person, {0: 0.2, 4: 0.4}, 5)), STILL))
    depths = [float(humans.translation[0, 2]) for humans in result]
    assert depths == pytest.approx([3.2, 3.25, 3.3, 3.35, 3.4], abs=1e-5)
    assert [float(humans.moved[0, 2]) for humans in result] == pytest.approx([0.2, 0.25, 0.3, 0.35, 0.4])
    after = [float(h.translation[0, 2]) for h in follow(timed(moving(person, {0: 0.2}, 12)), STILL)]
    assert after == pytest.approx([3.2] * 4 + [3.16, 3.12, 3.08, 3.04, 3.0, 3.0, 3.0, 3.0], abs=1e-5)
    live = dataclasses.replace(LIVE, smoothing=None)
    now = [float(h.translation[0, 2]) for h in follow(timed(moving(person, {1: 0.2, 3: 0.2}, 5)), live)]
    assert now == pytest.approx([3.0, 3.2, 3.2, 3.2, 3.2], abs=1e-5)


def test_people_are_not_mixed_up_and_without_a_closer_look_nothing_changes(person):
    holder = DetailHolder()
    first, _, third = frames(person, {0: 40}, 3)
    assert holder.backwards(first, np.array([7]), 0.0, []) == []
    assert np.array_equal(holder(third, np.array([8]), 0.1).pose, third.pose)
    assert not np.array_equal(holder(third, np.array([7]), 0.1).pose, third.pose)
    assert holder(person, np.array([7]), 0.1) is person


def test_the_cache_keeps_what_was_found(person, tmp_path):
    cache = PredictionCache(tmp_path, {"model": "x"})
    given = moving(person, {1: 0.2}, 3)
    for time, humans in timed(given):
        cache.add(time, humans)
    cache.finish()
    again = [humans for _, humans in cache.read(person.topology)]
    assert [humans.refined.tolist() for humans in again] == [humans.refined.tolist() for humans in given]
    assert [humans.moved.tolist() for humans in again] == [humans.moved.tolist() for humans in given]
