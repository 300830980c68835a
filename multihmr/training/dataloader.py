"""Data loading: `TrainDataset`, and the batches of each optimizer step on each process."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from ..bodies.topology import Topology
from ..data.augment import Augmentation, augment
from ..data.mixture import Mixture, for_body
from ..data.sample import Sample
from ..preprocessing.letterbox import shortest_side
from .collate import Batch, collate
from .distributed import Distributed, survive_stop_signals

if TYPE_CHECKING:
    from .config import TrainConfig

log = logging.getLogger(__name__)

MAX_REPLACEMENTS = 50  # samples in a row that may be unreadable
MAX_DROPPED_SHARE = 0.1  # of the samples that may be unreadable before a run stops
MAX_LOGGED = 20  # sentences about unreadable samples that are logged


@dataclass(frozen=True)
class BadSample:
    """A sample that cannot be used, with the reason.

    A value and not an exception: raised in a worker process, the sentence would drown in a traceback.
    """

    reason: str


@dataclass(frozen=True)
class Loaded:
    """What `TrainDataset.load` returns.

    Attributes:
        sample: the augmented sample, or several views of it, or why there is none.
        dropped: why samples that came before it could not be read, one sentence each.
    """

    sample: Sample | list[Sample] | BadSample
    dropped: tuple[str, ...] = ()


class TrainDataset(Dataset[Any]):
    """Augmented samples of an endless training run: sample g follows from g and the seed alone.

    Stateless, so that a resumed run gets exactly the samples of an uninterrupted one, on any number of
    workers and distributed. A sample that cannot be used is a `BadSample`.
    """

    def __init__(
        self,
        mixture: Mixture,
        topology: Topology,
        image_size: int,
        augmentation: Augmentation | None = None,
        *,
        keypoints_only: bool = False,
        view: Callable[..., Sample | list[Sample]] = augment,
        views: int = 1,
        shapes: Sequence[tuple[int, int]] = (),
        samples_a_step: int = 1,
    ) -> None:
        """
        Args:
            mixture: the samples by number.
            topology: of the body that is trained.
            image_size: side of the network input in pixels.
            augmentation: None for the defaults.
            keypoints_only: use only the keypoints of samples with another body.
            view: augmentation function, `augment` or one of data/person_crops.py.
            views: number of samples that `view` returns.
            shapes: (height, width) of windows, of which each optimizer step gets one at random; none for
                squares of `image_size` pixels.
            samples_a_step: number of samples of an optimizer step, over all processes.
        """
        self.mixture = mixture
        self.topology = topology
        self.image_size = image_size
        self.augmentation = augmentation
        self.keypoints_only = keypoints_only
        self.view = view
        self.views = views
        self.shapes = tuple(shapes)
        self.samples_a_step = samples_a_step

    def __getitem__(self, g: int) -> Sample | list[Sample] | BadSample:
        return self.load(g).sample

    def __getitems__(self, numbers: Sequence[int]) -> list[Loaded]:
        """What a DataLoader calls for a batch."""
        return [self.load(g) for g in numbers]

    def load(self, g: int) -> Loaded:
        """Sample g; one that cannot be read is replaced by the next readable one of its data set."""
        rng = np.random.default_rng((self.mixture.seed, 1, g))
        source, number = self.mixture.place(g)
        dropped: list[str] = []
        for k in range(min(MAX_REPLACEMENTS, len(source.samples))):
            try:
                sample = self.mixture.read(source, (number + k) % len(source.samples))
                break
            except ValueError as error:
                dropped.append(str(error))
        else:
            return Loaded(BadSample(dropped[0]))
        try:
            sample = for_body(sample, self.topology, keypoints_only=self.keypoints_only)
            view = self.view(sample, self.window(g), rng, self.topology, self.augmentation)
        except (OSError, ValueError) as error:
            return Loaded(BadSample(str(error)))
        return Loaded(view, tuple(dropped))

    def window(self, g: int) -> int | tuple[int, int]:
        """Side of the square, or (height, width), of the window of sample g [pixels]."""
        if not self.shapes:
            return self.image_size
        rng = np.random.default_rng((self.mixture.seed, 2, g // self.samples_a_step))
        return self.shapes[rng.integers(len(self.shapes))]


def window_shapes(size: int, multiple: int) -> list[tuple[int, int]]:
    """(height, width) of the windows that a network with this longer side is trained on [pixels].

    A fifth are squares, the others as many landscapes as portraits.
    """
    shorter = range(shortest_side(size, multiple), size, multiple)
    oblong = [shape for side in shorter for shape in ((side, size), (size, side))]
    return oblong + [(size, size)] * max(1, len(oblong) // 4)


def batches(
    dataset: TrainDataset, config: TrainConfig, start: int, distributed: Distributed, *, pinned: bool = False
) -> Iterator[list[Batch]]:
    """Yield this process' batches of each step from `start` on, `config.accumulate` per step.

    Args:
        dataset: the samples.
        config: of the run.
        start: first step.
        distributed: the process group.
        pinned: load into page-locked memory, for copies to a GPU.

    Raises:
        ValueError: a sample cannot be used, or the samples of a step cannot be shared evenly.
    """
    parts = distributed.count * config.accumulate
    if config.batch_size % (parts * dataset.views):
        raise ValueError(
            f"{distributed.count} processes with {config.accumulate} batches each cannot share "
            f"{config.batch_size} pictures a step evenly; take a multiple of {parts * dataset.views}"
        )
    samples = config.batch_size // dataset.views
    first = start * samples + distributed.rank
    loader = DataLoader(
        dataset,
        batch_size=samples // parts,
        sampler=range(first, config.steps * samples, distributed.count),  # type: ignore[arg-type]
        collate_fn=_collate,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        worker_init_fn=survive_stop_signals,
        pin_memory=pinned,
    )
    return _of_steps(iter(loader), config.steps - start, config.accumulate)


def _of_steps(loaded: Iterator[Batch | BadSample], steps: int, accumulate: int) -> Iterator[list[Batch]]:
    dropped = Dropped()
    try:
        for _ in range(steps):
            parts: list[Batch] = []
            while len(parts) < accumulate:
                batch = next(loaded)
                if isinstance(batch, BadSample):
                    raise ValueError(batch.reason)
                dropped.count(batch)
                parts.append(batch)
            yield parts
    finally:
        dropped.report()
        del loaded  # ends its processes now, not when the last traceback is forgotten


class Dropped:
    """Counts the samples of a process that cannot be read, and stops a run in which they are many."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.samples = 0

    def count(self, batch: Batch) -> None:
        """Count those of a batch; each reason is logged when it is first met.

        Raises:
            ValueError: more than MAX_DROPPED_SHARE of the samples cannot be read.
        """
        self.samples += len(batch)
        for reason in batch.dropped:
            if reason not in self.reasons and len(self.reasons) < MAX_LOGGED:
                log.warning("sample left out: %s", reason)
            self.reasons[reason] += 1
        total = self.reasons.total()
        if total > max(MAX_LOGGED, MAX_DROPPED_SHARE * self.samples):
            raise ValueError(
                f"{total} of {self.samples} training samples cannot be read, the first because of: "
                f"{next(iter(self.reasons))}; repair or remove them"
            )

    def report(self) -> None:
        """Log how often samples were left out, by reason."""
        if self.reasons:
            common = "; ".join(
                f"{count} x {reason}" for reason, count in self.reasons.most_common(MAX_LOGGED)
            )
            log.warning("samples left out while training: %d (%s)", self.reasons.total(), common)


def _collate(loaded: Sequence[Loaded]) -> Batch | BadSample:
    bad = next((entry.sample for entry in loaded if isinstance(entry.sample, BadSample)), None)
    if bad is not None:
        return bad
    views: Any = [entry.sample if isinstance(entry.sample, list) else [entry.sample] for entry in loaded]
    try:
        batch = collate(list(chain.from_iterable(views)), views=len(views[0]))
    except ValueError as error:
        return BadSample(str(error))
    return replace(batch, dropped=tuple(chain.from_iterable(entry.dropped for entry in loaded)))


@contextmanager
def worker_death_reported() -> Iterator[None]:
    """Context that turns the death of a data loading process into a one-sentence ChildProcessError."""
    try:
        yield
    except RuntimeError as error:  # which torch may raise at any line, by a signal
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            f"a data loading process died ({str(error).partition('. ')[0]}); usually memory is "
            "short: use fewer --workers. The same command resumes from the last checkpoint"
        ) from error
