from __future__ import annotations

import copy
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from safetensors.torch import save_file

from multihmr.bodies import anny
from multihmr.bodies.anny import ASSET, Anny, nearest_rotation
from multihmr.bodies.anny_base import (
    ADULT_AGE,
    DIRECTION_STEP,
    quantise_directions,
    restore_directions,
)
from multihmr.bodies.base import Body, place
from multihmr.geometry import rot6d_to_rotmat

sys.path.insert(0, str(Path(__file__).parent))
from bake_golden import GOLDEN, kept, package_output, random_people

TENTH_MM = 1e-4


@pytest.fixture(scope="module")
def body() -> Anny:
    return Anny()


@pytest.fixture(scope="module")
def with_helpers() -> Anny:
    return Anny(helpers=True)


def people(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rotvecs, shapes, expressions = (
        torch.from_numpy(a.astype(np.float32)) for a in random_people(count, seed)
    )
    return roma.rotvec_to_rotmat(rotvecs), shapes, expressions


def largest_error(a: torch.Tensor, b: np.ndarray) -> float:
    return float(np.linalg.norm(a.numpy() - b, axis=-1).max())


def test_equals_golden_arrays_of_the_package(with_helpers):
    golden = np.load(GOLDEN)
    rotvecs, shapes, expressions = (
        torch.from_numpy(golden[name].astype(np.float32)) for name in ("rotvecs", "shapes", "expressions")
    )
    vertices, joints = with_helpers(roma.rotvec_to_rotmat(rotvecs), shapes, expressions)
    which_vertices, which_joints = (torch.from_numpy(w)[..., None] for w in kept(len(rotvecs), 19158))
    assert len(rotvecs) == 200
    assert largest_error(vertices.take_along_dim(which_vertices, 1), golden["vertices"]) < TENTH_MM
    assert largest_error(joints.take_along_dim(which_joints, 1), golden["joints"]) < TENTH_MM


@pytest.mark.nightly
def test_equals_the_package_itself(body, with_helpers):
    anny = pytest.importorskip("anny")
    params = random_people(200, seed=1)
    as_ours = people(200, seed=1)
    for ours, topology in ((body, "anny"), (with_helpers, "anny-full")):
        model = anny.Anny(topology=topology, facial_actions="all")
        vertices, joints = package_output(model, *params)
        out = ours(*as_ours)
        assert largest_error(out.vertices_PV3, vertices) < TENTH_MM
        assert largest_error(out.joints_PJ3, joints) < TENTH_MM
        assert np.array_equal(ours.topology.faces, model.faces.numpy())
    keypoints = anny.keypoints.KeypointsRegressor.coco(model)
    assert set(keypoints.labels) == set(body.topology.keypoint_sets["coco23"].names)


def test_directions_are_restored_to_half_a_step():
    directions = np.random.default_rng(0).normal(scale=0.02, size=(5, 30)).clip(-0.09, 0.09)
    directions[0, :3] = 0, DIRECTION_STEP, -DIRECTION_STEP
    numbers = quantise_directions(directions)
    assert (numbers.shape, numbers.dtype) == ((5, 3, 10), np.uint16)
    assert numbers[0, :, 0].tolist() == [0, 2, 1]
    np.testing.assert_allclose(restore_directions(numbers), directions, rtol=0, atol=0.501 * DIRECTION_STEP)


def test_sizes_and_names(body, with_helpers):
    assert isinstance(body, Body)
    assert (body.rotation_count, body.shape_count, body.expression_count) == (104, 6, 52)
    assert body.topology.joint_names[body.center_joint] == "head"
    assert body.topology.joint_names[body.pelvis_joint] == "root"
    assert body.topology.shape_names == ("gender", "age", "muscle", "weight", "height", "proportions")
    assert body.topology.faces.shape == body.topology.faces_uv.shape == (27420, 3)
    assert body.topology.faces.max() == 13717
    assert body.topology.skin_indices.shape[0] == 13718
    assert np.array_equal(with_helpers.base_vertices, np.arange(19158))
    assert not body.state_dict()


def test_body_is_the_part_without_helpers(body, with_helpers):
    params = people(3)
    expected = with_helpers(*params).vertices_PV3[:, body.base_vertices]
    torch.testing.assert_close(body(*params).vertices_PV3, expected, rtol=0, atol=1e-6)


def test_subset_equals_full(body):
    params = people(4)
    indices = torch.randperm(13718, generator=torch.Generator().manual_seed(0))[:300]
    full, part = body(*params), body.with_vertices(indices)(*params)
    torch.testing.assert_close(part.vertices_PV3, full.vertices_PV3[:, indices], rtol=0, atol=1e-6)
    torch.testing.assert_close(part.joints_PJ3, full.joints_PJ3)
    assert body(*params).vertices_PV3.shape == (4, 13718, 3)


def test_subset_keeps_faces_whose_vertices_stay(body):
    part = body.with_vertices(np.flip(np.unique(body.topology.faces[:50])))
    triangles = {tuple(triangle) for triangle in part.base_vertices[part.topology.faces]}
    assert {tuple(triangle) for triangle in body.base_vertices[body.topology.faces[:50]]} <= triangles
    assert len(part.topology.faces_uv) == len(triangles)


def test_root_turns_everything_rigidly(body):
    pose, shape, expression = people(5)
    turn = roma.rotvec_to_rotmat(torch.tensor([0.3, -2.0, 1.0]))
    turned = pose.clone()
    turned[:, 0] = turn @ pose[:, 0]
    before, after = body(pose, shape, expression), body(turned, shape, expression)
    for points, moved in zip(before, after, strict=True):
        torch.testing.assert_close(points @ turn.T, moved, rtol=0, atol=2e-6)


def test_joints_ride_on_bone_transforms(body):
    """Each bone's transform takes its rest head to the posed joint, and so does the parent's."""
    pose, shape, expression = people(5)
    transforms = body.bone_transforms(pose, shape)
    identity = torch.eye(3).expand_as(pose)
    reference = body.bone_transforms(identity, shape)
    at_reference = body(identity, shape, expression).joints_PJ3[..., None]
    heads = reference[..., :3].mT @ (at_reference - reference[..., 3:])
    joints = body(pose, shape, expression).joints_PJ3
    torch.testing.assert_close(
        (transforms[..., :3] @ heads + transforms[..., 3:]).squeeze(-1), joints, rtol=0, atol=1e-5
    )
    by_parent = transforms[:, list(body.topology.parents[1:])]
    carried = (by_parent[..., :3] @ heads[:, 1:] + by_parent[..., 3:]).squeeze(-1)
    below_root = [joint - 1 for joint, parent in enumerate(body.topology.parents) if parent > 0]
    torch.testing.assert_close(carried[:, below_root], joints[:, 1:][:, below_root], rtol=0, atol=1e-5)


def test_mean_person_stands_facing_the_camera(body):
    pose, shape = body.mean_pose_R33[None], body.mean_shape_S[None]
    vertices, joints = body(pose, shape, torch.zeros(1, 52))
    by_name = dict(zip(body.topology.joint_names, joints[0], strict=True))
    assert by_name["head"][1] < by_name["root"][1] < by_name["foot.L"][1]  # y points down
    assert by_name["wrist.L"][0] > 0.2 > -0.2 > by_name["wrist.R"][0]  # facing us, its left is on our right
    assert by_name["toe1-1.L"][2] < by_name["foot.L"][2]  # toes towards the camera
    assert 1.4 < float(vertices[0, :, 1].max() - vertices[0, :, 1].min()) < 1.9


def test_children_are_small_and_values_beyond_the_anchors_clamped(body):
    shape = body.mean_shape_S.repeat(4, 1)
    shape[:, 1] = torch.tensor([0.0, 1 / 3, ADULT_AGE, 1.0])
    heights = [float(v[:, 2].max() - v[:, 2].min()) for v in body.rest(shape, torch.zeros(4, 52))]
    assert heights[0] < heights[1] < heights[3] < heights[2]
    wild = torch.tensor([[2.0, -3, 5, -1, 1.5, 9]])
    tame = torch.tensor([[1.0, -1 / 3, 1, 0, 1, 1]])
    torch.testing.assert_close(body.rest(wild, torch.zeros(1, 52)), body.rest(tame, torch.zeros(1, 52)))


def test_gradients_are_finite_and_right(body):
    part = body.with_vertices(range(0, 13718, 500))
    params = [p.requires_grad_() for p in people(6)]
    weights = torch.randn(6, len(part.base_vertices), 3, generator=torch.Generator().manual_seed(0))

    def loss(*params: torch.Tensor) -> torch.Tensor:
        return (part(*params).vertices_PV3 * weights).sum()

    gradients = torch.autograd.grad(loss(*params), params)
    assert all(g.isfinite().all() and g.any() for g in gradients)
    inside = torch.tensor([[0.4, 0.5, 0.3, 0.7, 0.6, 0.45]]).repeat(6, 1).requires_grad_()
    gradient = torch.autograd.grad(loss(params[0], inside, params[2]), inside)[0]
    for column in range(6):
        step = torch.zeros(6, 6)
        step[:, column] = 5e-3
        with torch.no_grad():
            difference = loss(params[0], inside + step, params[2]) - loss(params[0], inside - step, params[2])
        assert float(gradient[:, column].sum()) == pytest.approx(float(difference) / 1e-2, rel=0.05, abs=0.05)


def test_gradient_of_shape_is_finite_on_the_anchors(body):
    shape = body.mean_shape_S[None].clone().requires_grad_()
    body.rest(shape, torch.zeros(1, 52)).square().sum().backward()
    assert shape.grad.isfinite().all()
    assert (shape.grad != 0).all()


def test_nobody(body):
    pose = torch.zeros(0, 104, 3, 3, requires_grad=True)
    vertices, joints = body(pose, torch.zeros(0, 6), torch.zeros(0, 52))
    assert vertices.shape == (0, 13718, 3)
    assert joints.shape == (0, 104, 3)
    (vertices.sum() + joints.sum()).backward()


def test_people_do_not_see_each_other(body):
    params = people(5)
    together = body(*params).vertices_PV3
    alone = torch.cat([body(*(p[i : i + 1] for p in params)).vertices_PV3 for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)


def test_autocast_does_not_touch_metres(body):
    params = people(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = body(*params).vertices_PV3
    torch.testing.assert_close(output, body(*params).vertices_PV3, rtol=0, atol=0)


def test_place_puts_the_head_exactly_there(body):
    translation = torch.tensor([[0.1, -0.2, 3.0], [5.0, 1.0, 40.0]])
    output = body(*people(2))
    placed = place(output, translation, body.center_joint)
    assert torch.equal(placed.joints_PJ3[:, body.center_joint], translation)
    shift = placed.vertices_PV3 - output.vertices_PV3
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), rtol=0, atol=1e-5)


def test_nearest_rotation_is_special_procrustes():
    generator = torch.Generator().manual_seed(0)
    rotations = roma.rotvec_to_rotmat(torch.randn(50, 3, generator=generator))
    axes = roma.rotvec_to_rotmat(torch.randn(50, 3, generator=generator))
    stretch = torch.tensor([3.0, 1.0, -0.3])  # a reflection that a polar decomposition would follow
    matrices = rotations @ axes @ torch.diag_embed(stretch.expand(50, 3)) @ axes.mT
    start = rotations @ roma.rotvec_to_rotmat(torch.rand(50, 3, generator=generator) - 0.5)
    torch.testing.assert_close(nearest_rotation(matrices, start, steps=8), rotations, rtol=0, atol=2e-6)


def test_bad_parameters_are_named(body):
    pose, shape, expression = people(2)
    with pytest.raises(ValueError, match=r"shape of body 'anny' must be \(2, 6\).*got \(2, 10\)"):
        body(pose, torch.zeros(2, 10), expression)
    with pytest.raises(ValueError, match="expression of body"):
        body(pose, shape, expression[:1])


def test_bad_assets_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="bake"):
        Anny(tmp_path / "none.safetensors")
    save_file({"int8_blocks": torch.zeros(1)}, tmp_path / "past.safetensors", {"body": "anny", "facts": "{}"})
    with pytest.raises(ValueError, match="was baked for an older version"):
        Anny(tmp_path / "past.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(ASSET.read_bytes()[:1000])
    with pytest.raises(ValueError, match="no readable safetensors"):
        Anny(tmp_path / "cut.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not the body 'anny'"):
        Anny(tmp_path / "other.safetensors")


@pytest.mark.slow
def test_asset_is_small_and_loads_at_once():
    assert ASSET.stat().st_size <= 14_000_000
    seconds = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other on a busy machine burn time that is not ours
    try:
        for _ in range(5):
            start = time.process_time()  # of this process alone
            Anny()
            seconds.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert min(seconds) < 0.5


@pytest.mark.gpu
def test_gpu_equals_cpu_and_is_quick(body):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    params = people(100)
    on_gpu = Anny().cuda()
    params_gpu = [p.cuda() for p in params]
    torch.testing.assert_close(
        on_gpu(*params_gpu).vertices_PV3.cpu(), body(*params).vertices_PV3, rtol=0, atol=1e-5
    )
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        on_gpu(*params_gpu)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    assert min(times) < 5e-3


def test_what_follows_from_the_shape_is_computed_once_for_several_poses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = Anny()
    few = body.with_vertices([0, 7])
    shape_PS, expression_PE = torch.rand(2, body.shape_count), torch.zeros(2, body.expression_count)
    poses = [rot6d_to_rotmat(torch.randn(2, body.rotation_count, 6)) for _ in range(2)]
    searches = []

    def counted(*arguments: torch.Tensor) -> torch.Tensor:
        searches.append(arguments)
        return nearest_rotation(*arguments)

    monkeypatch.setattr(anny, "nearest_rotation", counted)
    wanted = [body(pose_PR33, shape_PS, expression_PE) for pose_PR33 in poses]  # with gradients: each time
    assert len(searches) == 2
    with torch.no_grad():
        for pose_PR33, one in zip(poses, wanted, strict=True):
            assert torch.equal(
                body(pose_PR33, shape_PS.clone(), expression_PE).vertices_PV3, one.vertices_PV3
            )
            assert torch.equal(few(pose_PR33, shape_PS, expression_PE).joints_PJ3, one.joints_PJ3)
        assert len(searches) == 3
        shape_PS += 0.1
        changed = body(poses[0], shape_PS, expression_PE)
        assert len(searches) == 4
        assert (changed.vertices_PV3 - wanted[0].vertices_PV3).abs().max() > 0.001
        copy.deepcopy(body)(poses[0], shape_PS, expression_PE)
        assert len(searches) == 5
