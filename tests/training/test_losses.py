import dataclasses

import pytest
import torch
from toys import ToyBody, tiny_network

from multihmr.geometry import default_intrinsics
from multihmr.networks.joint_heatmaps import JointReading, patch_middles
from multihmr.training.collate import Batch
from multihmr.training.losses import LossWeights, MultiHMRLoss, focal_errors, reading_errors
from multihmr.training.targets import assign_cells, make_targets


def batch_of(*translations, image_index=None, images=2, **changes) -> Batch:
    """Toy people with their heads there, in pictures of 64 pixels under 60 degrees."""
    count = len(translations)
    batch = Batch(
        images_BHW3=torch.zeros(images, 64, 64, 3, dtype=torch.uint8),
        K_B33=default_intrinsics(64, 64).expand(images, 3, 3),
        image_index_P=torch.tensor(image_index or [0] * count, dtype=torch.long),
        pose_PR33=torch.eye(3).expand(count, 3, 3, 3),
        shape_PS=torch.full((count, 2), 0.5),
        expression_PE=torch.zeros(count, 1),
        translation_P3=torch.tensor(translations).reshape(-1, 3),
        anchor_P=torch.zeros(count, dtype=torch.long),
        points_2d_PM2=torch.zeros(count, 0, 2),
        points_3d_PM3=torch.zeros(count, 0, 3),
        keypoint_sets=(),
        names=tuple(f"picture {i}" for i in range(images)),
    )
    return dataclasses.replace(batch, **changes)


def perfect(targets):
    """What a network would predict that knows the truth."""
    pred = tiny_network()(torch.zeros(2, 3, 64, 64), targets.K_B33, centers=targets.centers)
    same = {
        f.name: getattr(targets, f.name)
        for f in dataclasses.fields(targets)
        if hasattr(pred, f.name) and f.name != "centers"
    }
    logits = torch.where(targets.heatmap_Bhw == 1, 30.0, -30.0)
    return dataclasses.replace(pred, **same, logits_Bhw=logits, reading=None)


def test_every_term_is_zero_for_a_perfect_prediction():
    targets = make_targets(batch_of([0.1, 0.2, 4.0], [-0.8, 0.3, 6.0]), ToyBody(), 16)
    terms = MultiHMRLoss(ToyBody(), 64)(perfect(targets), targets)
    assert set(terms) >= {"detection", "pose", "expression", "depth", "fov"}
    assert all(term.item() == pytest.approx(0, abs=1e-4) for term in terms.values())


def test_shape_can_learn_from_joints_in_the_rest_pose_instead_of_the_posed_mesh():
    true = make_targets(batch_of([0.1, 0.2, 4.0], [-0.8, 0.3, 6.0]), ToyBody(), 16)
    model = tiny_network().train()
    by_mesh = MultiHMRLoss(ToyBody(), 64)
    by_rest = MultiHMRLoss(ToyBody(), 64, weights=LossWeights(rest_joints=40.0))
    assert "rest_joints" not in by_mesh(perfect(true), true)
    assert by_rest(perfect(true), true)["rest_joints"].item() == pytest.approx(0, abs=1e-4)
    taller = dataclasses.replace(perfect(true), shape_PS=true.shape_PS + torch.tensor([0.1, 0.0]))
    rest = [body.joints_PJ3 for body in (ToyBody()(*parts) for parts in rest_people(true, taller))]
    pelvis = ToyBody().pelvis_joint
    moved = (rest[1] - rest[1][:, [pelvis]] - rest[0] + rest[0][:, [pelvis]]).abs().sum(-1)
    expected = 40 * (moved * by_rest.joint_weights_J).mean()
    assert expected > 0.1
    assert by_rest(taller, true)["rest_joints"].item() == pytest.approx(expected.item(), rel=1e-4)

    for shape_from_mesh in (True, False):
        model.shape_from_mesh = shape_from_mesh
        pred = model(torch.rand(2, 3, 64, 64), true.K_B33, centers=true.centers)
        terms = by_rest(dataclasses.replace(pred, reading=None), true)
        posed = sum(terms[name] for name in ("vertices", "joints", "reprojection"))
        (gradient,) = torch.autograd.grad(posed, [pred.shape_PS], retain_graph=True, allow_unused=True)
        assert (gradient is not None and bool(gradient.any())) == shape_from_mesh
        assert torch.autograd.grad(terms["rest_joints"], [pred.shape_PS])[0].any()


def rest_people(true, pred):
    """Parameters of both in the rest pose."""
    rest = torch.eye(3).expand(true.pose_PR33.shape)
    return [(rest, people.shape_PS, torch.zeros_like(people.expression_PE)) for people in (true, pred)]


def test_unknown_shapes_have_no_loss_in_the_rest_pose():
    batch = batch_of([0.1, 0.2, 4.0], shape_PS=torch.full((1, 2), float("nan")))
    true = make_targets(batch, ToyBody(), 16)
    pred = perfect(true)
    assert MultiHMRLoss(ToyBody(), 64, weights=LossWeights(rest_joints=40.0))(pred, true)["rest_joints"] == 0


def test_nobody_in_the_batch_gives_finite_losses_and_gradients():
    model = tiny_network().train()
    targets = make_targets(batch_of(), ToyBody(), 16)
    terms = MultiHMRLoss(ToyBody(), 64, (0, 1, 2))(
        model(torch.rand(2, 3, 64, 64), targets.K_B33, centers=targets.centers), targets
    )
    torch.stack(list(terms.values())).sum().backward()
    assert all(term.isfinite() for term in terms.values())
    assert terms["pose"] == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_location_and_depth_belong_to_the_same_joint():
    """The first release aimed its depth at the pelvis and its location at the head."""
    targets = make_targets(batch_of([0.1, 0.2, 4.0]), ToyBody(), 16)
    torch.testing.assert_close(targets.joints_PJ3[0, ToyBody.center_joint], torch.tensor([0.1, 0.2, 4.0]))
    torch.testing.assert_close(targets.depth_code_P.exp(), torch.tensor([4.0]))


def test_two_heads_in_one_cell_both_keep_a_cell():
    head_P2 = torch.tensor([[1.4, 1.5], [1.6, 1.5], [1.5, 1.5]])
    cells = assign_cells(head_P2, torch.tensor([0, 0, 1]), (4, 4))
    assert cells[0].tolist() == [1, 1]
    assert cells[1].tolist() == [2, 1]
    assert cells[2].tolist() == [1, 1]


def test_expression_is_learned():
    batch = batch_of([0.1, 0.2, 4.0])
    targets = make_targets(batch, ToyBody(), 16)
    pred = dataclasses.replace(perfect(targets), expression_PE=torch.tensor([[0.7]]))
    assert MultiHMRLoss(ToyBody(), 64)(pred, targets)["expression"] > 0


def test_detection_loss_rewards_the_right_peak():
    heatmap = torch.zeros(1, 4, 4)
    heatmap[0, 1, 2] = 1
    right, wrong = torch.full((1, 4, 4), -4.0), torch.full((1, 4, 4), -4.0)
    right[0, 1, 2] = wrong[0, 3, 0] = 4.0
    assert focal_errors(right, heatmap).sum() < 0.1 * focal_errors(wrong, heatmap).sum()


def perfect_reading(targets, joints=(0, 1, 2), cells=4):
    """Every patch says what is true of the one person of the picture."""
    middles_hw2 = patch_middles(cells, cells, torch.device("cpu"))
    places_J2 = targets.joints_2d_PJ2[0, joints] / 64
    at = (places_J2 * cells).long()
    logits = torch.full((1, cells, cells, len(joints)), -30.0)
    logits[0, at[:, 1], at[:, 0], torch.arange(len(joints))] = 30.0
    behind_J = targets.joints_PJ3[0, joints, 2] - targets.translation_P3[0, 2]
    head_2 = places_J2[2]
    return JointReading(
        logits_BhwJ=logits,
        owner_BhwJ2=(head_2 - middles_hw2)[None, :, :, None].expand(1, cells, cells, len(joints), 2),
        depth_BhwJ=behind_J.expand(1, cells, cells, len(joints)),
        places_PJ2=(places_J2 - head_2)[None],
    )


def test_reading_the_truth_off_the_patches_costs_nothing():
    targets = make_targets(batch_of([0.1, -0.6, 4.0], images=1), ToyBody(), 16)
    reading = perfect_reading(targets)
    errors = reading_errors(reading, targets, [0, 1, 2], 64)
    assert all(error.abs().max().item() == pytest.approx(0, abs=1e-5) for error in errors.values())
    moved = dataclasses.replace(reading, places_PJ2=reading.places_PJ2 + 0.1)
    wrong = reading_errors(moved, targets, [0, 1, 2], 64)["joint_place"]
    torch.testing.assert_close(wrong, torch.full((1, 3), 0.2))


def test_joints_outside_the_window_are_not_asked_for():
    targets = make_targets(batch_of([0.1, 3.4, 4.0], images=1), ToyBody(), 16)
    counts = MultiHMRLoss(ToyBody(), 64, (0, 1, 2)).counts(targets)
    assert targets.left_out == 1
    assert counts["joint_owner"] == counts["joint_place"] == counts["joint_heatmap"] == 0
