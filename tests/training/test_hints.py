import pytest
import torch
from toys import ToyBody

from multihmr.geometry import default_intrinsics
from multihmr.training.hints import Hints
from multihmr.training.targets import Batch, make_targets

NAMES = {"hint_heatmap", "hint_owner", "hint_depth", "hint_joints"}


def targets_of(*translations):
    count = len(translations)
    batch = Batch(
        images_BHW3=torch.zeros(1, 64, 64, 3, dtype=torch.uint8),
        K_B33=default_intrinsics(64, 64)[None],
        image_index_P=torch.zeros(count, dtype=torch.long),
        pose_PR33=torch.eye(3).expand(count, 3, 3, 3),
        shape_PS=torch.full((count, 2), 0.5),
        expression_PE=torch.zeros(count, 1),
        translation_P3=torch.tensor(translations).reshape(-1, 3),
    )
    return make_targets(batch, ToyBody(), 16)


def test_patches_can_learn_where_joints_are_and_whose():
    torch.manual_seed(0)
    targets = targets_of([0.1, -0.6, 4.0], [-1.2, -0.5, 5.0])
    hints = Hints(32, range(3))
    features = torch.randn(1, 32, 4, 4)
    optimizer = torch.optim.Adam(hints.parameters(), lr=1e-2)
    first = hints(features, targets, 16)
    assert set(first) == NAMES
    for _ in range(400):
        optimizer.zero_grad()
        terms = hints(features, targets, 16)
        sum(terms.values()).backward()
        optimizer.step()
    # joints that share a cell share the answer, so that not every term can reach 0
    assert terms["hint_joints"] < 0.05 * first["hint_joints"]
    assert terms["hint_heatmap"] < 0.1 * first["hint_heatmap"]


def test_the_owner_is_the_way_from_a_joint_to_the_head_in_window_sides():
    targets = targets_of([0.0, 0.0, 4.0])
    hints = Hints(8, [0])  # the pelvis alone
    with torch.no_grad():
        for layer in (hints.at_joints[2], hints.at_heads[2]):
            layer.weight.zero_()
            layer.bias.zero_()
        hints.at_joints[2].bias[1:] = torch.tensor(
            [*(targets.joints_2d_PJ2[0, 2] - targets.joints_2d_PJ2[0, 0]) / 64, 0.0]
        )
    terms = hints(torch.zeros(1, 8, 4, 4), targets, 16)
    assert terms["hint_owner"].item() == pytest.approx(0, abs=1e-4)
    assert terms["hint_depth"].item() == pytest.approx(0, abs=1e-4)


def test_nobody_and_joints_outside_the_window_give_finite_gradients():
    for targets in (targets_of(), targets_of([0.0, 5.0, 4.0])):
        hints = Hints(8, range(3))
        features = torch.randn(1, 8, 4, 4, requires_grad=True)
        sum(hints(features, targets, 16).values()).backward()
        assert features.grad.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in hints.parameters())
