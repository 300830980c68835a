"""Distributed training: process group, gradient averaging, and signals that stop a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

GRACE_SECONDS = 20  # data loading processes outlive SIGTERM by that


@dataclass(frozen=True)
class Distributed:
    """The process group of a training run; a single process unless `torchrun` started several.

    Attributes:
        rank: number of this process.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @staticmethod
    def join(device: torch.device) -> Distributed:
        """Initialise the process group if torchrun started this process."""
        if not distributed.is_torchelastic_launched():
            return Distributed()
        if device.type == "cuda":
            torch.cuda.set_device(distributed.get_node_local_rank())
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return Distributed(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module in DistributedDataParallel: gradients are averaged over all processes in `backward`."""
        return module if self.count == 1 else DistributedDataParallel(module)

    def keep_gradients(self, module: nn.Module, keep: bool) -> AbstractContextManager[Any]:
        """Context in which gradients of a wrapped module accumulate locally, if `keep`."""
        return module.no_sync() if keep and isinstance(module, DistributedDataParallel) else nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether `here` holds in any process."""
        return bool(self.sum(torch.tensor(float(here), device=device)) > 0) if self.count > 1 else here

    def close(self) -> None:
        """Leave the process group."""
        if self.count > 1:
            distributed.destroy_process_group()


@dataclass
class StopSignal:
    """Context in which the first SIGTERM or SIGINT only sets `received`; a second one stops at once."""

    received: str = ""
    _before: dict[int, Any] = field(default_factory=dict)

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # others must not set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore(self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore(list(self._before))

    def _restore(self, numbers: Iterable[int]) -> None:
        for number in list(numbers):
            signal.signal(number, self._before.pop(number))


def survive_stop_signals(*_: object) -> None:
    """Signal set-up of data loading processes, which the training process needs to finish its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))
