"""Journal: what a run says of itself, by a bar, in TensorBoard, and in log.jsonl for everything else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    from .config import TrainConfig

Item = TypeVar("Item")


class Journal:
    """Notes of every `config.log_every` steps from `start` on: the loss terms and

    pictures_per_second  of all processes together
    waiting              share of the time in which this process had nothing to do but wait for pictures
    left_out             people since the start who were no target: hidden heads, nobody in the window

    writes: whether this process notes anything. bar: whether it shows one, None on a terminal. ImportError
    without TensorBoard.
    """

    def __init__(
        self, out: Path, config: TrainConfig, start: int, *, writes: bool = True, bar: bool | None = None
    ) -> None:
        self.summary = ""  # of the last note
        self._config = config
        self._left_out = self._waited = 0.0
        self._noted = (start, time.perf_counter())
        self._writer: Any = _summary_writer(out) if writes else None
        self._file = (out / "log.jsonl").open("a") if writes else None
        hidden = (None if bar is None else not bar) if writes else True
        self._bar = tqdm(total=config.steps, initial=start, disable=hidden)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._file is not None:
            self._writer.close()
            self._file.close()

    def timed(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; the time until each comes counts as waiting."""
        iterator = iter(items)
        while True:
            begun = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - begun
            yield item

    def note(self, step: int, terms: dict[str, float]) -> None:
        """After each step: its terms, with "total" and "left_out"."""
        self._bar.update()
        self._left_out += terms["left_out"]
        if step % self._config.log_every or self._file is None:
            return
        now, (before, at) = time.perf_counter(), self._noted
        notes = {
            **terms,
            "pictures_per_second": (step - before) * self._config.batch_size / (now - at),
            "waiting": self._waited / (now - at),
            "left_out": self._left_out,
        }
        self._noted, self._waited = (step, now), 0.0
        for name, value in notes.items():
            self._writer.add_scalar(name, value, step)
        self._file.write(json.dumps({"step": step, **notes}) + "\n")
        self._file.flush()
        self._bar.set_postfix_str(
            f"loss {terms['total']:.2f}, {notes['pictures_per_second']:.1f} pictures/s, "
            f"{notes['waiting']:.0%} waiting for them",
            refresh=False,
        )
        self.summary = f"step {step}: " + ", ".join(f"{name} {value:.3g}" for name, value in notes.items())


def _summary_writer(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("training writes TensorBoard logs: pip install 'multihmr[train]'") from error
    return SummaryWriter(str(out))
