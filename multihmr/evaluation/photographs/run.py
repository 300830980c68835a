"""Measuring a model on photographs: predictions are stored as they are made, and matched at the end."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...bodies.loading import float32_on_cpu
from ...storage.fingerprint import fingerprint
from ..data_fingerprint import fingerprint_files
from ..report import Counts
from ..runner import SETTINGS, Plan, bar, check_settings, end_last_line, measure, named_model
from .measures import Detections, average_precision, joint_shares, match_photograph
from .reader import Photograph, Photographs, find_annotations, read_photographs
from .result import PhotographFigures, PhotographResult, picture_row

if TYPE_CHECKING:
    from ...humans import Humans
    from ...model import Model
    from ..results import BenchmarkResult

LOW_THRESHOLD = 0.05  # of the detections that average precision is computed from
PREDICTIONS = "predictions.jsonl"
_Prediction = dict[str, Any]


def measure_data(
    model: str | Model | None,
    plan: Plan,
    *,
    out: Path | None = None,
    devices: Sequence[str | None] = (None,),
    progress: bool = False,
) -> BenchmarkResult | PhotographResult:
    """Evaluate a model on a benchmark, on shards or on labelled photographs, whichever the plan names.

    Arguments and errors are those of `runner.measure` and `measure_photographs`, which uses the first device.
    """
    if find_annotations(plan.data) is None:
        return measure(model, plan, out=out, devices=devices, progress=progress)
    return measure_photographs(model, plan, out=out, device=devices[0], progress=progress)


@float32_on_cpu()
def measure_photographs(
    model: str | Model | None,
    plan: Plan,
    *,
    out: Path | None = None,
    device: str | None = None,
    progress: bool = False,
) -> PhotographResult:
    """Measure a model on photographs with people labelled in COCO's keypoint format.

    Every picture is predicted twice: with the threshold of the protocol (or the model's own), and for average
    precision with 0.05, since a lower threshold changes more than which people are listed (images without
    people are predicted again with a margin). Cameras are predicted.

    Args:
        model: its name or path, the model itself, or None for the default.
        plan: the data, as `find_annotations` takes it, and the protocol.
        out: folder for the result, its tables and the predictions; started again with the same one, only
            pictures without predictions are predicted.
        device: of a model that is given by its name.
        progress: show a progress bar.

    Returns:
        The figures. Pictures that cannot be read are left out and counted.

    Raises:
        FileNotFoundError: the annotation file is not there.
        ValueError: it is in another format, no picture can be used, or `out` holds another evaluation.
    """
    path = find_annotations(plan.data)
    if path is None:
        raise ValueError(f"{plan.data!r} is no data of photographs; expected coco@FOLDER or coco@FILE.json")
    labelled = read_photographs(path)
    chosen = labelled.photographs[:: plan.every][: plan.count]
    name, network = named_model(model, device, plan.loading)
    threshold = network.threshold if plan.protocol.threshold is None else plan.protocol.threshold
    settings = {
        "model": name,
        "weights": fingerprint(network),
        "data": plan.data,
        "data_fingerprint": _fingerprint(labelled),
        "pictures": len(chosen),
        "every": plan.every,
        "threshold": threshold,
        "protocol": asdict(replace(plan.protocol, given_camera=False)),
        "loading": plan.loading or None,
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        check_settings(folder / SETTINGS, settings)
        predictions = _predictions(network, chosen, plan, threshold, folder / PREDICTIONS, progress)
    result = _result(data_name(plan.data), name, settings, chosen, predictions, labelled.skipped)
    if out is not None:
        result.save(out)
    return result


def data_name(data: str) -> str:
    """Name of data in tables and folders: the benchmark's, or that of the folder or file."""
    if data.startswith("coco") and "@" in data:
        data = data.partition("@")[2]
    path = Path(data)
    name = path.stem if path.suffix == ".json" else path.name
    return name.removeprefix("person_keypoints_") or path.resolve().name or "photographs"


def _fingerprint(labelled: Photographs) -> str:
    files = [(labelled.path.name, labelled.path)]
    return fingerprint_files([*files, *((photo.name, photo.path) for photo in labelled.photographs)])


def _predictions(
    model: Model,
    photographs: Sequence[Photograph],
    plan: Plan,
    threshold: float,
    path: Path,
    progress: bool,
) -> list[_Prediction]:
    """Of each photograph, {"own", "low"} or {"skipped"}; those that the file lacks are predicted."""
    done = _stored(path)
    todo = [number for number in range(len(photographs)) if number not in done]
    size = plan.protocol.batch_size
    batches = [todo[first : first + size] for first in range(0, len(todo), size)]
    options = plan.protocol.predict_options | {"batch_size": size}

    def predict(paths: Sequence[Path], least: float) -> list[Any]:
        return [_detections(h) for h in model.predict_batch(paths, **options | {"threshold": least})]

    with path.open("a+", encoding="utf-8") as file:
        end_last_line(file)
        for batch in bar(iter(batches), len(batches), progress):
            for number, prediction in zip(
                batch, _predict([photographs[i].path for i in batch], threshold, predict), strict=True
            ):
                done[number] = prediction
                file.write(json.dumps({"picture": number, "name": photographs[number].name} | prediction))
                file.write("\n")
            file.flush()
    return [done[number] for number in range(len(photographs))]


def _predict(
    paths: Sequence[Path], threshold: float, predict: Callable[[Sequence[Path], float], list[Any]]
) -> list[_Prediction]:
    try:
        own, low = predict(paths, threshold), predict(paths, min(LOW_THRESHOLD, threshold))
    except (ValueError, OSError) as error:  # one of them cannot be read: each by itself
        if len(paths) > 1:
            return [_predict([path], threshold, predict)[0] for path in paths]
        return [{"skipped": str(error)}]
    return [{"own": own, "low": low} for own, low in zip(own, low, strict=True)]


def _detections(humans: Humans) -> dict[str, list[Any]]:
    """Points, boxes and scores of predicted people, for JSON."""
    boxes = np.array(humans.boxes, np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    xy = humans.keypoints("coco17").xy if len(humans) else np.zeros((0, 17, 2))
    return {"xy": np.asarray(xy, np.float64).tolist(), "boxes": boxes.tolist(),
            "scores": np.asarray(humans.scores, np.float64).tolist()}  # fmt: skip


def _stored(path: Path) -> dict[int, _Prediction]:
    """Number of a photograph -> its prediction, from all lines that are complete."""
    done = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:  # the line at which a run was killed
            continue
        done[entry["picture"]] = {key: entry[key] for key in ("own", "low", "skipped") if key in entry}
    return done


def _result(
    data: str,
    model: str,
    settings: dict[str, Any],
    photographs: Sequence[Photograph],
    predictions: Sequence[_Prediction],
    left_out: Counter[str],
) -> PhotographResult:
    skipped = Counter(left_out)
    rows, distances, counts, empty = [], [], [], []
    own, low = [], []  # detections and people of photographs with people
    for photo, prediction in zip(photographs, predictions, strict=True):
        if "skipped" in prediction:
            skipped["picture that cannot be read"] += 1
            continue
        detections = _of_json(prediction["own"])
        match = match_photograph(detections, photo.people)
        rows.append(picture_row(photo.name, bool(photo.people), match.counts, match.distances))
        if not photo.people:
            empty.append(match.counts.false)
            continue
        counts.append(match.counts)
        distances.append(match.distances)
        own.append((detections, photo.people))
        low.append((_of_json(prediction["low"]), photo.people))
    if not rows:
        first = next(p["skipped"] for p in predictions)
        raise ValueError(
            f"none of the {len(photographs)} photographs of {data} can be used; the first: {first}"
        )
    keys = ("found", "missed", "false", "ignored")
    total = Counts(*(sum(getattr(count, key) for count in counts) for key in keys))
    figures = PhotographFigures(
        total,
        average_precision(low),
        average_precision(own),
        joint_shares(np.concatenate([np.zeros((0, 17)), *distances])),
        sum(empty),
        sum(count > 0 for count in empty),
    )
    return PhotographResult(
        data, model, settings, figures, len(counts), len(empty), settings["threshold"], rows, skipped
    )


def _of_json(stored: dict[str, list[Any]]) -> Detections:
    shapes = {"xy": (-1, 17, 2), "boxes": (-1, 4), "scores": (-1,)}
    return Detections(*(np.array(stored[k], np.float64).reshape(shape) for k, shape in shapes.items()))
