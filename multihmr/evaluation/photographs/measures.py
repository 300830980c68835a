"""2D measures on photographs: who was found, average precision, and how near joints are.

A detection is right if its keypoints or its box fit a labelled person: OKS of 0.3 or IoU of 0.5. Average
precision is COCO's, over keypoints alone. Distances of joints are in units of the torso.

Sources: Lin et al., "Microsoft COCO" (ECCV 2014) and its keypoint evaluation for OKS, sigmas and AP; Yang and
Ramanan, "Articulated human detection with flexible mixtures of parts" (PAMI 2013) for PCK.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..report import Counts
from .reader import LEAST_POINTS, POINTS, LabelledPerson

SIGMAS = np.array(
    [.26, .25, .25, .35, .35, .79, .79, .72, .72, .62, .62, 1.07, 1.07, .87, .87, .89, .89]
) / 10  # fmt: skip
RIGHT_OKS, RIGHT_IOU = 0.3, 0.5
AP_THRESHOLDS = np.arange(0.5, 0.96, 0.05)
AP_DETECTIONS = 20  # most of a picture, as in COCO
# When a detection counts as one of a person who need not be found: share of it inside a crowd, IoU with a
# person, and the share of a person inside it (a whole body predicted where a part is labelled).
IN_CROWD, ON_IGNORED, AROUND_IGNORED = 0.5, 0.2, 0.6
PCK_DISTANCES = (0.1, 0.2)  # in torsos
# Where the torso is not labelled, and the least that a labelled one counts, in longer sides of the box.
TORSO_OF_BOX, LEAST_TORSO_OF_BOX = 0.45, 0.2

_SIDES = ("left", "right")
JOINT_GROUPS = {
    "head": POINTS[:5],
    "torso": tuple(f"{side}_{joint}" for joint in ("shoulder", "hip") for side in _SIDES),
    "arms": tuple(f"{side}_{joint}" for joint in ("elbow", "wrist") for side in _SIDES),
    "legs": tuple(f"{side}_{joint}" for joint in ("knee", "ankle") for side in _SIDES),
    "all": POINTS,
}
_DIAGONALS = tuple(
    (POINTS.index(f"{a}_shoulder"), POINTS.index(f"{b}_hip")) for a, b in (_SIDES, _SIDES[::-1])
)


@dataclass(frozen=True, eq=False)
class Detections:
    """P people predicted in a photograph.

    Attributes:
        xy: (P, 17, 2) COCO's points in pixels.
        boxes: (P, 4) x, y, width, height in pixels.
        scores: (P,)
    """

    xy: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def surest(self, count: int | None = None) -> Detections:
        """The people with the highest scores, in that order: `count` of them, or all."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        return Detections(self.xy[order], self.boxes[order], self.scores[order])


@dataclass(frozen=True, eq=False)
class PhotographMatch:
    """Who was found in a photograph.

    Attributes:
        pairs: M pairs of (detection, person), indices of either.
        false: detections of no person, indices.
        distances: (M, 17) of the points of each pair in torsos, NaN where not labelled.
        counts: people found, missed, detected falsely and ignored.
    """

    pairs: list[tuple[int, int]]
    false: list[int]
    distances: np.ndarray
    counts: Counts


def match_photograph(detections: Detections, people: Sequence[LabelledPerson]) -> PhotographMatch:
    """Match detections with people one to one, the surest detection first.

    Each takes, of the people left for whom it is right, the one with the highest OKS (or half the IoU, if
    that is more). A detection of a person who need not be found is not false.
    """
    detections = detections.surest()
    fit = oks(detections, people)
    overlap = box_iou(detections.boxes, _boxes(people))
    right = (np.nan_to_num(fit) >= RIGHT_OKS) | (overlap >= RIGHT_IOU)
    strength = np.fmax(fit, 0.5 * overlap)
    free = np.array([not person.ignored for person in people], bool)
    excused = on_ignored(detections, people)
    pairs, false = [], []
    for row in range(len(detections)):
        candidates = np.flatnonzero(free & right[row])
        if len(candidates):
            best = int(candidates[strength[row, candidates].argmax()])
            free[best] = False
            pairs.append((row, best))
        elif not excused[row]:
            false.append(row)
    distances = [_distances(detections.xy[d], people[p]) for d, p in pairs]
    ignored = sum(bool(person.ignored) for person in people)
    counts = Counts(len(pairs), int(free.sum()), len(false), ignored)
    return PhotographMatch(pairs, false, np.reshape(distances, (-1, len(POINTS))), counts)


def oks(detections: Detections, people: Sequence[LabelledPerson]) -> np.ndarray:
    """(P, T) object keypoint similarity; NaN for people with fewer than three labelled points.

    Example:
        >>> from multihmr.evaluation.photographs.reader import LabelledPerson
        >>> xy = np.arange(34.0).reshape(17, 2)
        >>> person = LabelledPerson(xy, box=np.array([0, 0, 33, 33]), area=900.0)
        >>> detection = Detections(xy[None] + [[[3, 4]]], np.zeros((1, 4)), np.ones(1))
        >>> oks(detection, [person]).round(3).tolist()  # 5 pixels off
        [[0.483]]
    """
    result = np.full((len(detections), len(people)), np.nan)
    for column, person in enumerate(people):
        known = np.isfinite(person.xy).all(axis=1)
        if known.sum() < LEAST_POINTS:
            continue
        squared = ((detections.xy[:, known] - person.xy[known]) ** 2).sum(axis=2)
        similarity = np.exp(-squared / (2 * max(person.area, 1.0) * (2 * SIGMAS[known]) ** 2))
        result[:, column] = np.nan_to_num(similarity).mean(axis=1)  # a point that is not predicted counts 0
    return result


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(P, T) intersection over union of boxes (P, 4) and (T, 4): x, y, width, height."""
    common = _intersection(boxes, others)
    union = _areas(boxes)[:, None] + others[:, 2] * others[:, 3] - common
    return np.asarray(common / np.maximum(union, 1e-9))


def on_ignored(detections: Detections, people: Sequence[LabelledPerson]) -> np.ndarray:
    """(P,) whether a detection is of a person who need not be found."""
    ignored = [person for person in people if person.ignored]
    boxes = _boxes(ignored)
    crowd = np.array([person.crowd for person in ignored], bool)
    common = _intersection(detections.boxes, boxes)
    inside = common / _areas(detections.boxes)[:, None]
    around = common / _areas(boxes)
    near = box_iou(detections.boxes, boxes) >= ON_IGNORED
    on = np.where(crowd, inside >= IN_CROWD, near | (around >= AROUND_IGNORED))
    on |= np.nan_to_num(oks(detections, ignored)) >= RIGHT_OKS
    return np.asarray(on.any(axis=1))


def average_precision(
    photographs: Sequence[tuple[Detections, Sequence[LabelledPerson]]],
) -> dict[str, float]:
    """COCO's keypoint AP over all scores: "ap50" at an OKS of 0.5, "ap" the mean from 0.5 to 0.95.

    Args:
        photographs: detections, down to low scores, and people of each. The 20 surest of each count.

    Returns:
        The two, 0 to 1; nan without people.
    """
    tables = []
    people_count = 0
    for found, people in photographs:
        detections = found.surest(AP_DETECTIONS)
        counted = [person for person in people if not person.ignored]
        people_count += len(counted)
        tables.append((detections.scores, oks(detections, counted), on_ignored(detections, people)))
    if not people_count:
        return {"ap50": float("nan"), "ap": float("nan")}
    by_threshold = [_precision_at(tables, threshold, people_count) for threshold in AP_THRESHOLDS]
    return {"ap50": by_threshold[0], "ap": float(np.mean(by_threshold))}


def _precision_at(
    tables: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], threshold: float, people: int
) -> float:
    """Mean of the interpolated precision at 101 recalls; tables: scores, OKS and excuse of detections."""
    rows: list[tuple[float, bool]] = []
    for scores, similarity, excused in tables:
        free = np.ones(similarity.shape[1], bool)
        for score, fits, excuse in zip(scores, similarity, excused, strict=True):
            candidates = np.flatnonzero(free & (fits >= threshold))
            if len(candidates):
                free[candidates[fits[candidates].argmax()]] = False
                rows.append((float(score), True))
            elif not excuse:
                rows.append((float(score), False))
    if not rows:
        return 0.0
    scores, right = (np.array(column) for column in zip(*rows, strict=True))
    found = right[np.argsort(-scores, kind="stable")].cumsum()
    precision = found / np.arange(1, len(found) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(found / people, np.linspace(0, 1, 101), side="left")
    return float(np.append(precision, 0.0)[places].mean())


def joint_shares(distances: np.ndarray) -> dict[str, dict[str, float]]:
    """PCK of each group of joints: shares of the labelled joints within 0.1 and 0.2 torsos, and their number.

    Args:
        distances: (M, 17) in torsos of the people found, NaN where not labelled.
    """
    shares = {}
    for group, names in JOINT_GROUPS.items():
        values = distances[:, [POINTS.index(name) for name in names]]
        values = values[~np.isnan(values)]
        within = {f"pck_{limit}": float(np.mean(values <= limit)) for limit in PCK_DISTANCES if len(values)}
        shares[group] = {f"pck_{limit}": float("nan") for limit in PCK_DISTANCES} | within
        shares[group]["joints"] = len(values)
    return shares


def torso_length(person: LabelledPerson) -> float:
    """Longer diagonal from a shoulder to the other hip, in pixels; from the box if none is labelled."""
    lengths = [float(np.linalg.norm(person.xy[a] - person.xy[b])) for a, b in _DIAGONALS]
    known = [length for length in lengths if np.isfinite(length)]
    side = float(person.box[2:].max())
    return max(*known, LEAST_TORSO_OF_BOX * side) if known else TORSO_OF_BOX * side


def _distances(xy: np.ndarray, person: LabelledPerson) -> np.ndarray:
    """(17,) distances of predicted from labelled points in torsos; infinite where nothing is predicted."""
    distances = np.linalg.norm(xy - person.xy, axis=1) / max(torso_length(person), 1e-9)
    unlabelled = np.isnan(person.xy).any(axis=1)
    return np.asarray(np.where(unlabelled, np.nan, np.nan_to_num(distances, nan=np.inf, posinf=np.inf)))


def _boxes(people: Sequence[LabelledPerson]) -> np.ndarray:
    return np.reshape([person.box for person in people], (-1, 4))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[:, 2] * boxes[:, 3], 1e-9)


def _intersection(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(P, T) area that boxes (P, 4) and (T, 4) share."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=2))
