from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import roma
import scipy.linalg
import scipy.spatial
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


# --- against independent references, in double precision, to 1e-6 mm ---------------------------------------


def two(*shape: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(*shape, 3)), generator.normal(size=(*shape, 3))


def check(ours: torch.Tensor, reference: Any) -> None:
    np.testing.assert_allclose(ours.numpy(), reference, atol=1e-6, rtol=0)


@pytest.mark.parametrize("people", [1, 2, 3, 5])
@pytest.mark.parametrize("joints", [2, 3, 14])
def test_pa_mpjpe_is_scipys_procrustes(people: int, joints: int) -> None:
    pred, true = two(people, joints)
    reference = []
    for p, t in zip(pred, true, strict=True):
        a, b = p - p.mean(0), t - t.mean(0)
        if np.linalg.det(a.T @ b) < 0 and joints > 3:  # scipy would mirror: turn its weakest axis back
            u, s, vt = np.linalg.svd(a.T @ b)
            rotation, size = u @ np.diag([1, 1, -1]) @ vt, s[0] + s[1] - s[2]
        else:
            rotation, size = scipy.linalg.orthogonal_procrustes(a, b)
        aligned = a @ rotation * size / np.square(a).sum()
        reference.append(1000 * np.linalg.norm(aligned - b, axis=1).mean())
    check(metrics.pa_mpjpe(torch.tensor(pred), torch.tensor(true)), reference)


def test_the_square_error_after_alignment_is_scipys_disparity() -> None:
    pred, true = two(40, 30)
    a = pred - pred.mean(1, keepdims=True)
    b = true - true.mean(1, keepdims=True)
    kept = np.linalg.det(np.swapaxes(a, 1, 2) @ b) > 0  # the others scipy mirrors
    aligned = metrics.align_similarity(torch.tensor(pred[kept]), torch.tensor(true[kept])).numpy()
    ours = np.square(aligned - true[kept]).sum((1, 2)) / np.square(b[kept]).sum((1, 2))
    theirs = [scipy.spatial.procrustes(t, p)[2] for p, t in zip(pred[kept], true[kept], strict=True)]
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_errors_are_those_of_a_naive_loop() -> None:
    pred, true = two(3, 14)
    mpjpe, scaled, vertex = [], [], []
    for p, t in zip(pred.tolist(), true.tolist(), strict=True):
        a = [[x - r for x, r in zip(point, p[2], strict=True)] for point in p]
        b = [[x - r for x, r in zip(point, t[2], strict=True)] for point in t]
        s = sum(math.prod(xy) for i, j in zip(a, b, strict=True) for xy in zip(i, j, strict=True))
        s /= sum(x * x for i in a for x in i)
        mpjpe.append(1000 * sum(map(math.dist, a, b)) / 14)
        scaled.append(1000 * sum(math.dist([s * x for x in i], j) for i, j in zip(a, b, strict=True)) / 14)
        vertex.append(1000 * sum(map(math.dist, p, t)) / 14)
    ours = torch.tensor(pred), torch.tensor(true)
    check(metrics.mpjpe(*ours, root=2), mpjpe)
    check(metrics.pve(*ours, ours[0][:, 2], ours[1][:, 2]), mpjpe)
    check(metrics.n_mpjpe(*ours, root=2), scaled)
    check(metrics.point_error(*ours), vertex)


def test_no_scale_is_better_than_that_of_n_mpjpe() -> None:
    pred, true = map(torch.tensor, two(14))
    best = metrics.align_scale(pred, true)
    for factor in (0.999, 1.001):
        assert (factor * best - true).square().sum() > (best - true).square().sum()


def test_each_part_is_centred_on_its_own_root() -> None:
    pred, true = two(4, 20)
    masks = np.zeros((2, 20), bool)
    masks[0, :5] = masks[1, 5:12] = True
    pred_wrists, true_wrists = pred[:, [15, 16]], true[:, [15, 16]]
    reference = np.zeros((4, 2))
    for i, hand in enumerate((slice(0, 5), slice(5, 12))):
        a, b = pred[:, hand] - pred[:, [15 + i]], true[:, hand] - true[:, [15 + i]]
        reference[:, i] = 1000 * np.sqrt(((a - b) ** 2).sum(-1)).mean(-1)
    given = [torch.tensor(x) for x in (pred, true, masks, pred_wrists, true_wrists)]
    check(metrics.hand_pve(*given), reference.mean(1))
    given[4][0, 1] = math.nan  # the true right wrist is not known: only the left hand is valid
    check(metrics.hand_pve(*given)[:1], reference[:1, 0])
    face = metrics.part_pve(*given[:2], given[2][0], given[3][:, 0], given[4][:, 0])
    check(face, reference[:, 0])


def test_pck_and_auc_are_those_of_a_naive_loop() -> None:
    errors = np.random.default_rng(0).uniform(0, 300, (5, 14))
    errors[0, 0] = 150.0  # exactly on the threshold is outside
    errors[1, :] = math.inf
    share = [sum(e < 150 for e in row) / 14 for row in errors]
    area = [sum(sum(e < t for e in row) / 14 for t in range(0, 151, 5)) / 31 for row in errors]
    check(metrics.pck(torch.tensor(errors)), share)
    check(metrics.auc(torch.tensor(errors)), area)


def test_true_bone_lengths_keep_the_predicted_directions() -> None:
    pred, true = map(torch.tensor, two(3, 5))
    parents = (1, -1, 1, 0, 3)
    mapped = metrics.with_true_bones(pred, true, parents)
    torch.testing.assert_close(mapped[:, 1], pred[:, 1])
    for joint, parent in enumerate(parents):
        if parent >= 0:
            ours, asked, length = (x[:, joint] - x[:, parent] for x in (mapped, pred, true))
            torch.testing.assert_close(ours.norm(dim=-1), length.norm(dim=-1))
            torch.testing.assert_close(torch.cosine_similarity(ours, asked), torch.ones(3).to(ours))
    with pytest.raises(ValueError, match="lead to a root"):
        metrics.with_true_bones(pred, true, (1, 0, 1, 0, 3))


# --- known bugs of others ----------------------------------------------------------------------------------


@pytest.mark.parametrize("people", [2, 3])
@pytest.mark.parametrize("joints", [2, 3, 14])
def test_two_or_three_people_or_joints_are_not_taken_for_coordinates(people: int, joints: int) -> None:
    pred, true = map(torch.tensor, two(people, joints))
    ours = metrics.pa_mpjpe(pred, true)
    alone = [metrics.pa_mpjpe(pred[i : i + 1], true[i : i + 1]).item() for i in range(people)]
    check(ours, alone)


def test_f1_is_not_rounded_before_it_divides() -> None:
    f1 = metrics.f1(found=1009, false=100, missed=91)  # 0.9135...: rounded it would be 0.91
    assert metrics.normalised(100.0, f1) == pytest.approx(100 * (2 * 1009 + 191) / (2 * 1009), abs=1e-9)
    assert metrics.normalised(100.0, f1) != pytest.approx(100 / round(f1, 2), rel=1e-3)
    assert math.isnan(metrics.normalised(math.nan, 0.0))


def test_hands_that_are_far_off_count() -> None:
    true = torch.tensor(two(2, 10)[1])
    pred = true.clone()
    pred[0, 1:] += 5.0  # five metres: left out by code that drops hands worse than 100 mm
    wrists = torch.zeros(2, 1, 3).to(true)
    masks = torch.ones(1, 10, dtype=torch.bool)
    assert metrics.hand_pve(pred, true, masks, wrists, wrists).mean() > 1000
    assert metrics.hand_pa_pve(pred, true, masks)[0] > 100


def test_both_sides_of_a_hand_are_centred() -> None:
    true = torch.tensor(two(1, 6)[0])
    pred = true + 3.0  # the whole person elsewhere is no error of the hand
    masks = torch.ones(1, 6, dtype=torch.bool)
    assert metrics.hand_pve(pred, true, masks, pred[:, :1], true[:, :1]).item() == pytest.approx(0, abs=1e-9)


# --- what is not known -------------------------------------------------------------------------------------


def test_unknown_points_are_left_out_of_everything() -> None:
    pred, true = map(torch.tensor, two(3, 14))
    with_gaps = true.clone()
    with_gaps[:, [4, 9]] = math.nan
    rest = [i for i in range(14) if i not in (4, 9)]
    short = pred[:, rest], true[:, rest]
    for ours in (lambda p, t: metrics.mpjpe(p, t, root=0), metrics.pa_mpjpe, metrics.point_error):
        check(ours(pred, with_gaps), ours(*short))
    check(metrics.n_mpjpe(pred, with_gaps, root=0), metrics.n_mpjpe(*short, root=0))
    check(metrics.pck(metrics.point_errors(pred, with_gaps)), metrics.pck(metrics.point_errors(*short)))
    for ours in (metrics.pa_mpjpe, metrics.point_error):
        assert ours(pred, true * math.nan).isnan().all()
    assert metrics.mpjpe(pred, with_gaps, root=4).isnan().all()  # nothing to centre on


def test_a_prediction_that_is_not_finite_is_no_way_out() -> None:
    pred, true = map(torch.tensor, two(2, 14))
    pred[1, 3] = math.nan
    for error in (metrics.point_error(pred, true), metrics.pa_mpjpe(pred, true)):
        assert error[0].isfinite()
        assert error[1].isinf()
    assert metrics.pck(metrics.point_errors(pred, pred))[0] == 1


# --- where people stand ------------------------------------------------------------------------------------


def test_depth_errors_fall_into_bins() -> None:
    place = torch.tensor([[0.0, 0, 2], [0, 0, 3], [0, 0, 9], [0, 0, 5]])
    errors = metrics.depth_error(place + torch.tensor([5.0, 5, 0.1]), place)
    errors[2] = 400
    means, people = metrics.binned(errors, torch.tensor([0.1, 0.2, 0.7, math.nan]), (0, 0.5, 0.6, 1))
    np.testing.assert_allclose(means, [100, math.nan, 400], rtol=1e-5)
    assert people.tolist() == [2, 0, 1]


def test_depth_relations_of_a_picture() -> None:
    depth = torch.tensor([2.0, 2.1, 2.5, 1.0, 7.0])
    layer = torch.tensor([0, 0, 1, 1, -1])
    relations = metrics.depth_relations(depth, layer)
    assert relations[0].tolist() == [-1, 1, 1, 0, -1]  # as near, behind by 0.5 m, not behind, not asked
    assert relations[2, 3] == 0  # one layer, but 1.5 m apart
    assert (relations >= 0).sum() == 6
    assert metrics.pcdr(right=3, wrong=3) == 0.5
    assert metrics.pcdr(right=3, wrong=0, missed=10) == 0.5
    assert math.isnan(metrics.pcdr(0, 0))


def test_whole_body_is_body_plus_a_third_of_the_parts() -> None:
    assert metrics.whole_body(60, 30, 40, 20) == 90


# --- motion ------------------------------------------------------------------------------------------------


def throw(frames: int, acceleration: float, fps: float, joints: int = 4) -> torch.Tensor:
    """(F, J, 3) joints that fly off in one direction, each at its own place."""
    t = torch.arange(frames, dtype=torch.float64) / fps
    way = 0.5 * acceleration * t**2 + 1.3 * t
    places = torch.randn(joints, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return places + way[:, None, None] * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)


@pytest.mark.parametrize("fps", [25.0, 30.0, 60.0])
def test_acceleration_error_of_two_throws(fps: float) -> None:
    true, pred = throw(20, 9.81, fps), throw(20, 4.81, fps)
    error = metrics.acceleration_error(pred, true, fps)
    assert error.shape == (18,)
    np.testing.assert_allclose(error, 5.0, rtol=1e-6)
    np.testing.assert_allclose(metrics.acceleration_error(pred, true), 5000 / fps**2, rtol=1e-6)
    # a constant shift and a constant speed are no acceleration
    moved = true + torch.arange(20, dtype=torch.float64)[:, None, None] * 0.1 + 3
    np.testing.assert_allclose(metrics.acceleration_error(moved, true, fps), 0, atol=1e-6)


def test_no_acceleration_across_a_gap() -> None:
    true = throw(20, 9.81, 30)
    pred = true.clone()
    pred[8] = torch.nan  # missed in one frame
    pred[3, 0] = torch.nan  # one joint
    true[15, :, 0] = torch.nan
    error = metrics.acceleration_error(pred, true, 30)
    assert error.isnan().nonzero().flatten().tolist() == [6, 7, 8, 13, 14, 15]
    assert float(error.nan_to_num().max()) < 1e-6


def test_jitter_is_the_mean_jerk() -> None:
    fps, size = 30.0, 0.01
    still = torch.zeros(12, 5, 3, dtype=torch.float64)
    trembling = still.clone()
    trembling[::2, :, 1] = size  # up and down: third differences of +-4 times the size
    np.testing.assert_allclose(metrics.jitter(trembling, fps), 4 * size * fps**3)
    np.testing.assert_allclose(metrics.jitter(throw(12, 9.81, fps), fps), 0, atol=1e-6)
    t = torch.arange(12, dtype=torch.float64) / fps
    cubic = (t**3)[:, None, None] * torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64)
    np.testing.assert_allclose(metrics.jitter(cubic.expand(12, 3, 3), fps), 12.0, rtol=1e-6)


def test_motion_of_several_people_and_too_few_frames() -> None:
    true = torch.stack([throw(10, 9.81, 30), throw(10, 3.0, 30)])
    assert metrics.acceleration_error(true, true).shape == (2, 8)
    assert metrics.jitter(true, 30).shape == (2, 7)
    with pytest.raises(ValueError, match="3 or more frames"):
        metrics.acceleration_error(true[:, :2], true[:, :2])
    with pytest.raises(ValueError, match="4 or more frames"):
        metrics.jitter(true[:, :3], 30)
    with pytest.raises(ValueError, match="match the people first"):
        metrics.acceleration_error(true, true[:1])
