"""Who is who: predicted against true people of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IOU_THRESHOLD = 0.1


@dataclass(frozen=True)
class Match:
    """Pairs and what is left over, as indices into the predicted and the true people of one image.

    pairs (M, 2) of (predicted, true), by increasing cost; false (F,) predicted people who are nobody;
    missed (L,) true people whom nobody found. Both in increasing order.
    """

    pairs: np.ndarray
    false: np.ndarray
    missed: np.ndarray


def match(pred_xy: np.ndarray, true_xy: np.ndarray, *, iou_threshold: float = IOU_THRESHOLD) -> Match:
    """Pairs predicted (P, J, 2) with true (T, J, 2) people by their 2D joints [pixels].

    The cheapest pair comes first, where the cost is the L2 norm of all joint differences and a pair needs
    boxes (around the joints) with an intersection over union of at least `iou_threshold`. Each is used once.
    Source: Patel et al., "AGORA", CVPR 2021, without the quirk of its code that a rejected pair shortens the
    search. Predictions that are not finite match nobody.
    """
    if pred_xy.ndim != 3 or true_xy.ndim != 3 or pred_xy.shape[1:] != true_xy.shape[1:]:
        raise ValueError(
            f"pred_xy and true_xy must be (P, J, 2) and (T, J, 2), got {pred_xy.shape} and {true_xy.shape}"
        )
    cost = pair_costs(pred_xy, true_xy, iou_threshold)
    pairs: list[tuple[int, int]] = []
    while cost.size and np.isfinite(cost.min()):
        i, j = np.unravel_index(cost.argmin(), cost.shape)
        pairs.append((int(i), int(j)))
        cost[i, :] = np.inf
        cost[:, j] = np.inf
    paired = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    false = np.setdiff1d(np.arange(len(pred_xy)), paired[:, 0])
    missed = np.setdiff1d(np.arange(len(true_xy)), paired[:, 1])
    return Match(paired, false, missed)


def pair_costs(pred_xy: np.ndarray, true_xy: np.ndarray, iou_threshold: float) -> np.ndarray:
    """(P, T) L2 norm of the stacked joint differences [pixels]; inf where the boxes overlap too little."""
    difference = pred_xy[:, None].astype(np.float64) - true_xy[None]
    cost = np.sqrt(np.square(difference).sum(axis=(2, 3)))
    iou = box_iou(joint_boxes(pred_xy), joint_boxes(true_xy))
    return np.where((iou >= iou_threshold) & np.isfinite(cost), cost, np.inf)


def joint_boxes(xy: np.ndarray) -> np.ndarray:
    """(N, J, 2) points -> (N, 4) boxes (left, top, right, bottom) around them."""
    return np.concatenate([xy.min(axis=1), xy.max(axis=1)], axis=-1)


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(P, 4), (T, 4) boxes (left, top, right, bottom) -> (P, T) intersection over union, 0 if empty."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=-1)
    area_a = np.prod(a[:, 2:] - a[:, :2], axis=-1)
    area_b = np.prod(b[:, 2:] - b[:, :2], axis=-1)
    union = area_a[:, None] + area_b[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
