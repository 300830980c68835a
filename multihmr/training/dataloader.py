"""Which sample comes when, and in which process: from data sets to the batches of each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from ..bodies.topology import Topology
from ..data.augment import Augmentation, augment
from ..data.mixture import Mixture, for_body
from ..data.sample import Sample
from .collate import Batch, collate
from .distributed import Processes, outlive_stop_signals

if TYPE_CHECKING:
    from .config import TrainConfig


@dataclass(frozen=True)
class Unusable:
    """Why a sample cannot be used: raised in another process, the sentence would drown in a traceback."""

    reason: str


class Stream(Dataset[Any]):
    """Sample number g of an endless training run: its picture and augmentation follow from g and the seed.

    Stateless, so that a resumed run sees exactly what an uninterrupted one would have seen, on any number of
    workers and processes. A sample that cannot be used is an `Unusable`.
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
    ) -> None:
        """view: how a sample is seen, as `augment` or `one_person`; in so many `views`."""
        self.mixture = mixture
        self.topology = topology
        self.image_size = image_size
        self.augmentation = augmentation
        self.keypoints_only = keypoints_only
        self.view = view
        self.views = views

    def __getitem__(self, g: int) -> Sample | list[Sample] | Unusable:
        rng = np.random.default_rng((self.mixture.seed, 1, g))
        try:
            sample = for_body(self.mixture[g], self.topology, keypoints_only=self.keypoints_only)
            return self.view(sample, self.image_size, rng, self.topology, self.augmentation)
        except (OSError, ValueError) as error:
            return Unusable(str(error))


def batches(
    stream: Stream, config: TrainConfig, start: int, processes: Processes, *, pinned: bool = False
) -> Iterator[list[Batch]]:
    """For each step from `start` on, this process' share of its samples in `config.accumulate` batches.

    pinned: in memory that a GPU copies from by itself. ValueError: a sample cannot be used, or the samples of
    a step cannot be shared evenly.
    """
    parts = processes.count * config.accumulate
    if config.batch_size % (parts * stream.views):
        raise ValueError(
            f"{processes.count} processes with {config.accumulate} batches each cannot share "
            f"{config.batch_size} pictures a step evenly; take a multiple of {parts * stream.views}"
        )
    samples = config.batch_size // stream.views
    first = start * samples + processes.rank
    loader = DataLoader(
        stream,
        batch_size=samples // parts,
        sampler=range(first, config.steps * samples, processes.count),  # type: ignore[arg-type]
        collate_fn=_collate,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        worker_init_fn=outlive_stop_signals,
        pin_memory=pinned,
    )
    return _of_steps(iter(loader), config.steps - start, config.accumulate)


def _of_steps(loaded: Iterator[Batch | Unusable], steps: int, accumulate: int) -> Iterator[list[Batch]]:
    try:
        for _ in range(steps):
            parts: list[Batch] = []
            while len(parts) < accumulate:
                batch = next(loaded)
                if isinstance(batch, Unusable):
                    raise ValueError(batch.reason)
                parts.append(batch)
            yield parts
    finally:
        del loaded  # ends its processes now, not when the last traceback is forgotten


def _collate(seen: Sequence[Sample | list[Sample] | Unusable]) -> Batch | Unusable:
    of_samples = [views if isinstance(views, list) else [views] for views in seen]
    samples = list(chain.from_iterable(of_samples))
    usable = [sample for sample in samples if isinstance(sample, Sample)]
    try:
        unusable = next((s for s in samples if isinstance(s, Unusable)), None)
        return unusable or collate(usable, views=len(of_samples[0]))
    except ValueError as error:
        return Unusable(str(error))


@contextmanager
def death_of_workers_said() -> Iterator[None]:
    """ChildProcessError in one sentence if a process that reads pictures dies within."""
    try:
        yield
    except RuntimeError as error:  # which torch may raise at any line, by a signal
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            f"a process that reads pictures died ({str(error).partition('. ')[0]}); mostly memory is short: "
            "take fewer --workers. The same command goes on from the last checkpoint"
        ) from error
