"""What data sets do not know is filled in, and left out of the losses."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from toys import ToyBody, tiny_network

from multihmr.bodies.anny import Anny
from multihmr.bodies.topology import KeypointSet
from multihmr.data.sample import ANCHORS
from multihmr.geometry import default_intrinsics, project
from multihmr.training.collate import Batch, collate
from multihmr.training.losses import KeypointRegressor, MultiHMRLoss
from multihmr.training.targets import make_targets
from multihmr.training.validity_masks import fill_missing, valid_mask

FACE = KeypointSet(("nose", "tail"), np.array([[8, 9], [0, 1]]), np.full((2, 2), 0.5, np.float32))
NAN = math.nan


def body_with_face() -> ToyBody:
    body = ToyBody()
    body.topology = dataclasses.replace(
        body.topology, keypoint_sets={"face": FACE}, rest_pelvis=np.arange(12).reshape(4, 3) / 10
    )
    return body


@pytest.fixture
def batch(toy_sample) -> Batch:
    return collate([toy_sample(0), toy_sample(1)])


def only_points(batch: Batch, body: ToyBody) -> Batch:
    """Of everybody no more than two points in the picture, as COCO has it."""
    true = make_targets(batch, body, 16)
    points_PM3 = KeypointRegressor(body.topology)([("face", 2)], true.vertices_PV3, true.joints_PJ3)
    unknown = {
        name: torch.full_like(getattr(batch, name), NAN)
        for name in ("K_B33", "pose_PR33", "shape_PS", "expression_PE", "translation_P3")
    }
    return dataclasses.replace(
        batch,
        points_2d_PM2=project(points_PM3, true.K_B33[batch.image_index_P]),
        points_3d_PM3=torch.full_like(points_PM3, NAN),
        keypoint_sets=(("face", 2),),
        **unknown,
    )


def terms_of(batch: Batch, body: ToyBody, model=None) -> dict[str, torch.Tensor]:
    model = model or tiny_network(read_joints=(0, 1, 2)).train()
    true = make_targets(batch, body, 16)
    pred = model(batch.images_B3HW(), batch.K_B33, centers=true.centers)
    return MultiHMRLoss(body, 64, (0, 1, 2))(pred, true)


@pytest.mark.slow
def test_what_is_known_does_not_hang_on_what_is_not():
    """Anny with unknown fingers, jaw and face: what counts as known is the same whatever these do."""
    generator = torch.Generator().manual_seed(0)
    body = Anny().with_vertices(np.arange(0, 13718, 23))
    names, people = body.topology.pose_names, 3
    turns = torch.randn(people, len(names), 3, 3, generator=generator) * 0.2
    hidden = [i for i, name in enumerate(names) if name == "wrist.L" or name.startswith("finger3")]
    true = {
        "pose_PR33": torch.linalg.matrix_exp(turns - turns.mT),
        "shape_PS": torch.rand(people, 6, generator=generator),
        "expression_PE": torch.rand(people, 52, generator=generator),
    }
    empty = {"points_2d_PM2": torch.zeros(people, 0, 2), "points_3d_PM3": torch.zeros(people, 0, 3)}
    whole = Batch(
        images_BHW3=torch.zeros(1, 64, 64, 3),
        K_B33=default_intrinsics(64, 64)[None],
        image_index_P=torch.zeros(people, dtype=torch.long),
        translation_P3=torch.tensor([[0, 0, 4.0]]).expand(people, 3),
        anchor_P=torch.zeros(people, dtype=torch.long),
        keypoint_sets=(),
        names=("a",),
        **true,
        **empty,
    )
    pose_PR33 = true["pose_PR33"].clone()
    pose_PR33[:, hidden] = NAN
    partly = dataclasses.replace(whole, pose_PR33=pose_PR33, expression_PE=true["expression_PE"] * NAN)
    known, filled = valid_mask(partly, body), fill_missing(partly, body)
    outputs = [body(b.pose_PR33, b.shape_PS, b.expression_PE) for b in (whole, filled)]
    for points, mask in zip(
        ("joints_PJ3", "vertices_PV3"), (known.joints_PJ, known.vertices_PV), strict=True
    ):
        error_PN = (getattr(outputs[0], points) - getattr(outputs[1], points)).norm(dim=-1)
        assert error_PN[mask].max() < 0.005
        assert error_PN.max() > 0.02
        assert 0.5 < mask.float().mean() < 0.98


def test_without_a_shape_no_place_in_the_body_is_known(batch):
    batch.shape_PS[1, 0] = NAN
    known = make_targets(batch, ToyBody(), 16).known
    assert known.joints_PJ.all(1).tolist() == known.vertices_PV.all(1).tolist() == [True, False, True, True]
    assert known.pose_PR.all()
    assert known.place_P.all()


@pytest.mark.parametrize("anchor", ANCHORS)
def test_people_stand_alike_by_any_anchor(batch, anchor):
    body = body_with_face()
    true = make_targets(batch, body, 16)
    places = {"center": true.translation_P3, "pelvis": true.joints_PJ3[:, 0]}
    numbers = torch.cat([torch.ones(4, 1), batch.shape_PS, batch.expression_PE], dim=1)
    rest = torch.tensor(body.topology.rest_pelvis, dtype=torch.float32)
    places["transl"] = places["pelvis"] - numbers @ rest
    index = torch.full((4,), ANCHORS.index(anchor))
    moved = dataclasses.replace(batch, anchor_P=index, translation_P3=places[anchor])
    torch.testing.assert_close(make_targets(moved, body, 16).vertices_PV3, true.vertices_PV3)


def test_smpl_translations_need_a_body_that_knows_them(batch):
    batch.anchor_P[2] = ANCHORS.index("transl")
    with pytest.raises(ValueError, match=r"sample '000001' are placed by SMPL's transl, which body 'toy'"):
        make_targets(batch, ToyBody(), 16)


def test_of_points_in_a_picture_only_heads_and_points_are_learned(batch):
    body = body_with_face()
    terms = terms_of(only_points(batch, body), body)
    assert {name for name, term in terms.items() if term > 0} == {"detection", "keypoints_2d"}


def test_without_a_camera_the_networks_own_learns_from_points(batch):
    body, model = body_with_face(), tiny_network().train()
    terms_of(only_points(batch, body), body, model)["keypoints_2d"].backward()
    for part in (model.to_fov, model.head.to_pose, model.head.to_depth):
        assert all(p.grad.abs().max() > 0 for p in part.parameters() if p.ndim > 1)


def test_heads_are_where_points_of_the_face_are(batch):
    body = body_with_face()
    exact, guessed = (make_targets(b, body, 16) for b in (batch, only_points(batch, body)))
    torch.testing.assert_close(guessed.centers.col_P, exact.centers.col_P)
    torch.testing.assert_close(guessed.centers.row_P, exact.centers.row_P)


def test_a_head_that_nobody_marked_may_be_anywhere(batch):
    """The person is no target, and the network is not punished for finding them."""
    body = body_with_face()
    coco = only_points(batch, body)
    coco.points_2d_PM2[0, 0] = NAN
    true = make_targets(coco, body, 16)
    assert true.left_out == 1
    assert true.heads_B.tolist() == [False, True]
    counted = MultiHMRLoss(body, 64).counted(true)["detection"]
    assert counted.flatten(1).sum(1).tolist() == [1, 16]


def test_people_behind_the_camera_are_left_out_and_counted(batch):
    batch.translation_P3[3, 2] = -4
    true = make_targets(batch, ToyBody(), 16)
    assert (true.left_out, len(true.centers)) == (1, 3)


def test_joints_are_not_denied_where_somebody_has_unknown_ones(batch):
    batch.pose_PR33[0, 1] = NAN  # the spine, on which the head hangs
    true = make_targets(batch, ToyBody(), 16)
    assert true.everybody_BJ.tolist() == [[True, True, False], [True, True, True]]
    counted = MultiHMRLoss(ToyBody(), 64, (0, 1, 2)).counted(true)["joint_heatmap"]
    assert counted[..., 0, 0].tolist() == true.everybody_BJ.tolist()


def test_points_in_space_count_relative_to_each_other(batch):
    body = body_with_face()
    true = make_targets(batch, body, 16)
    points_PM3 = KeypointRegressor(body.topology)([("face", 2)], true.vertices_PV3, true.joints_PJ3)
    loss = MultiHMRLoss(body, 64, (0, 1, 2))
    given = dataclasses.replace(
        batch,
        points_2d_PM2=points_PM3[..., :2] * NAN,
        points_3d_PM3=points_PM3 + torch.tensor([1.0, 2.0, 3.0]),
        keypoint_sets=(("face", 2),),
    )
    true = make_targets(given, body, 16)
    pred = tiny_network()(batch.images_B3HW(), batch.K_B33, centers=true.centers)
    same = dataclasses.replace(pred, vertices_PV3=true.vertices_PV3, joints_PJ3=true.joints_PJ3)
    assert loss(same, true)["keypoints_3d"].item() == pytest.approx(0, abs=1e-4)
    assert loss(pred, true)["keypoints_3d"] > 0.1


def test_different_keypoint_sets_stand_side_by_side(toy_sample):
    samples = [
        dataclasses.replace(toy_sample(i), keypoints_2d=np.full((2, count, 2), i + 1.0), keypoint_set=name)
        for i, (name, count) in enumerate((("toy", 3), ("face", 2)))
    ]
    batch = collate([*samples, toy_sample(2, 0)])
    assert batch.keypoint_sets == (("face", 2), ("toy", 3))
    seen = batch.points_2d_PM2[..., 0].nan_to_num(0)
    assert seen.tolist() == [[0, 0, 1, 1, 1]] * 2 + [[2, 2, 0, 0, 0]] * 2
    assert len(make_targets(batch, body_with_face(), 16).keypoint_sets) == 2


def test_a_keypoint_set_that_the_body_does_not_give_is_named(batch):
    foreign = dataclasses.replace(batch, keypoint_sets=(("body25", 0),))
    with pytest.raises(ValueError, match=r"set 'body25', which body 'toy' does not have; it has toy, top"):
        make_targets(foreign, ToyBody(), 16)
