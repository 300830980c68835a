"""Measures a model on benchmarks: batch by batch, on all devices, and from where a killed run stopped.

Every batch that is done lies on disk as one line. A run that is started again reads those lines and does the
rest; batches are always cut alike, so the figures are the same whoever did which batch, and when.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.dataset import PoseDataset
from ..networks.base import fingerprint
from . import report
from .benchmarks import BENCHMARKS, compare_meshes, first_with_people, open_samples
from .evaluator import Referee, Rules, depth_bins, figures
from .protocol_files import ProtocolFiles
from .report import ERRORS, Counts, People
from .results import Picture, Score
from .synthetic_benchmark import Judge, Protocol, named_model

if TYPE_CHECKING:
    from ..data.sample import Sample
    from ..humans import Humans
    from ..model import Model

SETTINGS = "settings.json"
WORST = 10
READ_AHEAD = 2  # batches


@dataclass(frozen=True)
class Plan:
    """What is measured on which data, in words that another process understands.

    data: a name of `BENCHMARKS`, "synth-test" or a folder of shards. root: where the benchmarks' data lie.
    count, every: only the first `count` of every `every`-th picture.
    """

    data: str
    root: Path | None = None
    count: int | None = None
    every: int = 1
    protocol: Protocol = field(default_factory=Protocol)

    @property
    def name(self) -> str:
        """What tables and folders call the data."""
        return self.data if self.data in BENCHMARKS else Path(self.data).name


def measure(
    model: str | Model | None,
    plan: Plan,
    *,
    out: Path | None = None,
    devices: Sequence[str | None] = (None,),
    progress: bool = False,
) -> Score:
    """The score of a model (its name or path, itself, or None for the default) on one benchmark.

    out: a folder for the score, its tables, the worst pictures and the work that is done; started again with
    the same one, the rest is done. devices: one process each; more than one need a model by its name.

    Raises:
        FileNotFoundError: the data, or a body that the truth is told in, is not there; what to get is said.
        ValueError: `out` holds another evaluation, or no picture can be used.
        ChildProcessError: the process of another device ended early; what was done is kept.
    """
    name, network = named_model(model, devices[0])
    if len(devices) > 1 and not (model is None or isinstance(model, str)):
        raise ValueError("several devices need a model by its name or path, which each process loads")
    contest = Contest(plan, network)
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            return _measured(contest, name, model, Path(folder), devices, progress)
    score = _measured(contest, name, model, out, devices, progress)
    score.save(out)
    _draw_worst(contest, score, out / "worst")
    return score


def devices_of(named: str | None) -> list[str | None]:
    """Those named, joined by commas; without a name all GPUs there are, or the best device."""
    if named is not None:
        return [name.strip() for name in named.split(",")]
    count = torch.cuda.device_count()
    return [f"cuda:{i}" for i in range(count)] if count > 1 else [None]


class Contest:
    """A model, the samples it is measured on, and who judges."""

    def __init__(self, plan: Plan, network: Model) -> None:
        self.plan, self.network = plan, network
        self.samples = open_samples(plan.data, plan.root, plan.count)
        self.indices = range(0, len(self.samples), plan.every)[: plan.count]
        size = plan.protocol.batch_size
        self.batches = [self.indices[i : i + size] for i in range(0, len(self.indices), size)]
        self.rules = _rules(plan)
        self.referee = self._referee()

    def _referee(self) -> Referee | OwnReferee:
        first = first_with_people(self.samples)
        body, benchmark = self.network.body, BENCHMARKS.get(self.plan.data)
        if benchmark is None and first.body == body.name:
            return OwnReferee(Judge(body, self.plan.protocol))
        from ..storage.paths import cache_folder

        roots = [root for root in (self.plan.root, cache_folder(), Path("weights")) if root is not None]
        compare = benchmark.compare if benchmark else compare_meshes
        return Referee(compare(body, ProtocolFiles(*roots), first), self.rules)

    def settings(self, name: str) -> dict[str, Any]:
        """What must be the same for two runs to be one evaluation."""
        return {
            "model": name,
            "weights": fingerprint(self.network),
            "data": str(self.plan.data),
            "pictures": len(self.indices),
            "every": self.plan.every,
            "protocol": asdict(self.plan.protocol),
            "columns": list(self.referee.columns),
        }

    def work(self, folder: Path, rank: int = 0, world: int = 1, progress: bool = False) -> None:
        """Does this process's share of the batches that are not done yet, one line of a file each."""
        done = set(_done(folder))
        mine = [batch for batch in range(rank, len(self.batches), world) if batch not in done]
        with (folder / f"done-{rank}.jsonl").open("a+") as file:
            _end_last_line(file)
            for batch, samples in _bar(self._read(mine), len(mine), progress):
                pictures = [asdict(picture) for picture in self._judged(samples)]
                file.write(json.dumps({"batch": batch, "pictures": pictures}) + "\n")
                file.flush()

    def _read(self, batches: Sequence[int]) -> Iterator[tuple[int, list[Sample | Picture]]]:
        """Number and samples of each batch; files of the next one are read while one is predicted."""
        if not isinstance(self.samples, PoseDataset):  # a renderer is not for several threads
            for batch in batches:
                yield batch, [self._sample(index) for index in self.batches[batch]]
            return
        with ThreadPoolExecutor(4) as threads:
            waiting: list[Any] = []
            for place in range(len(batches) + READ_AHEAD):
                if place < len(batches):
                    indices = self.batches[batches[place]]
                    waiting.append([threads.submit(self._sample, index) for index in indices])
                if place >= READ_AHEAD:
                    done = [future.result() for future in waiting.pop(0)]
                    yield batches[place - READ_AHEAD], done

    def _sample(self, index: int) -> Sample | Picture:
        """The sample, or what became of it if it cannot be read."""
        try:
            return self.samples[index]
        except (ValueError, OSError) as error:
            return Picture(f"number {index}", skipped=str(error))

    def _judged(self, samples: Sequence[Sample | Picture]) -> list[Picture]:
        readable = [sample for sample in samples if not isinstance(sample, Picture)]
        try:
            found: list[Humans | str] = list(self.predicted(readable))
        except ValueError:  # one of them has no usable camera or picture: each by itself
            found = [self._alone(sample) for sample in readable]
        judged = iter(map(self._picture, readable, found))
        return [sample if isinstance(sample, Picture) else next(judged) for sample in samples]

    def _alone(self, sample: Sample) -> Humans | str:
        try:
            return self.predicted([sample])[0]
        except ValueError as error:
            return str(error)

    def predicted(self, samples: Sequence[Sample]) -> list[Humans]:
        """Who the model finds in these samples."""
        protocol = self.plan.protocol
        Ks = [s.K if np.isfinite(s.K).all() else None for s in samples] if protocol.given_camera else None
        return self.network.predict_batch([s.image for s in samples], Ks, **protocol.of_predict)

    def _picture(self, sample: Sample, humans: Humans | str) -> Picture:
        if isinstance(humans, str):
            return Picture(sample.name, skipped=humans)
        table, counts = self.referee(sample, humans)
        mpjpe = np.nan_to_num(table[:, self.referee.columns.index("mpjpe")], posinf=1e6).sum()
        badness = float(mpjpe + 1000 * (counts.missed + counts.false))
        return Picture(sample.name, table.tolist(), asdict(counts), badness)


class OwnReferee:
    """Our own protocol, with baseline and groups, for people of the model's own body."""

    columns = report.PEOPLE_COLUMNS
    notes: tuple[str, ...] = ()

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def __call__(self, sample: Sample, humans: Any) -> tuple[np.ndarray, Counts]:
        people, counts = self.judge(sample, humans)
        return people.table(), counts


def _rules(plan: Plan) -> Rules:
    if plan.data in BENCHMARKS:
        return BENCHMARKS[plan.data].rules
    return Rules(min_visibility=plan.protocol.min_visibility, iou_threshold=plan.protocol.iou_threshold)


def _measured(
    contest: Contest,
    name: str,
    model: Any,
    folder: Path,
    devices: Sequence[str | None],
    progress: bool,
) -> Score:
    folder.mkdir(parents=True, exist_ok=True)
    _check_settings(folder / SETTINGS, contest.settings(name))
    others = _start_others(contest.plan, model, folder, devices)
    contest.work(folder, 0, len(devices), progress)
    _wait_for(others, devices)
    done = _done(folder)
    pictures = [picture for batch in range(len(contest.batches)) for picture in done[batch]]
    return _score(contest, name, pictures)


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Writes what is measured, or compares with what the folder was begun for."""
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        path.write_text(json.dumps(settings, indent=2) + "\n")
        return
    begun = json.loads(path.read_text())
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
    """What the process of another device does."""
    Contest(plan, named_model(model, device)[1]).work(folder, rank, world)


def _wait_for(processes: Sequence[Any], devices: Sequence[str | None]) -> None:
    for process, device in zip(processes, devices[1:], strict=True):
        process.join()
        if process.exitcode:
            how = f"signal {-process.exitcode}" if process.exitcode < 0 else f"code {process.exitcode}"
            raise ChildProcessError(
                f"the process on {device} ended with {how}; start the same command again, the batches that "
                "are done are kept"
            )


def _done(folder: Path) -> dict[int, list[Picture]]:
    """Batch -> its pictures, from all lines that are complete."""
    batches = {}
    for path in sorted(folder.glob("done-*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the line at which a run was killed
                continue
            batches[entry["batch"]] = [Picture(**picture) for picture in entry["pictures"]]
    return batches


def _end_last_line(file: Any) -> None:
    """A run that was killed while it wrote leaves half a line."""
    file.seek(0)
    content = file.read()
    if content and not content.endswith("\n"):
        file.write("\n")


def _score(contest: Contest, name: str, pictures: list[Picture]) -> Score:
    used = [picture for picture in pictures if not picture.skipped]
    if not used:
        raise ValueError(f"no picture of {contest.plan.name} can be used; the first: {pictures[0].skipped}")
    columns = contest.referee.columns
    rows = [row for picture in used for row in picture.people]
    table = np.array(rows, float).reshape(-1, len(columns))
    names = [picture.name for picture in used for _ in picture.people]
    counts = Counts(*(sum(p.counts[key] for p in used) for key in ("found", "missed", "false", "ignored")))
    settings = contest.settings(name) | {"body": contest.network.body.name}
    shared = Score(
        contest.plan.name, name, settings, counts, {}, pictures, columns, table, names, contest.referee.notes
    )
    if isinstance(contest.referee, OwnReferee):
        return _own_score(shared, contest)
    by_name = figures(table, names, counts, contest.rules)
    return replace(shared, figures=by_name, bins=depth_bins(table))


def _own_score(score: Score, contest: Contest) -> Score:
    protocol = asdict(contest.plan.protocol)
    result = report.summarise(
        People.of_table(score.table, score.names),
        score.counts,
        model=score.model,
        data=score.data,
        images=score.images,
        settings=protocol | {"body": contest.network.body.name},
    )
    by_name = {error: getattr(result.figures, error) for error in ERRORS}
    by_name |= {"precision": result.precision, "recall": result.recall, "f1": result.f1}
    return replace(score, figures=by_name, result=result)


def _draw_worst(contest: Contest, score: Score, folder: Path) -> None:
    """Overlays of the worst pictures, the worst first, as 00_NAME.jpg, 01_NAME.jpg, ..."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    ranked = sorted(enumerate(score.pictures), key=lambda entry: -entry[1].badness)
    ranked = [(place, picture) for place, picture in ranked if not picture.skipped]
    for rank, (place, picture) in enumerate(ranked[:WORST]):
        sample = contest.samples[contest.indices[place]]
        humans = contest.predicted([sample])[0]
        name = picture.name.replace("/", "_")
        Image.fromarray(humans.draw(sample.image)).save(folder / f"{rank:02d}_{name}.jpg")


def _bar(items: Iterator[Any], count: int, progress: bool) -> Iterator[Any]:
    from tqdm import tqdm

    return iter(tqdm(items, total=count, desc="evaluate", unit="batch", disable=None if progress else True))
