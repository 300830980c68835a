"""Random poses and scenes, before anything is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from multihmr.bodies.anny import Anny
from multihmr.data.synthetic.poses import PoseSampler, turn, turn_between


@pytest.fixture(scope="module")
def sampler() -> PoseSampler:
    body = Anny()
    with torch.no_grad():
        joints = body(
            torch.eye(3).expand(1, 104, 3, 3), body.mean_shape_S[None], torch.zeros(1, 52)
        ).joints_PJ3
    return PoseSampler(body.topology.joint_names, joints[0].numpy())


def test_poses_are_rotations(sampler: PoseSampler) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        r = sampler.sample(rng).rotations
        assert r.dtype == np.float32
        assert np.allclose(r @ r.transpose(0, 2, 1), np.eye(3), atol=1e-5)
        assert np.allclose(np.linalg.det(r), 1, atol=1e-5)


def test_mirroring_twice_gives_the_pose_back(sampler: PoseSampler) -> None:
    r = sampler.sample(np.random.default_rng(1)).rotations
    assert np.array_equal(sampler.mirror(sampler.mirror(r)), r)
    left, right = sampler.index["upperarm01.L"], sampler.index["upperarm01.R"]
    assert not np.array_equal(sampler.mirror(r)[left], r[left])
    assert np.allclose(np.abs(sampler.mirror(r)[left]), np.abs(r[right]))


def test_a_fist_brings_the_fingertips_nearer_to_the_wrist(sampler: PoseSampler) -> None:
    body = Anny()
    reach = []
    for curl in (0.0, 1.0):
        r = np.tile(np.eye(3, dtype=np.float32), (104, 1, 1))
        for side in ("L", "R"):
            sampler._bend_hand(r, side, np.array([curl] * 5 + [0.0]), np.random.default_rng(0))
        with torch.no_grad():
            joints = body(torch.from_numpy(r)[None], body.mean_shape_S[None], torch.zeros(1, 52)).joints_PJ3[
                0
            ]
        i = sampler.index
        reach.append(
            [
                float((joints[i[f"finger{f}-3.{s}"]] - joints[i[f"wrist.{s}"]]).norm())
                for s in "LR"
                for f in range(2, 6)
            ]
        )
    assert (np.array(reach[1]) < 0.8 * np.array(reach[0])).all()
    assert np.allclose(reach[0][:4], reach[0][4:], atol=0.02)


def test_turns() -> None:
    a, b = np.array([1.0, 2, 3]), np.array([-2.0, 0.5, 1])
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    assert np.allclose(turn_between(a, b) @ a, b, atol=1e-6)
    assert np.allclose(turn((0, 0, 2), np.pi / 2) @ (1, 0, 0), (0, 1, 0), atol=1e-6)
