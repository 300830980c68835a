from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import roma
import torch

pytest.importorskip("smplx", reason="the smplx package is not installed: pip install 'multihmr[smplx]'")

from multihmr.bodies.base import Body, place
from multihmr.bodies.body_parts import BODY_JOINTS, body_joints, joint_parts, vertex_parts
from multihmr.bodies.keypoint_sets import KEYPOINT_SETS, mirror, mirror_order
from multihmr.bodies.smplx import SMPLX

PARITY = Path(__file__).parents[1] / "parity"


@pytest.fixture(scope="module")
def body(fake_smplx_file) -> SMPLX:
    return SMPLX(fake_smplx_file)


def people(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rotvecs = 0.5 * torch.randn(count, 53, 3, generator=generator)
    shape, expression = torch.randn(2, count, 10, generator=generator)
    return roma.rotvec_to_rotmat(rotvecs), shape, expression


@pytest.mark.slow
@pytest.mark.parametrize("golden", ["single", "batch2"])
def test_equals_golden_arrays_of_the_official_network(body, golden):
    with np.load(PARITY / f"smplx_vits_448_{golden}.npz") as file:
        given = {key: torch.from_numpy(file[key]) for key in ("rotmat", "shape", "expression", "transl")}
        expected = {key: file[key] for key in ("v3d_sub", "v3d_stats", "j3d")}
    output = body(given["rotmat"], given["shape"], given["expression"])
    vertices, joints = place(output, given["transl"], body.center_joint)
    np.testing.assert_allclose(vertices[:, ::50], expected["v3d_sub"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(joints, expected["j3d"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(vertices.mean(1), expected["v3d_stats"][:, :, 0], rtol=0, atol=2e-5)


def test_sizes_and_names(body):
    topology = body.topology
    assert isinstance(body, Body)
    assert (body.rotation_count, body.shape_count, body.expression_count) == (53, 10, 10)
    assert (len(topology.joint_names), topology.faces.shape) == (127, (20908, 3))
    assert topology.joint_names[body.center_joint] == "head"
    assert [topology.pose_names[i] for i in (0, 21, 22, 37, 52)] == [
        "pelvis", "right_wrist", "left_index1", "right_index1", "jaw",
    ]  # fmt: skip
    assert topology.shape_names[-1] == "beta_9"
    assert not body.state_dict()
    np.testing.assert_allclose(topology.skin_weights.sum(1), 1, atol=1e-6)


def test_every_joint_hangs_where_it_belongs(body):
    names, parents = body.topology.joint_names, body.topology.parents
    assert parents[0] == -1
    assert all(0 <= parent < joint for joint, parent in enumerate(parents) if joint)
    parent_of = {name: names[parent] for name, parent in zip(names, parents, strict=True)}
    expected = {"nose": "head", "left_ear": "head", "right_big_toe": "right_foot", "left_heel": "left_ankle"}
    expected |= {"left_thumb": "left_thumb3", "right_eye_brow1": "head", "lip_bottom": "jaw"}
    assert {name: parent_of[name] for name in expected} == expected


def test_parts_and_the_joints_compared(body):
    parts = joint_parts(body.topology)
    assert {part: len(found) for part, found in parts.items()} == {
        "left_hand": 21, "right_hand": 21, "head": 60, "body": 25,
    }  # fmt: skip
    assert body_joints(body.topology) == BODY_JOINTS["smplx"] == body.topology.joint_names[:22]
    assert all(len(found) for found in vertex_parts(body.topology).values())


def test_mirrored_pose_gives_mirrored_joints(body):
    """Up to the asymmetry of the made-up body, whose joints are off by millimetres; unmirrored, 40 cm."""
    pose, _, expression = people(4)
    topology, neutral = body.topology, torch.zeros(4, 10)
    there = body(pose, neutral, neutral).joints_PJ3[:, :55]
    mirrored, _ = mirror(pose, expression, topology)
    here = body(mirrored, neutral, neutral).joints_PJ3[:, mirror_order(topology.joint_names)][:, :55]
    assert (here - there * torch.tensor([-1.0, 1, 1])).norm(dim=-1).mean() < 0.02
    assert torch.equal(mirror(mirrored, expression, topology)[0], pose)
    sided = [name for name in topology.joint_names if name.startswith(("left_", "right_"))]
    order = mirror_order(topology.joint_names)
    assert len(sided) == sum(place != joint for joint, place in enumerate(order))


def test_named_sets_take_the_standard_joints(body):
    sets = body.topology.keypoint_sets
    assert set(sets) == set(KEYPOINT_SETS) - {"coco133"}
    vertices, joints = (points.numpy() for points in body(*people(2)))
    points = {name: keypoints.points(vertices, joints) for name, keypoints in sets.items()}
    legs = [8, 5, 2, 1, 4, 7]
    expected = {
        "coco17": [55, 57, 56, 59, 58, 16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8],
        "openpose25": [55, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, *range(56, 66)],  # SMPLify-X
        "smpl24": [*range(22), 28, 43],
    }
    for name, indices in expected.items():
        np.testing.assert_allclose(points[name], joints[:, indices], atol=1e-6)
    for name in ("lsp14", "h36m14"):
        np.testing.assert_allclose(
            points[name][:, :13], joints[:, [*legs, 21, 19, 17, 16, 18, 20, 12]], atol=1e-6
        )
    top = (
        body(body.mean_pose_R33[None], torch.zeros(1, 10), torch.zeros(1, 10)).vertices_PV3[0, :, 1].argmin()
    )
    np.testing.assert_allclose(points["lsp14"][:, 13], vertices[:, top], atol=1e-6)
    h36m = points["h36m17"]
    np.testing.assert_allclose(h36m[:, 0], joints[:, 1:3].mean(1), atol=1e-6)
    np.testing.assert_allclose(h36m[:, [3, 4, 7, 13, 14]], joints[:, [8, 1, 6, 20, 17]], atol=1e-6)


def test_root_turns_everything_about_the_pelvis(body):
    pose, shape, expression = people(3)
    turn = roma.rotvec_to_rotmat(torch.tensor([0.3, -2.0, 1.0]))
    turned = pose.clone()
    turned[:, 0] = turn @ pose[:, 0]
    before, after = body(pose, shape, expression), body(turned, shape, expression)
    for points, moved in zip(before, after, strict=True):
        torch.testing.assert_close(points @ turn.T, moved, rtol=0, atol=2e-6)
    assert not before.joints_PJ3[:, body.pelvis_joint].any()


def test_mean_person_stands_facing_the_camera(body):
    zeros = torch.zeros(1, 10)
    joints = body(body.mean_pose_R33[None], body.mean_shape_S[None], zeros).joints_PJ3[0]
    at = dict(zip(body.topology.joint_names, joints.tolist(), strict=True))
    assert at["head"][1] < at["pelvis"][1] < at["left_ankle"][1]  # y points down
    assert at["left_wrist"][0] > 0.2 > -0.2 > at["right_wrist"][0]  # facing us, its left is on our right
    assert at["left_foot"][2] < at["left_ankle"][2]  # toes towards the camera


def test_eleven_betas_count(fake_smplx_file, body):
    pose, shape, expression = people(2)
    longer = SMPLX(fake_smplx_file, shape_count=11)
    eleven = torch.cat([shape, torch.zeros(2, 1)], 1)
    torch.testing.assert_close(longer(pose, eleven, expression), body(pose, shape, expression))
    eleven[:, 10] = 2
    moved = longer(pose, eleven, expression).vertices_PV3 - body(pose, shape, expression).vertices_PV3
    assert moved.abs().max() > 1e-3
    assert longer.topology.rest_pelvis.shape == (22, 3)


@pytest.mark.slow
def test_pickled_file_of_few_components_gives_the_same_body(fake_smplx_file, body, tmp_path):
    with np.load(fake_smplx_file) as stored:
        arrays = {key: stored[key] for key in stored.files}
    arrays["shapedirs"] = arrays["shapedirs"][:, :, [*range(10), *range(300, 310)]]
    (tmp_path / "SMPLX_NEUTRAL.pkl").write_bytes(pickle.dumps(arrays))
    again = SMPLX(tmp_path / "SMPLX_NEUTRAL.pkl")
    torch.testing.assert_close(again(*people(2)), body(*people(2)), rtol=0, atol=0)


def test_subset_equals_full(body):
    params, full = people(3), body(*people(3))
    indices = torch.randperm(10475, generator=torch.Generator().manual_seed(0))[:300]
    part = body.with_vertices(indices)
    vertices, joints = part(*params)
    torch.testing.assert_close(vertices, full.vertices_PV3[:, indices], rtol=0, atol=1e-6)
    torch.testing.assert_close(joints, full.joints_PJ3)
    assert len(part.topology.skin_weights) == 300
    assert "coco17" in part.topology.keypoint_sets  # made of joints


def test_nobody(body):
    pose = torch.zeros(0, 53, 3, 3, requires_grad=True)
    vertices, joints = body(pose, torch.zeros(0, 10), torch.zeros(0, 10))
    assert (vertices.shape, joints.shape) == ((0, 10475, 3), (0, 127, 3))
    (vertices.sum() + joints.sum()).backward()


def test_people_do_not_see_each_other(body):
    params = people(3)
    alone = torch.cat([body(*(p[i : i + 1] for p in params)).vertices_PV3 for i in range(3)])
    torch.testing.assert_close(body(*params).vertices_PV3, alone, rtol=0, atol=2e-6)


def test_autocast_does_not_touch_metres(body):
    params = people(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = body(*params)
    torch.testing.assert_close(output, body(*params), rtol=0, atol=0)


def test_gradients_are_finite_and_right(body):
    params = [p.requires_grad_() for p in people(2)]
    part = body.with_vertices(range(0, 10475, 500))
    weights = torch.randn(2, 21, 3, generator=torch.Generator().manual_seed(0))

    def loss(shape: torch.Tensor) -> torch.Tensor:
        output = part(params[0], shape, params[2])
        return (output.vertices_PV3 * weights).sum() + output.joints_PJ3.square().sum()

    gradients = torch.autograd.grad(loss(params[1]), params)
    assert all(g.isfinite().all() and g.any() for g in gradients)
    step = torch.zeros(2, 10)
    step[:, 3] = 0.05
    with torch.no_grad():
        difference = loss(params[1] + step) - loss(params[1] - step)
    assert float(gradients[1][:, 3].sum()) == pytest.approx(float(difference) / 0.1, rel=0.01)


def test_bad_parameters_are_named(body):
    pose, _, expression = people(2)
    with pytest.raises(ValueError, match=r"shape of body 'smplx' must be \(2, 10\).*got \(2, 11\)"):
        body(pose, torch.zeros(2, 11), expression)


def test_without_the_package_the_cure_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "smplx.joint_names", None)
    monkeypatch.delitem(sys.modules, "multihmr.bodies.smplx")
    with pytest.raises(ImportError, match=r"pip install 'multihmr\[smplx\]'"):
        importlib.import_module("multihmr.bodies.smplx")


@pytest.mark.gpu
def test_gpu_equals_cpu(fake_smplx_file, body):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    params = people(20)
    on_gpu = SMPLX(fake_smplx_file).cuda()(*(p.cuda() for p in params))
    torch.testing.assert_close(on_gpu.vertices_PV3.cpu(), body(*params).vertices_PV3, rtol=0, atol=1e-5)
