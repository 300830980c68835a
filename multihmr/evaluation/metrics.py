"""Errors between predicted and true people: pure functions, float32 tensors, metres in, millimetres out.

Every function takes any number of leading dimensions (people) and gives one number per person, so that the
caller decides over whom to average. Points are always (..., points, 3): no shape is guessed from the data.
That guess made the widely copied PA-MPJPE wrong for two or three people (TRACE, PMPJPE_BUG_REPORT.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import roma
import torch
from torch import Tensor

MM = 1000.0


def point_error(pred: Tensor, true: Tensor) -> Tensor:
    """(...,) mean distance [mm] between (..., M, 3) points [m], with no alignment at all."""
    _check_points(pred, true)
    return MM * (pred - true).norm(dim=-1).mean(dim=-1)


def mpjpe(pred: Tensor, true: Tensor, root: int | Sequence[int]) -> Tensor:
    """(...,) mean per-joint position error [mm] of (..., J, 3) joints [m], each side centred on its own root.

    `root` is the index of the root joint, or several indices whose midpoint it is (both hips).
    Source: Ionescu et al., "Human3.6M", PAMI 2014, protocol 1.
    """
    roots = [root] if isinstance(root, int) else list(root)
    return pve(pred, true, pred[..., roots, :].mean(dim=-2), true[..., roots, :].mean(dim=-2))


def pa_mpjpe(pred: Tensor, true: Tensor) -> Tensor:
    """(...,) mean distance [mm] of (..., J, 3) joints [m] after the best similarity of each person."""
    return point_error(align_similarity(pred, true), true)


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


def hand_pa_pve(pred: Tensor, true: Tensor, hand_masks: Tensor) -> Tensor:
    """(...,) PA-PVE [mm] of each hand by itself, averaged over the hands.

    pred, true (..., V, 3) [m]; hand_masks (hands, V) of booleans.
    """
    return torch.stack([pa_pve(pred, true, mask) for mask in hand_masks], dim=-1).mean(dim=-1)


def position_error(pred: Tensor, true: Tensor) -> Tensor:
    """(...,) distance [mm] between (..., 3) places [m] in the camera frame, unaligned (MRPE of the head)."""
    return MM * (pred - true).norm(dim=-1)


def relative_position_error(pred: Tensor, true: Tensor) -> Tensor:
    """(...,) distance between (..., 3) places in percent of the true one's distance from the camera."""
    return 100 * (pred - true).norm(dim=-1) / true.norm(dim=-1)


def align_similarity(pred: Tensor, true: Tensor) -> Tensor:
    """(..., M, 3) points moved onto `true` by the rotation, scale and shift of the least square error.

    Source: Umeyama, "Least-squares estimation of transformation parameters", PAMI 1991; reflections excluded.
    """
    _check_points(pred, true)
    true_mean = true.mean(dim=-2, keepdim=True)
    pred = pred - pred.mean(dim=-2, keepdim=True)
    R, scale = roma.rigid_vectors_registration(pred, true - true_mean, compute_scaling=True)
    # Points that all coincide have no scale (0 / 0); the best place for them is the middle.
    scale = torch.where(pred.square().sum(dim=(-2, -1)) > 0, scale, 0)
    return scale[..., None, None] * (pred @ R.transpose(-1, -2)) + true_mean


def precision(found: int, false: int) -> float:
    """Share of the predicted people who exist, unrounded; nan where nobody was predicted."""
    return found / (found + false) if found + false else math.nan


def recall(found: int, missed: int) -> float:
    """Share of the true people who were found, unrounded; nan where nobody was there."""
    return found / (found + missed) if found + missed else math.nan


def f1(found: int, false: int, missed: int) -> float:
    """Harmonic mean of precision and recall, unrounded; nan where nobody was there and nobody predicted."""
    total = 2 * found + false + missed
    return 2 * found / total if total else math.nan


def _check_points(pred: Tensor, true: Tensor) -> None:
    if pred.shape != true.shape or pred.ndim < 2 or pred.shape[-1] != 3:
        raise ValueError(
            f"pred and true must both be (..., points, 3), got {tuple(pred.shape)} and {tuple(true.shape)}; "
            "match the people first"
        )
