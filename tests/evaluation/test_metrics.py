from __future__ import annotations

import math

import pytest
import roma
import torch

from multihmr.evaluation import metrics


def points(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed))


def test_mpjpe_ignores_where_the_person_stands_and_nothing_else() -> None:
    true = points(5, 22)
    pred = true + torch.tensor([1.0, 2.0, 3.0])
    pred[:, 7, 0] += 0.022  # one of 22 joints is 22 mm off: 1 mm on average
    torch.testing.assert_close(metrics.mpjpe(pred, true, root=0), torch.ones(5), atol=2e-3, rtol=0)


def test_mpjpe_centres_on_the_midpoint_of_several_roots() -> None:
    true = torch.zeros(1, 3, 3)
    pred = torch.tensor([[[0.1, 0, 0], [-0.1, 0, 0], [0, 0, 0]]])
    torch.testing.assert_close(metrics.mpjpe(pred, true, root=[0, 1]), torch.tensor([200 / 3]))
    torch.testing.assert_close(metrics.mpjpe(pred, true, root=0), torch.tensor([100.0]))


@pytest.mark.parametrize("people", [(), (1,), (2,), (3,), (2, 3)])
@pytest.mark.parametrize("joints", [3, 4, 22])
def test_procrustes_is_blind_to_similarity_transforms(people: tuple[int, ...], joints: int) -> None:
    true = points(*people, joints)
    R = roma.random_rotmat(people, generator=torch.Generator().manual_seed(1))
    pred = 0.37 * true @ R.mT + points(*people, seed=2)[..., None, :]
    error = metrics.pa_mpjpe(pred, true)
    assert error.shape == people
    assert error.max() < 0.01
    assert metrics.mpjpe(pred, true, root=0).min() > 100


@pytest.mark.parametrize("people", [2, 3])
def test_each_person_is_aligned_alone(people: int) -> None:
    pred, true = points(people, 14), points(people, 14, seed=1)
    alone = torch.stack([metrics.pa_mpjpe(pred[i], true[i]) for i in range(people)])
    torch.testing.assert_close(metrics.pa_mpjpe(pred, true), alone)


def test_procrustes_beats_small_changes_of_itself() -> None:
    pred, true = points(14), points(14, seed=1)
    aligned = metrics.align_similarity(pred, true)
    best = (aligned - true).square().sum()
    turn = roma.rotvec_to_rotmat(torch.tensor([0.01, 0, 0]))
    middle = true.mean(0)
    for changed in (
        aligned + 0.01,
        (aligned - middle) * 1.01 + middle,
        (aligned - middle) @ turn.mT + middle,
    ):
        assert (changed - true).square().sum() > best


def test_procrustes_does_not_mirror() -> None:
    true = points(14)
    assert metrics.pa_mpjpe(true * torch.tensor([-1.0, 1, 1]), true) > 100


def test_procrustes_of_coinciding_points_is_finite() -> None:
    true = points(2, 14)
    spread = metrics.MM * (true - true.mean(1, keepdim=True)).norm(dim=-1).mean(-1)
    torch.testing.assert_close(metrics.pa_mpjpe(torch.ones_like(true), true), spread)


def test_pve_uses_the_given_roots() -> None:
    true = points(2, 50)
    shift = torch.tensor([[0.5, 0, 0], [0, 0, 0]])
    error = metrics.pve(true + 0.5, true, torch.full((2, 3), 0.5) + shift, torch.zeros(2, 3))
    torch.testing.assert_close(error, torch.tensor([500.0, 0.0]), atol=1e-3, rtol=0)


def test_hands_are_aligned_one_by_one() -> None:
    true = points(2, 30)
    masks = torch.zeros(2, 30, dtype=torch.bool)
    masks[0, :10] = masks[1, 10:20] = True
    pred = true.clone()
    pred[:, :10] += 1.0  # each hand is right by itself; what is no hand does not count
    pred[:, 10:20] *= 2.0
    pred[:, 20:] = 0.0
    assert metrics.hand_pa_pve(pred, true, masks).max() < 0.01
    assert metrics.pa_pve(pred, true).min() > 100


def test_position_error_is_absolute_and_relative() -> None:
    pred, true = torch.tensor([[0.0, 0, 4.4]]), torch.tensor([[0.0, 0, 4.0]])
    torch.testing.assert_close(metrics.position_error(pred, true), torch.tensor([400.0]))
    torch.testing.assert_close(metrics.relative_position_error(pred, true), torch.tensor([10.0]))


def test_detection_figures_are_not_rounded() -> None:
    assert metrics.precision(2, 1) == 2 / 3
    assert metrics.recall(2, 5) == 2 / 7
    assert metrics.f1(2, 1, 5) == pytest.approx(2 * (2 / 3) * (2 / 7) / (2 / 3 + 2 / 7), abs=1e-12)
    assert metrics.f1(0, 1, 1) == 0
    assert all(math.isnan(x) for x in (metrics.precision(0, 0), metrics.recall(0, 0), metrics.f1(0, 0, 0)))


def test_nobody_gives_no_numbers() -> None:
    nobody = torch.zeros(0, 22, 3)
    assert metrics.mpjpe(nobody, nobody, root=0).shape == (0,)
    assert metrics.pa_mpjpe(nobody, nobody).shape == (0,)


def test_unequal_people_are_refused() -> None:
    with pytest.raises(ValueError, match="match the people first"):
        metrics.pa_mpjpe(points(2, 22), points(3, 22))
