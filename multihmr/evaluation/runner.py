"""Evaluation runs: a model on a benchmark, batch by batch, on all devices, resumable.

Every batch that is done is stored as one line of a file. A run that is started again reads those lines and
does the rest; batches are always cut alike, so the figures do not depend on which process did which batch.
Everything runs through the public `Model.predict_batch`, so what is measured is what users get.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from ..bodies.loading import float32_on_cpu
from ..data.dataset import PoseDataset
from ..storage.fingerprint import fingerprint
from ..storage.paths import portable_name
from . import report
from .benchmarks import (
    BENCHMARKS,
    about_data,
    compare_meshes,
    data_fingerprint,
    first_with_people,
    open_samples,
)
from .evaluator import COLUMNS, Evaluator, Rules, depth_bins, figures
from .matching import IOU_THRESHOLD
from .motion import motion_figures, motion_rows
from .protocol_files import ProtocolFiles
from .report import SUMMARY_ERRORS, Counts, People
from .results import BenchmarkResult, ImageResult

if TYPE_CHECKING:
    from ..bodies.base import Body
    from ..data.sample import Sample
    from ..humans import Humans
    from ..model import Model

SETTINGS = "settings.json"
WORST_IMAGES = 10
READ_AHEAD = 2  # batches


@dataclass(frozen=True)
class Protocol:
    """How people are predicted, and how they are counted in data without rules of their own.

    Attributes:
        given_camera: whether the model is given the true K.
        min_visibility: true people of whom less is visible neither count as missed nor as false where
            predicted (AGORA leaves out those hidden by more than 90 %).
        iou_threshold: overlap that a match needs.
        threshold: detection score; None is the model's own.
        tiles: as `Model.predict` takes it.
        flip_test: likewise.
        hands_and_faces: likewise.
        any_rotation: likewise.
        closeups: likewise.
        limbs: likewise.
        batch_size: images that go through the network at once.
    """

    given_camera: bool = True
    min_visibility: float = 0.1
    iou_threshold: float = IOU_THRESHOLD
    threshold: float | None = None
    tiles: int | Literal["auto"] = 1
    batch_size: int = 8
    flip_test: bool = False
    hands_and_faces: bool = False
    any_rotation: bool | Literal["auto"] = "auto"
    closeups: bool = True
    limbs: bool = True

    @property
    def predict_options(self) -> dict[str, Any]:
        """Keyword arguments of `Model.predict_batch` beside the cameras."""
        options = {"threshold": self.threshold, "tiles": self.tiles}
        options |= {name: True for name in ("flip_test", "hands_and_faces") if getattr(self, name)}
        if self.any_rotation != "auto":
            options["any_rotation"] = self.any_rotation
        return options | {name: False for name in ("closeups", "limbs") if not getattr(self, name)}

    @property
    def rules(self) -> Rules:
        """Of people of the model's own body, in data without rules of their own."""
        return Rules(min_visibility=self.min_visibility, iou_threshold=self.iou_threshold)


@dataclass(frozen=True)
class Plan:
    """Data and protocol of an evaluation; can be pickled for another process.

    Attributes:
        data: a name of `BENCHMARKS`, "synth-test" or a folder of shards.
        root: where the benchmarks' data lie.
        count: only the first `count` of every `every`-th image; None for all.
        every: see above.
        protocol: how people are predicted and counted.
        assets: folder that "synth-test" is rendered from; None looks for shared/assets beside the checkout.
        loading: how a model that is given by its name is loaded: options of `load_model` beside the device.
    """

    data: str
    root: Path | None = None
    count: int | None = None
    every: int = 1
    protocol: Protocol = field(default_factory=Protocol)
    assets: Path | None = None
    loading: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the data in tables and folders."""
        return self.data if self.data in BENCHMARKS else Path(self.data).name


@float32_on_cpu()
def measure(
    model: str | Model | None,
    plan: Plan,
    *,
    out: Path | None = None,
    devices: Sequence[str | None] = (None,),
    progress: bool = False,
) -> BenchmarkResult:
    """Evaluate a model on one benchmark.

    Args:
        model: its name or path, the model itself, or None for the default.
        plan: the data and the protocol.
        out: folder for the result, its tables, the worst images and the batches that are done; started again
            with the same one, only the rest is done.
        devices: one process each; more than one need a model by its name.
        progress: show a progress bar.

    Returns:
        The result, with all images and people.

    Raises:
        FileNotFoundError: the data, or a body that the truth is given in, is not there; the message names it.
        ValueError: `out` holds another evaluation, or no image can be used.
        ChildProcessError: the process of another device ended early; what was done is kept.
    """
    name, network = named_model(model, devices[0], plan.loading)
    if len(devices) > 1 and not (model is None or isinstance(model, str)):
        raise ValueError("several devices need a model by its name or path, which each process loads")
    run = EvaluationRun(plan, network)
    for note in run.data_notes:
        warnings.warn(note, stacklevel=2)
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            return _measured(run, name, model, Path(folder), devices, progress)
    result = _measured(run, name, model, out, devices, progress)
    result.save(out)
    _draw_worst(run, result, out / "worst")
    return result


@float32_on_cpu()
def evaluate(
    model: Model,
    samples: Iterable[Sample],
    protocol: Protocol | None = None,
    *,
    watch: Callable[[Sample, Humans, float], None] | None = None,
    progress: bool = False,
    names: tuple[str, str] = ("", ""),
) -> report.Result:
    """Evaluate a model on samples with people of its own body; in memory, one batch after the other.

    Args:
        model: the model.
        samples: images with their true people.
        protocol: how people are predicted and counted; None for the default.
        watch: called with each sample, its prediction and how bad that was (summed MPJPE [mm], and 1000 for
            each person missed or predicted falsely).
        progress: show a progress bar.
        names: of the model and the data, for the result.

    Returns:
        Figures, baseline, groups and single people.

    Raises:
        ValueError: there are no samples, or one has no usable image or camera.
    """
    protocol = protocol or Protocol()
    evaluator = own_body_evaluator(model.body, protocol)
    pictures = []
    batches = _batched(bar(iter(samples), None, progress, unit="image"), protocol.batch_size)
    for batch in batches:
        for sample, humans in zip(batch, _predict(model, batch, protocol), strict=True):
            pictures.append(evaluate_image(evaluator, sample, humans))
            if watch is not None:
                watch(sample, humans, pictures[-1].badness)
    if not pictures:
        raise ValueError("no samples to evaluate on; expected at least one")
    table, sample_names, counts = _joined(pictures)
    return report.summarise(
        People.of_table(table, sample_names, COLUMNS),
        counts,
        model=names[0] or type(model).__name__,
        data=names[1],
        images=len(pictures),
        settings=asdict(protocol) | {"body": model.body.name, "joints": evaluator.comparison.joint_names},
    )


def named_model(
    model: str | Model | None, device: str | None = None, loading: Mapping[str, Any] | None = None
) -> tuple[str, Model]:
    """A model and its name in tables, from a name, a path, the model itself or None for the default."""
    if model is None or isinstance(model, str):
        from ..hub.releases import DEFAULT
        from ..model import load_model

        return model or DEFAULT, load_model(model, device=device, **loading or {})
    return type(model).__name__, model


def devices_of(named: str | None) -> list[str | None]:
    """Those named, joined by commas; without a name all GPUs there are, or the best device."""
    if named is not None:
        return [name.strip() for name in named.split(",")]
    count = torch.cuda.device_count()
    return [f"cuda:{i}" for i in range(count)] if count > 1 else [None]


def own_body_evaluator(body: Body, protocol: Protocol | None = None) -> Evaluator:
    """An evaluator for people of the model's own body, with the mean person as baseline."""
    from .correspondence import meshes

    rules = replace((protocol or Protocol()).rules, baseline=True)
    return Evaluator(meshes(body, lambda gender: body, ProtocolFiles()), rules)


def evaluate_image(evaluator: Evaluator, sample: Sample, humans: Humans) -> ImageResult:
    """Result of one image, ready to be stored."""
    table, counts = evaluator(sample, humans)
    mpjpe = np.nan_to_num(table[:, COLUMNS.index("mpjpe")], posinf=1e6).sum()
    badness = float(mpjpe + 1000 * (counts.missed + counts.false))
    motion = motion_rows(sample.name, *evaluator.matched) if evaluator.matched is not None else []
    return ImageResult(sample.name, table.tolist(), asdict(counts), badness, motion=motion)


class EvaluationRun:
    """A model, the samples it is measured on, and the evaluator that compares them.

    Args:
        plan: the data and the protocol.
        model: the model.
    """

    def __init__(self, plan: Plan, model: Model) -> None:
        self.plan, self.model = plan, model
        self.samples = open_samples(plan.data, plan.root, plan.count, plan.assets)
        self.data_notes = about_data(plan.data, plan.assets)
        self.indices = range(0, len(self.samples), plan.every)[: plan.count]
        size = plan.protocol.batch_size
        self.batches = [self.indices[i : i + size] for i in range(0, len(self.indices), size)]
        self.evaluator = self._make_evaluator()

    def _make_evaluator(self) -> Evaluator:
        first = first_with_people(self.samples)
        body, benchmark = self.model.body, BENCHMARKS.get(self.plan.data)
        if benchmark is None and first.body == body.name:
            return own_body_evaluator(body, self.plan.protocol)
        from ..storage.paths import cache_folder

        roots = [root for root in (self.plan.root, cache_folder(), Path("weights")) if root is not None]
        compare = benchmark.compare if benchmark else compare_meshes
        rules = benchmark.rules if benchmark else self.plan.protocol.rules
        return Evaluator(compare(body, ProtocolFiles(*roots), first), rules)

    def settings(self, name: str) -> dict[str, Any]:
        """Settings that must be equal for a folder to be resumed."""
        return {
            "model": name,
            "weights": fingerprint(self.model),
            "data": str(self.plan.data),
            "data_fingerprint": data_fingerprint(self.plan.data, self.plan.assets),
            "pictures": len(self.indices),
            "every": self.plan.every,
            "protocol": asdict(self.plan.protocol),
            "loading": self.plan.loading or None,
            "columns": list(self.evaluator.columns),
        }

    def work(self, folder: Path, rank: int = 0, world: int = 1, progress: bool = False) -> None:
        """Do this process's share of the batches that are not done yet, one line of a file each."""
        done = set(_done(folder))
        mine = [batch for batch in range(rank, len(self.batches), world) if batch not in done]
        with (folder / f"done-{rank}.jsonl").open("a+", encoding="utf-8") as file:
            end_last_line(file)
            for batch, samples in bar(self._read(mine), len(mine), progress):
                pictures = [asdict(picture) for picture in self._evaluate_batch(samples)]
                file.write(json.dumps({"batch": batch, "pictures": pictures}) + "\n")
                file.flush()

    def _read(self, batches: Sequence[int]) -> Iterator[tuple[int, list[Sample | ImageResult]]]:
        """Number and samples of each batch; files of the next one are read while one is predicted."""
        if not isinstance(self.samples, PoseDataset):  # a renderer is not for several threads
            for batch in batches:
                yield batch, [self._sample(index) for index in self.batches[batch]]
            return
        threads = ThreadPoolExecutor(4)
        try:
            waiting: list[Any] = []
            for place in range(len(batches) + READ_AHEAD):
                if place < len(batches):
                    indices = self.batches[batches[place]]
                    waiting.append([threads.submit(self._sample, index) for index in indices])
                if place >= READ_AHEAD:
                    done = [future.result() for future in waiting.pop(0)]
                    yield batches[place - READ_AHEAD], done
        finally:
            # Without waiting: after an error the garbage collector may end this, in one of the threads.
            threads.shutdown(wait=False, cancel_futures=True)

    def _sample(self, index: int) -> Sample | ImageResult:
        """The sample, or an `ImageResult` with the reason if it cannot be read."""
        try:
            return self.samples[index]
        except (ValueError, OSError) as error:
            return ImageResult(f"number {index}", skipped=str(error))

    def _evaluate_batch(self, samples: Sequence[Sample | ImageResult]) -> list[ImageResult]:
        readable = [sample for sample in samples if not isinstance(sample, ImageResult)]
        try:
            predictions: list[Humans | str] = list(self.predict(readable))
        except ValueError:  # one of them has no usable camera or image: each by itself
            predictions = [self._predict_alone(sample) for sample in readable]
        results = iter(map(self._result, readable, predictions))
        return [sample if isinstance(sample, ImageResult) else next(results) for sample in samples]

    def _predict_alone(self, sample: Sample) -> Humans | str:
        """The prediction, or why there is none."""
        try:
            return self.predict([sample])[0]
        except ValueError as error:
            return str(error)

    def predict(self, samples: Sequence[Sample]) -> list[Humans]:
        """The people that the model finds in these samples."""
        return _predict(self.model, samples, self.plan.protocol)

    def _result(self, sample: Sample, humans: Humans | str) -> ImageResult:
        if isinstance(humans, str):
            return ImageResult(sample.name, skipped=humans)
        return evaluate_image(self.evaluator, sample, humans)


def _predict(model: Model, samples: Sequence[Sample], protocol: Protocol) -> list[Humans]:
    Ks = [s.K if np.isfinite(s.K).all() else None for s in samples] if protocol.given_camera else None
    return model.predict_batch([s.image for s in samples], Ks, **protocol.predict_options)


def _measured(
    run: EvaluationRun,
    name: str,
    model: Any,
    folder: Path,
    devices: Sequence[str | None],
    progress: bool,
) -> BenchmarkResult:
    folder.mkdir(parents=True, exist_ok=True)
    check_settings(folder / SETTINGS, run.settings(name))
    others = _start_others(run.plan, model, folder, devices)
    run.work(folder, 0, len(devices), progress)
    _wait_for(others, devices)
    done = _done(folder)
    pictures = [picture for batch in range(len(run.batches)) for picture in done[batch]]
    return _benchmark_result(run, name, pictures)


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of a new folder, or checks that they equal those of an existing one."""
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    begun = json.loads(path.read_text(encoding="utf-8"))
    other = [f"{k} {begun.get(k)!r}, now {v!r}" for k, v in settings.items() if begun.get(k) != v]
    if other:
        raise ValueError(
            f"{path.parent} holds another evaluation ({'; '.join(other)}); choose another folder or delete it"
        )


def _start_others(plan: Plan, model: Any, folder: Path, devices: Sequence[str | None]) -> list[Any]:
    """A process for each device but the first, which is this process's own."""
    context = torch.multiprocessing.get_context("spawn")
    processes = []
    for rank in range(1, len(devices)):
        arguments = (plan, model, folder, devices[rank], rank, len(devices))
        processes.append(context.Process(target=_share, args=arguments, daemon=True))
        processes[-1].start()
    return processes


def _share(plan: Plan, model: Any, folder: Path, device: str, rank: int, world: int) -> None:
    """Main function of the process of another device."""
    EvaluationRun(plan, named_model(model, device, plan.loading)[1]).work(folder, rank, world)


def _wait_for(processes: Sequence[Any], devices: Sequence[str | None]) -> None:
    for process, device in zip(processes, devices[1:], strict=True):
        process.join()
        if process.exitcode:
            how = f"signal {-process.exitcode}" if process.exitcode < 0 else f"code {process.exitcode}"
            raise ChildProcessError(
                f"the process on {device} ended with {how}; start the same command again, the batches that "
                "are done are kept"
            )


def _done(folder: Path) -> dict[int, list[ImageResult]]:
    """Batch -> its pictures, from all lines that are complete."""
    batches = {}
    for path in sorted(folder.glob("done-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the line at which a run was killed
                continue
            batches[entry["batch"]] = [ImageResult(**picture) for picture in entry["pictures"]]
    return batches


def end_last_line(file: Any) -> None:
    """Complete the last line, which a killed run may have left unfinished."""
    file.seek(0)
    content = file.read()
    if content and not content.endswith("\n"):
        file.write("\n")


def _joined(pictures: Sequence[ImageResult]) -> tuple[np.ndarray, list[str], Counts]:
    """Rows of all people, the names of their samples, and the counts of found, missed and false people."""
    table = np.array([row for picture in pictures for row in picture.people], float).reshape(-1, len(COLUMNS))
    names = [picture.name for picture in pictures for _ in picture.people]
    keys = ("found", "missed", "false", "ignored")
    return table, names, Counts(*(sum(picture.counts[key] for picture in pictures) for key in keys))


def _benchmark_result(run: EvaluationRun, name: str, pictures: list[ImageResult]) -> BenchmarkResult:
    used = [picture for picture in pictures if not picture.skipped]
    if not used:
        raise ValueError(f"no image of {run.plan.name} can be used; the first: {pictures[0].skipped}")
    table, names, counts = _joined(used)
    settings = run.settings(name) | {"body": run.model.body.name}
    notes = (*run.data_notes, *run.evaluator.notes)
    shared = BenchmarkResult(
        run.plan.name, name, settings, counts, {}, pictures, COLUMNS, table, names, notes
    )
    motion = motion_figures((picture.name, picture.motion) for picture in used)
    if run.evaluator.rules.baseline:
        grouped = _with_groups(shared, run)
        return replace(grouped, figures=grouped.figures | motion)
    by_name = figures(table, names, counts, run.evaluator.rules) | motion
    return replace(shared, figures=by_name, bins=depth_bins(table))


def _with_groups(shared: BenchmarkResult, run: EvaluationRun) -> BenchmarkResult:
    """The result for people of the model's own body."""
    result = report.summarise(
        People.of_table(shared.table, shared.names, COLUMNS),
        shared.counts,
        model=shared.model,
        data=shared.data,
        images=shared.images,
        settings=asdict(run.plan.protocol) | {"body": run.model.body.name},
    )
    by_name = {error: getattr(result.figures, error) for error in SUMMARY_ERRORS}
    by_name |= {"precision": result.precision, "recall": result.recall, "f1": result.f1}
    return replace(shared, figures=by_name, result=result)


def _draw_worst(run: EvaluationRun, result: BenchmarkResult, folder: Path) -> None:
    """Write overlays of the worst images, the worst first, as 00_NAME.jpg, 01_NAME.jpg, ..."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    ranked = sorted(enumerate(result.pictures), key=lambda entry: -entry[1].badness)
    ranked = [(place, picture) for place, picture in ranked if not picture.skipped]
    for rank, (place, picture) in enumerate(ranked[:WORST_IMAGES]):
        sample = run.samples[run.indices[place]]
        humans = run.predict([sample])[0]
        path = folder / f"{rank:02d}_{_file_name(picture.name)}.jpg"
        Image.fromarray(humans.draw(sample.image)).save(path)


def _file_name(name: str) -> str:
    """A sample's name as part of a file's, on any system and in any locale."""
    return os.fsdecode(portable_name(name.replace("/", "_")).encode())


def _batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def bar(items: Iterator[Any], count: int | None, progress: bool, unit: str = "batch") -> Iterator[Any]:
    """The items, with a progress bar if one is wanted."""
    from tqdm import tqdm

    return iter(tqdm(items, total=count, desc="evaluate", unit=unit, disable=None if progress else True))
