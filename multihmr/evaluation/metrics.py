"""Errors between predicted and true people: pure functions, float32 tensors, metres in, millimetres out.

Every function takes any number of leading dimensions (people) and gives one number per person, so that the
caller decides over whom to average. Points are always (..., points, 3): no shape is guessed from the data.
That guess made the widely copied PA-MPJPE wrong for two or three people (TRACE, PMPJPE_BUG_REPORT.md).

A true point that is NaN is not known and takes no part. A prediction that is NaN where the truth is known is
counted as infinitely far away, so that omitting difficult points cannot improve a figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import roma
import torch
from torch import Tensor

MM = 1000.0
PCK_THRESHOLD = 150.0  # [mm], about half a head: Mehta et al., "Monocular 3D human pose estimation", 3DV 2017
AUC_THRESHOLDS = tuple(range(0, 151, 5))  # [mm], of the same benchmark's mpii_compute_3d_pck
PCDR_THRESHOLD = 0.2  # [m]
PCDR_FINE = 0.3  # wrong pairs that a missed person counts as


# --- errors of points ------------------------------------------------------------------------------------


def point_errors(pred: Tensor, true: Tensor) -> Tensor:
    """(..., M) distance [mm] between (..., M, 3) points [m], unaligned; NaN where the true one is unknown."""
    _check_points(pred, true)
    errors = (MM * (pred - true).norm(dim=-1)).nan_to_num(nan=math.inf)
    return torch.where(known(true), errors, math.nan)


def point_error(pred: Tensor, true: Tensor) -> Tensor:
    """(...,) mean distance [mm] between the known of (..., M, 3) points [m], with no alignment at all.

    On joints or vertices in the camera frame this is their camera-space error.
    """
    return _mean_of(point_errors(pred, true), known(true))


def mpjpe(pred: Tensor, true: Tensor, root: int | Sequence[int]) -> Tensor:
    """(...,) mean per-joint position error [mm] of (..., J, 3) joints [m], each side centred on its own root.

    `root` is the index of the root joint, or several indices whose midpoint it is (both hips).
    Source: Ionescu et al., "Human3.6M", PAMI 2014, protocol 1.
    """
    return point_error(centred(pred, root), centred(true, root))


def pa_mpjpe(pred: Tensor, true: Tensor) -> Tensor:
    """(...,) mean distance [mm] of (..., J, 3) joints [m] after the best similarity of each person."""
    return point_error(align_similarity(pred, true), true)


def n_mpjpe(pred: Tensor, true: Tensor, root: int | Sequence[int]) -> Tensor:
    """(...,) MPJPE [mm] of (..., J, 3) joints [m] after each centred prediction's best scale, no rotation.

    Source: Rhodin et al., "Learning monocular 3D human pose estimation from multi-view images", CVPR 2018.
    """
    pred, true = centred(pred, root), centred(true, root)
    return point_error(align_scale(pred, true), true)


def pve(pred: Tensor, true: Tensor, pred_root: Tensor, true_root: Tensor) -> Tensor:
    """(...,) error [mm] of (..., V, 3) vertices [m], each side centred on its own (..., 3) root."""
    return point_error(pred - pred_root[..., None, :], true - true_root[..., None, :])


def pa_pve(pred: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """(...,) mean distance [mm] of (..., V, 3) vertices [m] after the best similarity of each person.

    With a `mask` (V,) of booleans only those vertices are aligned and compared: PA-PVE of a hand or a face,
    as for EHF (Choutas et al., "Monocular expressive body regression", ECCV 2020).
    """
    if mask is not None:
        pred, true = pred[..., mask, :], true[..., mask, :]
    return pa_mpjpe(pred, true)


def part_pve(pred: Tensor, true: Tensor, mask: Tensor, pred_root: Tensor, true_root: Tensor) -> Tensor:
    """(...,) PVE [mm] of the vertices in `mask` (V,) alone, centred on that part's own (..., 3) root.

    The root of a hand is its wrist, of the face the neck (Lin et al., "One-stage 3D whole-body mesh
    recovery", CVPR 2023, for EHF and UBody).
    """
    return pve(pred[..., mask, :], true[..., mask, :], pred_root, true_root)


def hand_pve(
    pred: Tensor, true: Tensor, hand_masks: Tensor, pred_wrists: Tensor, true_wrists: Tensor
) -> Tensor:
    """(...,) PVE [mm] of each hand centred on its own wrist, averaged over the hands whose truth is known.

    pred, true (..., V, 3) [m]; hand_masks (hands, V) of booleans; wrists (..., hands, 3) [m].
    """
    hands = list(enumerate(hand_masks))
    errors = [part_pve(pred, true, m, pred_wrists[..., i, :], true_wrists[..., i, :]) for i, m in hands]
    return _mean_of_known(errors, true)


def hand_pa_pve(pred: Tensor, true: Tensor, hand_masks: Tensor) -> Tensor:
    """(...,) PA-PVE [mm] of each hand by itself, averaged over the hands whose truth is known.

    pred, true (..., V, 3) [m]; hand_masks (hands, V) of booleans.
    """
    return _mean_of_known([pa_pve(pred, true, mask) for mask in hand_masks], true)


# --- positions in the camera frame -----------------------------------------------------------------------


def position_error(pred: Tensor, true: Tensor) -> Tensor:
    """(...,) distance [mm] between (..., 3) places [m] in the camera frame, unaligned.

    Of roots this is the MRPE (Moon et al., "Camera distance-aware top-down approach", ICCV 2019).
    """
    return MM * (pred - true).norm(dim=-1)


def relative_position_error(pred: Tensor, true: Tensor) -> Tensor:
    """(...,) distance between (..., 3) places in percent of the true one's distance from the camera."""
    return 100 * (pred - true).norm(dim=-1) / true.norm(dim=-1)


def depth_error(pred: Tensor, true: Tensor) -> Tensor:
    """(...,) difference [mm] of (..., 3) places [m] along the optical axis."""
    return MM * (pred[..., 2] - true[..., 2]).abs()


# --- motion ----------------------------------------------------------------------------------------------


def acceleration_error(pred: Tensor, true: Tensor, fps: float | None = None) -> Tensor:
    """(..., F - 2) mean over joints of the difference between predicted and true acceleration.

    Accelerations are second differences over three frames in a row, of positions that are neither aligned
    nor centred; centre both sides first for the error of the pose alone. A joint that is NaN on either side
    in one of the three frames takes no part, as there is no acceleration across a gap; NaN if none is left.
    Source: Kanazawa et al., "Learning 3D human dynamics from video", CVPR 2019 [mm per frame squared]; in
    m/s^2 by Shin et al., "WHAM", CVPR 2024, at 30 frames a second.

    Args:
        pred: (..., F, J, 3) joints of one person in F frames in a row [m].
        true: the same of the true person.
        fps: frames a second.

    Returns:
        mm per frame squared, or m/s^2 where `fps` is given.
    """
    _check_points(pred, true)
    _check_frames(pred, 3)
    errors = (_differences(pred, 2) - _differences(true, 2)).norm(dim=-1)
    factor = MM if fps is None else fps**2
    return factor * _mean_of(errors, ~errors.isnan())


def jitter(points: Tensor, fps: float) -> Tensor:
    """(..., F - 3) mean over joints of the jerk [m/s^3], a measure of jitter that needs no ground truth.

    Third differences over four frames in a row. Compare with the jitter of the true motion, which is not 0.
    Source: Yi et al., "TransPose", SIGGRAPH 2021, where it is printed in 10^2 m/s^3 (WHAM: in 10 m/s^3).

    Args:
        points: (..., F, J, 3) joints of one person in F frames in a row [m]; NaN takes no part.
        fps: frames a second.
    """
    _check_frames(points, 4)
    jerks = _differences(points, 3).norm(dim=-1) * fps**3
    return _mean_of(jerks, ~jerks.isnan())


def foot_skate(feet: Tensor, stands: Tensor) -> Tensor:
    """(...) mean displacement [mm] from frame to frame of feet in contact with the ground (foot sliding).

    A displacement counts where the true foot stood still meanwhile; NaN where none did.
    Source: "foot sliding" of Shin et al., "WHAM", CVPR 2024, who count the vertices of the feet.

    Args:
        feet: (..., F, J, 3) points of the feet in F frames in a row [m]; NaN takes no part.
        stands: (..., F, J) bool, whether the true foot stands still from the frame before on.
    """
    _check_frames(feet, 2)
    if stands.shape != feet.shape[:-1]:
        raise ValueError(
            f"stands must be {tuple(feet.shape[:-1])}, one for each foot, got {tuple(stands.shape)}"
        )
    steps = _differences(feet, 1).norm(dim=-1)
    counts = stands[..., 1:, :] & ~steps.isnan()
    total = torch.where(counts, steps, torch.zeros_like(steps)).sum((-2, -1))
    return MM * total / counts.sum((-2, -1))


def _differences(points: Tensor, order: int) -> Tensor:
    """(..., F, J, 3) -> (..., F - order, J, 3) differences of that order along the frames."""
    return torch.diff(points, n=order, dim=-3)


def _check_frames(points: Tensor, least: int) -> None:
    if points.ndim < 3 or points.shape[-1] != 3 or points.shape[-3] < least:
        raise ValueError(
            f"points must be (..., {least} or more frames, joints, 3), got {tuple(points.shape)}"
        )


def binned(errors: Tensor, values: Tensor, edges: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Mean error (B,) and number of people (B,) in the B bins [edges[b], edges[b + 1]) of `values` (N,).

    For depth errors by age or by distance. People whose value or error is NaN are in no bin; the mean of an
    empty bin is NaN.
    """
    bounds = torch.as_tensor(edges, dtype=values.dtype, device=values.device)
    inside = (values >= bounds[:-1, None]) & (values < bounds[1:, None]) & errors.isfinite()
    return _mean_of(errors.expand(inside.shape), inside), inside.sum(dim=-1)


def depth_relations(depth: Tensor, layer: Tensor, threshold: float = PCDR_THRESHOLD) -> Tensor:
    """(N, N) of 1 right, 0 wrong, -1 not compared: whether pairs of one image have the right depth order.

    depth (N,) predicted [m]; layer (N,) true depth layers, smaller is nearer, negative is unknown. People of
    one layer must differ by less than `threshold` [m], those of two by more, in that direction; each pair is
    compared once, above the diagonal.
    Source: Sun et al., "Putting people in their place", CVPR 2022 (Relative Human).
    """
    difference = depth[None, :] - depth[:, None]
    order = (layer[None, :] - layer[:, None]).sign()
    right = torch.where(order == 0, difference.abs() < threshold, order * difference > threshold)
    compared = (layer[None, :] >= 0) & (layer[:, None] >= 0)
    return torch.where(compared.triu(diagonal=1), right.long(), -1)


def pcdr(right: int, wrong: int, missed: int = 0) -> float:
    """Percentage of correct depth relations as a share, where a missed person counts as 0.3 wrong pairs.

    Of an age group: the pairs with at least one such person, and those missed of that age.
    """
    total = right + wrong + PCDR_FINE * missed
    return right / total if total else math.nan


# --- shares ----------------------------------------------------------------------------------------------


def pck(errors: Tensor, threshold: float = PCK_THRESHOLD) -> Tensor:
    """(...,) share of (..., M) errors [mm] that are less than `threshold` [mm]; NaN is left out.

    Give inf for the joints of people who were missed.
    """
    return _mean_of((errors < threshold).to(errors.dtype), ~errors.isnan())


def auc(errors: Tensor, thresholds: Sequence[float] = AUC_THRESHOLDS) -> Tensor:
    """(...,) mean PCK over the thresholds [mm]: 0, 5, ... 150 as for MPI-INF-3DHP and MuPoTs-3D."""
    return torch.stack([pck(errors, threshold) for threshold in thresholds]).mean(dim=0)


def precision(found: int, false: int) -> float:
    """Share of the predicted people who exist, unrounded; nan without predictions."""
    return found / (found + false) if found + false else math.nan


def recall(found: int, missed: int) -> float:
    """Share of the true people who were found, unrounded; nan without true people."""
    return found / (found + missed) if found + missed else math.nan


def f1(found: int, false: int, missed: int) -> float:
    """Harmonic mean of precision and recall, unrounded; nan without true people and predictions."""
    total = 2 * found + false + missed
    return 2 * found / total if total else math.nan


def normalised(error: float, f1_score: float) -> float:
    """NMVE or NMJE [mm]: the MVE or MPJPE [mm] of those found, divided by the unrounded F1; nan if that is 0.

    AGORA's own code rounds F1 to two decimals first, which can move the figure by half a percent and more.
    """
    return error / f1_score if f1_score > 0 else math.nan


def whole_body(body: float, left_hand: float, right_hand: float, face: float) -> float:
    """AGORA's FB error [mm] from those of the parts: body + (left hand + right hand + face) / 3."""
    return body + (left_hand + right_hand + face) / 3


# --- alignment -------------------------------------------------------------------------------------------


def known(points: Tensor) -> Tensor:
    """(...,) bool, whether all coordinates of (..., 3) points are known."""
    return ~points.isnan().any(dim=-1)


def centred(points: Tensor, root: int | Sequence[int]) -> Tensor:
    """(..., M, 3) points minus the one at index `root`, or minus the midpoint of several."""
    roots = [root] if isinstance(root, int) else list(root)
    return points - points[..., roots, :].mean(dim=-2, keepdim=True)


def align_scale(pred: Tensor, true: Tensor) -> Tensor:
    """(..., M, 3) points times the factor of the least square error; both sides are centred already."""
    _check_points(pred, true)
    there = known(true)[..., None]
    a, b = torch.where(there, pred, 0), torch.where(there, true, 0)
    size = a.square().sum(dim=(-2, -1))
    scale = torch.where(size > 0, (a * b).sum(dim=(-2, -1)) / size, 0)
    return scale[..., None, None] * pred


def align_similarity(pred: Tensor, true: Tensor) -> Tensor:
    """(..., M, 3) points moved onto `true` by the rotation, scale and shift of the least square error.

    Source: Umeyama, "Least-squares estimation of transformation parameters", PAMI 1991; reflections excluded.
    """
    _check_points(pred, true)
    there = known(true)[..., None]
    usable = (pred.isfinite() | ~there).all(dim=-1).all(dim=-1)[..., None, None]
    count = there.sum(dim=-2, keepdim=True).clamp(min=1)
    used = there & usable
    pred_mean = torch.where(used, pred, 0).sum(dim=-2, keepdim=True) / count
    true_mean = torch.where(used, true, 0).sum(dim=-2, keepdim=True) / count
    # Unknown points become the mean, where they have no influence.
    x = torch.where(used, pred - pred_mean, 0)
    y = torch.where(used, true - true_mean, 0)
    R, scale = roma.rigid_vectors_registration(x, y, compute_scaling=True)
    # Points that all coincide have no scale (0 / 0); the mean is their best position.
    scale = torch.where(x.square().sum(dim=(-2, -1)) > 0, scale, 0)
    moved = scale[..., None, None] * ((pred - pred_mean) @ R.transpose(-1, -2)) + true_mean
    return torch.where(usable, moved, math.nan)


def with_true_bones(pred: Tensor, true: Tensor, parents: Sequence[int]) -> Tensor:
    """(..., J, 3) predicted joints [m], each bone with its own direction and the true one's length.

    `parents` J, -1 for the root, which stays; a bone without length stays without. The protocol of MuPoTs-3D
    (Mehta et al., "Single-shot multi-person 3D pose estimation", 3DV 2018).
    """
    _check_points(pred, true)
    places: dict[int, Tensor] = {}
    while len(places) < len(parents):
        ready = [j for j, p in enumerate(parents) if j not in places and (p < 0 or p in places)]
        if not ready:
            raise ValueError(f"parents must lead to a root of -1, got {tuple(parents)}")
        for joint in ready:
            parent = parents[joint]
            places[joint] = pred[..., joint, :]
            if parent >= 0:
                bone = pred[..., joint, :] - pred[..., parent, :]
                length = bone.norm(dim=-1, keepdim=True)
                wanted = (true[..., joint, :] - true[..., parent, :]).norm(dim=-1, keepdim=True)
                factor = torch.where(length > 0, wanted / length, 0)
                places[joint] = places[parent] + factor * bone
    return torch.stack([places[joint] for joint in range(len(parents))], dim=-2)


def _mean_of_known(errors: Sequence[Tensor], true: Tensor) -> Tensor:
    """(...,) mean over the values that are not nan; errors are nan exactly where the truth is unknown."""
    if not errors:  # a body without hands
        return true.new_full(true.shape[:-2], math.nan)
    stacked = torch.stack(tuple(errors), dim=-1)
    return _mean_of(stacked, ~stacked.isnan())


def _mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """(...,) mean over the last axis of the chosen values; nan where none is."""
    return torch.where(chosen, values, 0).sum(dim=-1) / chosen.sum(dim=-1)


def _check_points(pred: Tensor, true: Tensor) -> None:
    if pred.shape != true.shape or pred.ndim < 2 or pred.shape[-1] != 3:
        raise ValueError(
            f"pred and true must both be (..., points, 3), got {tuple(pred.shape)} and {tuple(true.shape)}; "
            "match the people first"
        )
