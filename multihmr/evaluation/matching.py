"""Matching of predicted with true people of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IOU_THRESHOLD = 0.1
RELEASED_IOU = 0.05
MUPOTS_PIXELS = 40.0


@dataclass(frozen=True)
class Match:
    """Pairs and unmatched people, as indices into the predicted and true people of one image.

    Attributes:
        pairs: (M, 2) of (predicted, true), by increasing cost.
        false: (F,) predicted people who match no true one, in increasing order.
        missed: (L,) true people who were not found, in increasing order.
    """

    pairs: np.ndarray
    false: np.ndarray
    missed: np.ndarray


def match(pred_xy: np.ndarray, true_xy: np.ndarray, *, iou_threshold: float = IOU_THRESHOLD) -> Match:
    """Match people greedily by their 2D joints, as AGORA does.

    The cheapest pair comes first, where the cost is the L2 norm of all joint differences and a pair needs
    boxes (around the joints) that overlap. Each person is used once.
    Source: Patel et al., "AGORA", CVPR 2021, without the quirk of its code that a rejected pair shortens the
    search.

    Args:
        pred_xy: (P, J, 2) predicted joints [pixels]; people with joints that are not finite match no one.
        true_xy: (T, J, 2) true joints; NaN is unknown and counts neither in cost nor in box.
        iou_threshold: least intersection over union of the boxes of a pair.

    Returns:
        Pairs, false and missed people.

    Raises:
        ValueError: the two have other shapes.
    """
    _check_people(pred_xy, true_xy)
    cost = pair_costs(pred_xy, true_xy, iou_threshold)
    pairs: list[tuple[int, int]] = []
    while cost.size and np.isfinite(cost.min()):
        i, j = np.unravel_index(cost.argmin(), cost.shape)
        pairs.append((int(i), int(j)))
        cost[i, :] = np.inf
        cost[:, j] = np.inf
    return _matched(pairs, len(pred_xy), len(true_xy))


def match_within(pred_xy: np.ndarray, true_xy: np.ndarray, *, pixels: float = MUPOTS_PIXELS) -> Match:
    """Match people by how many joints lie close by, as MuPoTs-3D does.

    One true person after the other takes, of the predictions left, the one with the most joints less than
    `pixels` away in x and in y (the first of equals); none if all have 0.
    Source: Mehta et al., "Single-shot multi-person 3D pose estimation", 3DV 2018, whose 13 joints are
    `[:, 1:14]` of its 17, 40 pixels.

    Args:
        pred_xy: (P, J, 2) predicted joints [pixels].
        true_xy: (T, J, 2) true joints; NaN is never close.
        pixels: distance within which a joint counts.

    Returns:
        Pairs, false and missed people.

    Raises:
        ValueError: the two have other shapes.
    """
    _check_people(pred_xy, true_xy)
    near = (np.abs(pred_xy[:, None].astype(np.float64) - true_xy[None]) < pixels).all(axis=3).sum(axis=2)
    pairs: list[tuple[int, int]] = []
    for true, counts in enumerate(near.T):
        if counts.any():
            pairs.append((int(counts.argmax()), true))
            near[pairs[-1][0]] = 0
    return _matched(pairs, len(pred_xy), len(true_xy))


def match_released(pred_xy: np.ndarray, true_xy: np.ndarray) -> Match:
    """Match (P, J, 2) with (T, J, 2) people as the trainer of 2024 does, to compare with its figures.

    Costs are spectral norms of the joint differences, boxes count whole pixels and need an IoU of 0.05, and
    each pair that has less ends the search one pair earlier, so that people far apart may stay unmatched:
    `match` is what to measure with.
    """
    difference = (pred_xy[:, None].astype(np.float64) - true_xy[None]).reshape(-1, *pred_xy.shape[1:])
    cost = np.linalg.norm(difference, 2, axis=(1, 2)) if len(difference) else np.zeros(0)
    iou = box_iou(joint_boxes(pred_xy), joint_boxes(true_xy), edge=1) if len(cost) else np.zeros((0, 0))
    pairs: list[tuple[int, int]] = []
    rejected = 0
    for rank in np.argsort(cost, kind="stable"):
        if len(pairs) == len(true_xy) or len(pairs) + rejected >= len(pred_xy):
            break
        i, j = divmod(int(rank), len(true_xy))
        if iou[i, j] < RELEASED_IOU:
            rejected += 1
        elif all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return _matched(pairs, len(pred_xy), len(true_xy))


def released_scores(truths: int, missed: int, false: int) -> tuple[float, float, float]:
    """Precision, recall, F1 [%] as that trainer prints them: rounded to whole percents, 0 without a match."""
    found = truths - missed
    if not truths or not found:
        return 0.0, 0.0, 0.0
    shares = (found / (found + false), found / truths, found / (found + (false + missed) / 2))
    precision, recall, f1 = (round(share, 2) * 100 for share in shares)
    return precision, recall, f1


def _matched(pairs: list[tuple[int, int]], pred_count: int, true_count: int) -> Match:
    paired = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    false = np.setdiff1d(np.arange(pred_count), paired[:, 0])
    missed = np.setdiff1d(np.arange(true_count), paired[:, 1])
    return Match(paired, false, missed)


def pair_costs(pred_xy: np.ndarray, true_xy: np.ndarray, iou_threshold: float) -> np.ndarray:
    """(P, T) L2 norm of the stacked joint differences [pixels]; inf where the boxes overlap too little.

    A true person's cost and the two boxes are made of those joints alone that are known of that person.
    """
    cost = np.full((len(pred_xy), len(true_xy)), np.inf)
    for j, true in enumerate(true_xy):
        known = np.isfinite(true).all(axis=1)
        if known.any() and len(pred_xy):
            pred, one = pred_xy[:, known].astype(np.float64), true[None, known]
            costs = np.sqrt(np.square(pred - one).sum(axis=(1, 2)))
            iou = box_iou(joint_boxes(pred), joint_boxes(one))[:, 0]
            cost[:, j] = np.where((iou >= iou_threshold) & np.isfinite(costs), costs, np.inf)
    return cost


def joint_boxes(xy: np.ndarray) -> np.ndarray:
    """(N, J, 2) points -> (N, 4) boxes (left, top, right, bottom) around them."""
    return np.concatenate([xy.min(axis=1), xy.max(axis=1)], axis=-1)


def _check_people(pred_xy: np.ndarray, true_xy: np.ndarray) -> None:
    if pred_xy.ndim != 3 or true_xy.ndim != 3 or pred_xy.shape[1:] != true_xy.shape[1:]:
        raise ValueError(
            f"pred_xy and true_xy must be (P, J, 2) and (T, J, 2), got {pred_xy.shape} and {true_xy.shape}"
        )


def box_iou(a: np.ndarray, b: np.ndarray, edge: float = 0) -> np.ndarray:
    """(P, 4), (T, 4) boxes (left, top, right, bottom) -> (P, T) intersection over union, 0 if empty.

    edge: 1 if right and bottom are the last pixels inside.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.prod(np.clip(high - low + edge, 0, None), axis=-1)
    area_a = np.prod(a[:, 2:] - a[:, :2] + edge, axis=-1)
    area_b = np.prod(b[:, 2:] - b[:, :2] + edge, axis=-1)
    union = area_a[:, None] + area_b[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
