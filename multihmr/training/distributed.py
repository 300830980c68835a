"""The processes of a run: what they tell each other, and the signals that ask them to stop."""

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

GRACE_SECONDS = 20  # that processes which read pictures live on after SIGTERM


@dataclass(frozen=True)
class Processes:
    """The processes of one training run; alone unless `torchrun` started several."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def join(device: torch.device) -> Processes:
        """Meet the others that torchrun started."""
        if not distributed.is_torchelastic_launched():
            return Processes()
        if device.type == "cuda":
            torch.cuda.set_device(distributed.get_node_local_rank())
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return Processes(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, module: nn.Module) -> nn.Module:
        """The module, whose gradients are the mean over all processes after `backward`."""
        return module if self.count == 1 else DistributedDataParallel(module)

    def keep_gradients(self, module: nn.Module, keep: bool) -> AbstractContextManager[Any]:
        """Within it, gradients of `share`d modules add up without being sent, if `keep`."""
        return module.no_sync() if keep and isinstance(module, DistributedDataParallel) else nullcontext()

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether it is so in any of the processes."""
        return bool(self.total(torch.tensor(float(here), device=device)) > 0) if self.count > 1 else here

    def leave(self) -> None:
        if self.count > 1:
            distributed.destroy_process_group()


@dataclass
class StopSignal:
    """Within it, the first SIGTERM or SIGINT only sets `asked`, its name; the second one stops at once."""

    asked: str = ""
    _before: dict[int, Any] = field(default_factory=dict)

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # others must not set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore(self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = signal.Signals(number).name
        self._restore(list(self._before))

    def _restore(self, numbers: Iterable[int]) -> None:
        for number in list(numbers):
            signal.signal(number, self._before.pop(number))


def outlive_stop_signals(*_: object) -> None:
    """For processes that read pictures: the one that trains needs them still when all are told to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))
