"""The protocol: which people count, who is matched with whom, which joints count, against which baseline.

Everything runs through the public `Model.predict_batch`, so what is measured is what users get.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import geometry
from ..bodies.base import Body
from ..bodies.body_parts import body_joints, vertex_parts
from . import metrics
from .ground_truth import true_people
from .matching import IOU_THRESHOLD, match
from .report import ERRORS, Counts, People, Result, summarise

if TYPE_CHECKING:
    from ..bodies.topology import Topology
    from ..data.sample import Sample
    from ..humans import Humans
    from ..model import Model


@dataclass(frozen=True)
class Protocol:
    """How people are counted and predicted.

    min_visibility: true people of whom less is visible neither count as missed nor as false where predicted
    (AGORA leaves out those hidden by more than 90 %). iou_threshold: overlap that a match needs.
    given_camera: whether the model is told the true K. threshold: detection score, None is the model's own.
    tiles: as `Model.predict` takes it.
    """

    given_camera: bool = True
    min_visibility: float = 0.1
    iou_threshold: float = IOU_THRESHOLD
    threshold: float | None = None
    tiles: int = 1
    batch_size: int = 8

    @property
    def of_predict(self) -> dict[str, Any]:
        """What `Model.predict_batch` is told beside the cameras."""
        return {"threshold": self.threshold, "tiles": self.tiles}


def named_model(model: str | Model | None, device: str | None = None) -> tuple[str, Model]:
    """A model and what tables call it, from a name, a path, the model itself or None for the default."""
    if model is None or isinstance(model, str):
        from ..hub.loading import load_model
        from ..hub.releases import DEFAULT

        return model or DEFAULT, load_model(model, device=device)
    return type(model).__name__, model


def evaluate(
    model: Model,
    samples: Iterable[Sample],
    protocol: Protocol | None = None,
    *,
    watch: Callable[[Sample, Humans, float], None] | None = None,
    progress: bool = False,
    names: tuple[str, str] = ("", ""),
) -> Result:
    """Predicts every sample and compares with the truth.

    `watch` is called with each sample, its prediction and how bad that was (summed MPJPE, and 1000 mm for
    each person missed or invented). `names` of the model and the data appear in the result.
    """
    protocol = protocol or Protocol()
    judge = Judge(model.body, protocol)
    people: list[People] = []
    tally = np.zeros(4, dtype=int)
    images = 0
    for batch in _batches(_bar(samples, progress), protocol.batch_size):
        Ks = [sample.K for sample in batch] if protocol.given_camera else None
        predictions = model.predict_batch([s.image for s in batch], Ks, **protocol.of_predict)
        for sample, humans in zip(batch, predictions, strict=True):
            found, counts = judge(sample, humans)
            people.append(found)
            tally += counts.found, counts.missed, counts.false, counts.ignored
            if watch is not None:
                mpjpe = np.nan_to_num(found.errors[:, 0]).sum()
                watch(sample, humans, float(mpjpe + 1000 * (counts.missed + counts.false)))
        images += len(batch)
    if not images:
        raise ValueError("no samples to evaluate on; expected at least one")
    return summarise(
        People.join(people),
        Counts(*tally.tolist()),
        model=names[0] or type(model).__name__,
        data=names[1],
        images=images,
        settings=asdict(protocol) | {"body": model.body.name, "joints": judge.joint_names},
    )


class Judge:
    """Compares what a model said about one picture with the truth. One judge per body and protocol."""

    def __init__(self, body: Body, protocol: Protocol) -> None:
        self.body, self.protocol = body, protocol
        self.joint_names = body_joints(body.topology)
        self.joints = [body.topology.joint_names.index(name) for name in self.joint_names]
        self.device = body.mean_shape_S.device
        self.hands = hand_masks(body.topology).to(self.device)
        self.mean_person = self._mean_person()

    def __call__(self, sample: Sample, humans: Humans) -> tuple[People, Counts]:
        """The people of this picture that count, and how many were found, missed, invented, ignored."""
        if humans.body != self.body.name:
            raise ValueError(f"the model predicts body {humans.body!r} but the truth is {self.body.name!r}")
        truth = self.truth(sample)
        true_xy = _near(geometry.project(truth.joints, self._tensor(sample.K)).cpu().numpy(), sample)
        pred_xy = _near(humans.joints_2d[:, self.joints], sample)
        counted = sample.visibility >= self.protocol.min_visibility
        threshold = self.protocol.iou_threshold
        matched = match(pred_xy, true_xy[counted], iou_threshold=threshold)
        # Whom nobody has to find may be found: such a prediction is not a false one.
        excused = match(pred_xy[matched.false], true_xy[~counted], iou_threshold=threshold)

        rows = np.flatnonzero(counted)
        people = self._people(sample, rows, truth.rows(rows))
        pred, true = matched.pairs.T
        people.found[true] = True
        people.errors[true] = self._errors(self._points(humans, pred), truth.rows(rows[true]))
        return people, Counts(len(pred), len(matched.missed), len(excused.false), int((~counted).sum()))

    @torch.no_grad()
    def truth(self, sample: Sample) -> Points:
        """The true people of a picture, rebuilt from their parameters."""
        posed = true_people(self.body, sample)
        return Points(posed.vertices, posed.joints[:, self.joints], posed.joints[:, self.body.center_joint])

    @torch.no_grad()
    def _mean_person(self) -> Points:
        shape = self.body.mean_shape_S[None]
        neutral = shape.new_zeros(1, self.body.expression_count)
        output = self.body(self.body.mean_pose_R33[None], shape, neutral)
        heads = output.joints_PJ3[:, self.body.center_joint]
        return Points(output.vertices_PV3, output.joints_PJ3[:, self.joints], heads)

    def _points(self, humans: Humans, rows: np.ndarray) -> Points:
        joints = humans.joints[rows][:, self.joints]
        return Points(*map(self._tensor, (humans.vertices[rows], joints, humans.translation[rows])))

    def _people(self, sample: Sample, rows: np.ndarray, truth: Points) -> People:
        """The people in these rows of the sample, nobody found yet, the baseline measured."""
        mean = self.mean_person
        shift = truth.heads - mean.heads
        baseline = Points(mean.vertices + shift[:, None], mean.joints + shift[:, None], truth.heads)
        head_xy = geometry.project(truth.heads, self._tensor(sample.K)).cpu().numpy()
        height, width = sample.image.shape[:2]
        names = self.body.topology.shape_names
        known = "age" in names and len(rows) > 0
        age = sample.shape[rows, names.index("age")] if known else np.full(len(rows), np.nan)
        return People(
            image=np.full(len(rows), sample.name),
            distance=truth.heads.norm(dim=-1).cpu().numpy(),
            visibility=sample.visibility[rows],
            crowd=np.full(len(rows), len(rows)),
            age=age,
            head_inside=np.all((head_xy >= 0) & (head_xy < (width, height)), axis=1),
            found=np.zeros(len(rows), dtype=bool),
            errors=np.full((len(rows), len(ERRORS)), np.nan),
            baseline=self._errors(baseline, truth),
        )

    def _errors(self, pred: Points, true: Points) -> np.ndarray:
        """(N, 7) errors of N pairs, in the order of `ERRORS`."""
        hands = metrics.hand_pa_pve(pred.vertices, true.vertices, self.hands) if len(self.hands) else None
        columns = [
            metrics.mpjpe(pred.joints, true.joints, root=0),
            metrics.pa_mpjpe(pred.joints, true.joints),
            metrics.pve(pred.vertices, true.vertices, pred.joints[:, 0], true.joints[:, 0]),
            metrics.pa_pve(pred.vertices, true.vertices),
            torch.full_like(true.heads[:, 0], torch.nan) if hands is None else hands,
            metrics.position_error(pred.heads, true.heads) / metrics.MM,
            metrics.relative_position_error(pred.heads, true.heads),
        ]
        return torch.stack(columns, dim=-1).cpu().numpy()

    def _tensor(self, array: Any) -> Tensor:
        return torch.tensor(np.asarray(array), dtype=torch.float32, device=self.device)


class Points(NamedTuple):
    """vertices (N, V, 3), the joints that are compared (N, 22, 3) and heads (N, 3): metres, camera frame."""

    vertices: Tensor
    joints: Tensor
    heads: Tensor

    def rows(self, rows: np.ndarray) -> Points:
        """Only these people."""
        index = torch.as_tensor(rows, device=self.heads.device)
        return Points(*(points[index] for points in self))


class Worst:
    """Keeps the `count` worst pictures that `evaluate` shows it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._heap: list[tuple[float, int, Sample, Humans]] = []
        self._seen = itertools.count()  # breaks ties, so that samples are never compared

    def __call__(self, sample: Sample, humans: Humans, badness: float) -> None:
        heapq.heappush(self._heap, (badness, next(self._seen), sample, humans))
        if len(self._heap) > self.count:
            heapq.heappop(self._heap)

    def save(self, folder: Path) -> list[Path]:
        """Writes the overlays, the worst first, as 00_NAME.jpg, 01_NAME.jpg, ..."""
        from PIL import Image

        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for i, (_, _, sample, humans) in enumerate(sorted(self._heap, key=lambda entry: -entry[0])):
            paths.append(folder / f"{i:02d}_{sample.name.replace('/', '_')}.jpg")
            Image.fromarray(humans.draw(sample.image)).save(paths[-1])
        return paths


def hand_masks(topology: Topology) -> Tensor:
    """(2, V) booleans, the vertices of the left and the right hand; (0, 0) without hands or skinning."""
    if topology.skin_weights is None:
        return torch.zeros(0, 0, dtype=torch.bool)
    parts = vertex_parts(topology)
    hands = [parts["left_hand"], parts["right_hand"]]
    if not all(len(hand) for hand in hands):
        return torch.zeros(0, 0, dtype=torch.bool)
    masks = torch.zeros(2, len(topology.skin_weights), dtype=torch.bool)
    for mask, hand in zip(masks, hands, strict=True):
        mask[torch.from_numpy(hand)] = True
    return masks


def _near(xy: np.ndarray, sample: Sample) -> np.ndarray:
    """Points far outside the picture moved to its neighbourhood: joints beside or behind the camera project
    anywhere, and one of them would decide who is matched with whom."""
    height, width = sample.image.shape[:2]
    size = np.array([width, height])
    return np.clip(xy, -size, 2 * size)


def _batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _bar(samples: Iterable[Sample], progress: bool) -> Iterable[Sample]:
    if not progress:
        return samples
    from tqdm import tqdm

    return tqdm(samples, desc="evaluate", unit="picture", disable=None)
