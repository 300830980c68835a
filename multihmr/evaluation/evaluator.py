"""Evaluator: matches predicted with true people of one image and measures every error of each pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import geometry
from . import metrics
from .correspondence import Comparison, Parts, Points
from .matching import IOU_THRESHOLD, Match, match, match_within
from .report import SUMMARY_ERRORS, Counts

if TYPE_CHECKING:
    from ..data.sample import Sample
    from ..humans import Humans

# Attributes of each true person beside the errors; `crowd`: number of people in the image that count.
PERSON = ("found", "distance", "head_distance", "visibility", "crowd", "age", "head_inside")
# Errors of each matched pair. The first need joints only, the next a mesh, then the true bone lengths, the
# last the head joint of both.
ERRORS = (
    *("mpjpe", "pa_mpjpe", "n_mpjpe", "camera_mpjpe", "mrpe", "depth"),
    *(
        "pve",
        "pa_pve",
        "camera_pve",
        "body_pve",
        "left_hand_pve",
        "right_hand_pve",
        "hand_pve",
        "hand_pa_pve",
    ),
    *("face_pve", "face_pa_pve", "pck", "auc", "pck_absolute", "head_m", "head_percent"),
)
CAMERA_ERRORS = {"camera_mpjpe", "mrpe", "depth", "camera_pve", "head_m", "head_percent"}
MEDIANS = ("head_m", "head_percent")  # figures that are medians over people; the others are means
COLUMNS = (*PERSON, *ERRORS, *(f"baseline_{name}" for name in SUMMARY_ERRORS))
DISTANCES = (0.0, 2.0, 4.0, 8.0, math.inf)  # [m] bins of the depth error
AGES = (0.0, 0.2, 0.5, 0.85, 1.01)  # of Anny: babies, children, adults, old people


@dataclass(frozen=True)
class Rules:
    """How a benchmark counts people.

    Attributes:
        min_visibility: true people of whom less is visible, and those with fewer than `min_joints` known
            joints, need not be found: they neither count as missed nor as false where predicted.
        min_joints: see above.
        matching: "boxes" (`match` with `iou_threshold`) or "joints" (`match_within` on the joints `matched`).
        iou_threshold: overlap of boxes that a match needs.
        matched: columns of the joints that people are matched by; None for all.
        bones: parents of the joints, if a 3DPCK with true bone lengths is wanted, over the joints `scored`.
        scored: columns of the joints that 3DPCK counts; None for all.
        missed: error of a person who was missed, in the figures called all_...
        by_sequence: figures are means over sequences (what comes before "/" in a sample's name).
        baseline: measure the mean pose and shape at the true place, too. For people of the model's own body.
    """

    min_visibility: float = 0.1
    min_joints: int = 1
    matching: str = "boxes"
    iou_threshold: float = IOU_THRESHOLD
    matched: Sequence[int] | None = None
    bones: tuple[int, ...] | None = None
    scored: Sequence[int] | None = None
    missed: Mapping[str, float] = field(default_factory=dict)
    by_sequence: bool = False
    baseline: bool = False


class Evaluator:
    """Compares the people that a model predicts in an image with the true ones.

    Args:
        comparison: turns both into points that may be compared.
        rules: who counts, and how people are matched.

    Attributes:
        matched: predicted and true people of the last image who were matched, in one order.
    """

    columns = COLUMNS

    def __init__(self, comparison: Comparison, rules: Rules) -> None:
        if rules.baseline and comparison.mean_person is None:
            raise ValueError("a baseline needs people of the model's own body")
        self.comparison, self.rules = comparison, rules
        self.matched: tuple[Points, Points] | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Deviations from the benchmark's protocol and their reasons, one sentence each."""
        return self.comparison.notes

    def __call__(self, sample: Sample, humans: Humans) -> tuple[np.ndarray, Counts]:
        """Compare one image.

        Args:
            sample: the image's true people.
            humans: the predicted ones.

        Returns:
            (T, C) float64, one row of `COLUMNS` for each true person that counts, NaN where a value is not
            known or the person was missed; and how many were found, missed, predicted falsely, ignored.

        Raises:
            ValueError: the sample has neither a camera nor keypoints by which people could be matched.
        """
        truth, prediction = self.comparison.truth(sample), self.comparison.prediction(humans)
        true_xy, pred_xy = self._pixels(sample, humans, truth, prediction)
        counted = self._counted(sample, true_xy)
        matched = self._match(pred_xy, true_xy[counted])
        # People who need not be found may be found: such a prediction is not a false one.
        excused = self._match(pred_xy[matched.false], true_xy[~counted])
        pred, true = matched.pairs.T
        rows = np.flatnonzero(counted)
        columns = self._person_columns(sample, truth, rows)
        columns["found"][true] = 1
        self.matched = prediction.rows(pred), truth.rows(rows[true])
        errors = pair_errors(*self.matched, self.comparison.parts)
        if self.rules.bones is not None:
            errors |= self._shares(prediction.rows(pred), truth.rows(rows[true]))
        for name, values in errors.items():
            columns[name] = np.full(len(rows), np.nan)
            columns[name][true] = values.cpu().numpy()
        if self.rules.baseline:
            columns |= self._baseline(truth.rows(rows))
        unknown = np.full(len(rows), np.nan)
        table = np.stack([columns.get(name, unknown) for name in COLUMNS], axis=1).astype(float)
        return table, Counts(len(pred), len(matched.missed), len(excused.false), int((~counted).sum()))

    def _person_columns(self, sample: Sample, truth: Points, rows: np.ndarray) -> dict[str, np.ndarray]:
        """`PERSON` of these rows of the sample, all of them missed so far."""
        roots = (
            truth.root if truth.placed is None else torch.where(truth.placed[:, None], truth.root, torch.nan)
        )
        columns = {
            "found": np.zeros(len(rows)),
            "distance": roots.norm(dim=-1).cpu().numpy()[rows],
            "visibility": sample.visibility[rows],
            "crowd": np.full(len(rows), len(rows)),
            "age": self._ages(sample)[rows],
        }
        if truth.head is not None:
            heads = truth.head if truth.placed is None else truth.head.where(truth.placed[:, None], torch.nan)
            columns["head_distance"] = heads.norm(dim=-1).cpu().numpy()[rows]
            xy = _projected(heads, np.asarray(sample.K))[rows]
            height, width = sample.image.shape[:2]
            inside = np.all((xy >= 0) & (xy < (width, height)), axis=1)
            columns["head_inside"] = np.where(np.isfinite(xy).all(axis=1), inside, np.nan)
        return columns

    def _ages(self, sample: Sample) -> np.ndarray:
        """(N,) age parameter of the body, NaN for bodies without one."""
        names = self.comparison.shape_names
        if "age" not in names or sample.shape.shape[1] != len(names):
            return np.full(len(sample.translation), np.nan)
        return np.asarray(sample.shape[:, names.index("age")], float)

    def _baseline(self, truth: Points) -> dict[str, np.ndarray]:
        """Errors of the mean pose and shape, facing the camera, with the head at the true place."""
        mean = self.comparison.mean_person
        assert mean is not None
        assert mean.head is not None
        assert truth.head is not None
        moved = replace(mean.moved(truth.head - mean.head), head=truth.head)
        errors = pair_errors(moved, truth, self.comparison.parts)
        return {f"baseline_{name}": errors[name].cpu().numpy() for name in SUMMARY_ERRORS if name in errors}

    def _counted(self, sample: Sample, true_xy: np.ndarray) -> np.ndarray:
        known = np.isfinite(true_xy).all(axis=2).sum(axis=1)
        return (sample.visibility >= self.rules.min_visibility) & (known >= self.rules.min_joints)

    def _pixels(
        self, sample: Sample, humans: Humans, truth: Points, prediction: Points
    ) -> tuple[np.ndarray, np.ndarray]:
        """(T, M, 2) and (P, M, 2) points of the true and the predicted people, by which they are matched."""
        K = np.asarray(sample.K)
        ours = _projected(prediction.joints, humans.K)
        if truth.joints_2d is not None:
            theirs = truth.joints_2d.cpu().numpy()
        elif np.isfinite(K).all() and (truth.placed is None or bool(truth.placed.all())):
            theirs = _projected(truth.joints if truth.outline is None else truth.outline, K)
        elif sample.keypoints_2d is not None and sample.keypoint_set in humans.topology.keypoint_sets:
            theirs, ours = np.asarray(sample.keypoints_2d), humans.keypoints(sample.keypoint_set).xy
        else:
            raise ValueError(
                f"the people of sample '{sample.name}' cannot be matched: it has no camera or places, and no "
                f"keypoints_2d of a set that body '{humans.topology.name}' has"
            )
        return _clip_to_neighbourhood(theirs, sample), _clip_to_neighbourhood(ours, sample)

    def _match(self, pred_xy: np.ndarray, true_xy: np.ndarray) -> Match:
        if self.rules.matched is not None:
            columns = list(self.rules.matched)
            pred_xy, true_xy = pred_xy[:, columns], true_xy[:, columns]
        if self.rules.matching == "joints":
            return match_within(pred_xy, true_xy)
        return match(pred_xy, true_xy, iou_threshold=self.rules.iou_threshold)

    def _shares(self, pred: Points, true: Points) -> dict[str, Tensor]:
        """3DPCK and AUC of MuPoTs-3D, with the true lengths of bones: around the pelvis, and absolute."""
        assert self.rules.bones is not None
        columns = list(range(true.joints.shape[1]) if self.rules.scored is None else self.rules.scored)
        centred = pred.joints - pred.root[:, None], true.joints - true.root[:, None]
        relative = metrics.with_true_bones(*centred, self.rules.bones)
        absolute = metrics.with_true_bones(pred.joints, true.joints, self.rules.bones)
        around = metrics.point_errors(relative[:, columns], centred[1][:, columns])
        placed = metrics.point_errors(absolute[:, columns], true.joints[:, columns])
        return {
            "pck": metrics.pck(around),
            "auc": metrics.auc(around),
            "pck_absolute": metrics.pck(placed),
        }


def _projected(joints: Tensor, K: np.ndarray) -> np.ndarray:
    return geometry.project(joints.cpu(), torch.tensor(np.asarray(K, np.float32))).numpy()


def _clip_to_neighbourhood(xy: np.ndarray, sample: Sample) -> np.ndarray:
    """(..., 2) pixels clipped to at most one image size outside the image.

    Joints beside or behind the camera project to arbitrary pixels; one of them could decide the matching.
    """
    height, width = sample.image.shape[:2]
    size = np.array([width, height])
    return np.clip(xy, -size, 2 * size)


def pair_errors(pred: Points, true: Points, parts: Parts | None) -> dict[str, Tensor]:
    """Errors by name, (N,) each [mm], of N predicted people and the true ones matched with them."""
    around = pred.joints - pred.root[:, None], true.joints - true.root[:, None]
    errors = {
        "mpjpe": metrics.point_error(*around),
        "pa_mpjpe": metrics.pa_mpjpe(pred.joints, true.joints),
        "n_mpjpe": metrics.point_error(metrics.align_scale(*around), around[1]),
        "camera_mpjpe": metrics.point_error(pred.joints, true.joints),
        "mrpe": metrics.position_error(pred.root, true.root),
        "depth": metrics.depth_error(pred.root, true.root),
    }
    if all(p.vertices is not None and p.mesh_root is not None for p in (pred, true)):
        errors |= _mesh_errors(pred, true, parts)
    if pred.head is not None and true.head is not None:
        errors["head_m"] = metrics.position_error(pred.head, true.head) / metrics.MM
        errors["head_percent"] = metrics.relative_position_error(pred.head, true.head)
    if true.placed is not None:
        for name in CAMERA_ERRORS & set(errors):
            errors[name] = torch.where(true.placed, errors[name], torch.nan)
    return errors


def _mesh_errors(pred: Points, true: Points, parts: Parts | None) -> dict[str, Tensor]:
    p, t, p_root, t_root = (  # for the type checker
        _present(x) for x in (pred.vertices, true.vertices, pred.mesh_root, true.mesh_root)
    )
    errors = {
        "pve": metrics.pve(p, t, p_root, t_root),
        "pa_pve": metrics.pa_pve(p, t),
        "camera_pve": metrics.point_error(p, t),
    }
    if parts is None or pred.part_roots is None or true.part_roots is None:
        return errors
    hands = parts.hands.to(p.device)
    face, body = parts.face.to(p.device), parts.body.to(p.device)
    t = _whole_parts(t, [*hands, face])
    left, right, neck = (list(x.unbind(1)) for x in (_pairs(pred, true)))
    errors["body_pve"] = metrics.part_pve(p, t, body, p_root, t_root)
    errors["left_hand_pve"] = metrics.part_pve(p, t, hands[0], *left)
    errors["right_hand_pve"] = metrics.part_pve(p, t, hands[1], *right)
    errors["hand_pve"] = metrics.hand_pve(p, t, hands, pred.part_roots[:, :2], true.part_roots[:, :2])
    errors["hand_pa_pve"] = metrics.hand_pa_pve(p, t, hands)
    errors["face_pve"] = metrics.part_pve(p, t, face, *neck)
    errors["face_pa_pve"] = metrics.pa_pve(p, t, face)
    return errors


def _whole_parts(vertices: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Parts with too few known vertices set to NaN: the palm alone is not a hand."""
    unknown = ~metrics.known(vertices)
    if not unknown.any():
        return vertices
    vertices = vertices.clone()
    for part in parts:
        lost = unknown[:, part].float().mean(dim=1) > 0.1
        vertices[lost[:, None] & part] = torch.nan
    return vertices


def _pairs(pred: Points, true: Points) -> list[Tensor]:
    """For each part (N, 2, 3): its predicted and its true root [m]."""
    return list(torch.stack([_present(pred.part_roots), _present(true.part_roots)], dim=1).unbind(2))


def _present(points: Tensor | None) -> Tensor:
    assert points is not None
    return points


def figures(table: np.ndarray, names: Sequence[str], counts: Counts, rules: Rules) -> dict[str, float]:
    """All figures of a data set by name.

    Means over the people found, of errors [mm] and of shares, and medians of `MEDIANS`; those called all_...
    count missed people with the error that the rules give them. Also precision, recall, f1, nmje and nmve
    (with an F1 that is not rounded), fb_pve of AGORA.

    Args:
        table: (T, C) rows of `COLUMNS`, one per true person.
        names: T names of the samples they are in.
        counts: of the whole data set.
        rules: of the benchmark.
    """
    found = table[:, 0] > 0
    groups = np.array([name.rpartition("/")[0] if rules.by_sequence else "" for name in names], dtype=object)
    result: dict[str, float] = {}
    for error in ERRORS:
        values = table[:, COLUMNS.index(error)]
        if error in MEDIANS:
            result[error] = _median(values[found])
            continue
        result[error] = _mean_of_groups(values[found], groups[found])
        if error in rules.missed:
            filled = np.where(found, values, rules.missed[error])
            result[f"all_{error}"] = _mean_of_groups(filled, groups)
    result |= {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
    result["nmje"] = metrics.normalised(result["mpjpe"], counts.f1)
    result["nmve"] = metrics.normalised(result["pve"], counts.f1)
    hands = result["left_hand_pve"], result["right_hand_pve"]
    result["fb_pve"] = metrics.whole_body(result["body_pve"], *hands, result["face_pve"])
    return result


def depth_bins(table: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """Depth error [mm] of the people found by their distance [m] and, where it is known, by their age."""
    depth = torch.tensor(table[:, COLUMNS.index("depth")].astype(np.float32))
    result = {}
    for column, edges in (("distance", DISTANCES), ("age", AGES)):
        values = torch.tensor(table[:, COLUMNS.index(column)].astype(np.float32))
        means, people = metrics.binned(depth, values, edges)
        bins = zip(edges[:-1], edges[1:], means.tolist(), people.tolist(), strict=True)
        result[column] = [
            {"from": low, "to": high, "depth": mean, "people": count}
            for low, high, mean, count in bins
            if count
        ]
    return {name: bins for name, bins in result.items() if bins}


def _mean_of_groups(values: np.ndarray, groups: np.ndarray) -> float:
    """Mean over groups of the means of their known values."""
    known = ~np.isnan(values)
    values, groups = values[known], groups[known]
    means = [values[groups == group].mean() for group in dict.fromkeys(groups.tolist())]
    return float(np.mean(means)) if means else math.nan


def _median(values: np.ndarray) -> float:
    """Median of the known values; nan without any."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else math.nan
