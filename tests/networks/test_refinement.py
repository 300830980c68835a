import torch
from toys import ToyBody

from multihmr.networks.backbones.base import Features
from multihmr.networks.detection import Centers
from multihmr.networks.refinement import CoarseParams, Refinement, in_window


def refinement(seed: int = 0) -> Refinement:
    torch.manual_seed(seed)
    return Refinement([0, 1, 2], ToyBody(), map_widths=(4, 8), grid_width=8).eval()


def speaking(look: Refinement) -> Refinement:
    """One that no longer says 0."""
    torch.nn.init.normal_(look.to_change[2].weight, std=0.1)
    return look


def guess(count: int) -> CoarseParams:
    return CoarseParams(
        torch.eye(3).repeat(count, 3, 1, 1),
        torch.full((count, 2), 0.5),
        torch.zeros(count, 1),
        torch.zeros(count),
        torch.zeros(count, 2),
    )


def cells(count: int) -> Centers:
    """One person a picture."""
    zeros = torch.zeros(count, dtype=torch.long)
    return Centers(torch.arange(count), zeros, zeros, torch.ones(count))


def features(count: int) -> Features:
    numbers = torch.Generator().manual_seed(1)
    grid, fine = (torch.randn(count, c, n, n, generator=numbers) for c, n in ((8, 8), (4, 16)))
    return Features(grid, torch.zeros(count, 8), fine)


def look(model: Refinement, seen: Features, count: int = 1) -> CoarseParams:
    said = guess(count)
    joints_PJ3 = model.joints_of(said, torch.tensor([0.0, 0.0, 4.0]).expand(count, 3))
    places_PJ2 = torch.tensor([[0.75, 0.8], [0.8, 0.7], [0.7, 0.75]]).expand(count, 3, 2)
    return model(said, joints_PJ3, places_PJ2, seen, cells(count))


def test_a_new_refinement_changes_nothing():
    for before, after in zip(guess(2), look(refinement(), features(2), 2), strict=True):
        torch.testing.assert_close(before, after)


def test_what_lies_at_joints_is_seen_and_what_lies_elsewhere_is_not():
    model, seen = speaking(refinement()), features(1)
    first = look(model, seen)
    seen.fine_BDhw[..., :4, :8] += 1  # neither at a joint nor around one
    torch.testing.assert_close(look(model, seen).pose_PR33, first.pose_PR33)
    seen.fine_BDhw[..., 11:13, 11:13] += 1
    assert (look(model, seen).pose_PR33 - first.pose_PR33).abs().max() > 1e-4


def test_answers_stay_rotations():
    pose_PR33 = look(speaking(refinement()), features(2), 2).pose_PR33
    torch.testing.assert_close(pose_PR33 @ pose_PR33.mT, torch.eye(3).expand_as(pose_PR33))


def test_nobody_gives_finite_gradients():
    model = refinement()
    sum(said.sum() for said in look(model, features(0), 0)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_joints_of_a_guess_hang_on_its_head():
    at_P3 = torch.tensor([[0.3, -0.2, 5.0]])
    joints_PJ3 = refinement().joints_of(guess(1), at_P3)
    torch.testing.assert_close(joints_PJ3[:, ToyBody.center_joint], at_P3)


def test_joints_behind_the_camera_have_a_place():
    K_P33 = torch.tensor([[[64.0, 0, 32], [0, 64, 32], [0, 0, 1]]])
    places = in_window(torch.tensor([[[0.0, 0.0, -1.0], [1.0, 0.0, 2.0]]]), K_P33, 64)
    torch.testing.assert_close(places, torch.tensor([[[0.5, 0.5], [1.0, 0.5]]]))
