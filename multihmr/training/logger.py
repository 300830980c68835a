"""Logging of a training run: progress bar, TensorBoard and log.jsonl."""

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


class Logger:
    """Logs a training run every `config.log_every` steps.

    Logged are the loss terms and
      pictures_per_second  over all processes
      waiting              share of the time that this process waited for data
      left_out             people since the start that gave no target: head unknown or outside the window
      dropped              samples since the start that could not be used

    Args:
        out: folder for log.jsonl and the TensorBoard files.
        config: of the run.
        start: step at which the run begins or resumes.
        writes: whether this process writes logs.
        bar: whether it shows a progress bar; None shows one on a terminal.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(
        self, out: Path, config: TrainConfig, start: int, *, writes: bool = True, bar: bool | None = None
    ) -> None:
        self.summary = ""  # of the last entry
        self._config = config
        self._left_out = self._dropped = self._waited = 0.0
        self._logged = (start, time.perf_counter())
        self._writer: Any = _summary_writer(out) if writes else None
        self._file = (out / "log.jsonl").open("a", encoding="utf-8") if writes else None
        hidden = (None if bar is None else not bar) if writes else True
        self._bar = tqdm(total=config.steps, initial=start, disable=hidden)

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._file is not None:
            self._writer.close()
            self._file.close()

    def timed(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the same items; the time until each arrives counts as waiting."""
        iterator = iter(items)
        while True:
            begun = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - begun
            yield item

    def log_step(self, step: int, terms: dict[str, float]) -> None:
        """Log one step.

        Args:
            step: number of the finished step.
            terms: its loss terms, "total", "left_out" and "dropped".
        """
        self._bar.update()
        self._left_out += terms["left_out"]
        self._dropped += terms["dropped"]
        if step % self._config.log_every or self._file is None:
            return
        now, (before, at) = time.perf_counter(), self._logged
        entry = {
            **terms,
            "pictures_per_second": (step - before) * self._config.batch_size / (now - at),
            "waiting": self._waited / (now - at),
            "left_out": self._left_out,
            "dropped": self._dropped,
        }
        self._logged, self._waited = (step, now), 0.0
        for name, value in entry.items():
            self._writer.add_scalar(name, value, step)
        self._file.write(json.dumps({"step": step, **entry}) + "\n")
        self._file.flush()
        self._bar.set_postfix_str(
            f"loss {terms['total']:.2f}, {entry['pictures_per_second']:.1f} pictures/s, "
            f"{entry['waiting']:.0%} waiting for data",
            refresh=False,
        )
        self.summary = f"step {step}: " + ", ".join(f"{name} {value:.3g}" for name, value in entry.items())


def _summary_writer(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("training writes TensorBoard logs: pip install 'multihmr[train]'") from error
    return SummaryWriter(str(out))
