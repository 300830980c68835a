"""TrainState: what a checkpoint holds and an interrupted run goes on from."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..hub.checkpoint import CurrentNames
from ..networks.base import Network
from ..storage.atomic import atomic_path
from .collate import Batch

if TYPE_CHECKING:
    from .config import TrainConfig

# What reading a file that is cut short, or no checkpoint, ends in.
_READ_ERRORS = (RuntimeError, EOFError, KeyError, pickle.UnpicklingError)


class TrainState:
    """Weights, their moving average, optimiser, loss scale, step."""

    def __init__(self, model: Network, config: TrainConfig) -> None:
        self.model = model.train()
        self.config = config
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(model, config), lr=config.lr, weight_decay=config.weight_decay
        )
        # Gradients in fp16 are lost below 6e-8 unless the loss is scaled; bf16 reaches as far as float32.
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=config.precision == "fp16")
        self.ema = {name: value.detach().clone() for name, value in model.state_dict().items()}
        topology = model.body.topology
        self.turned_R = torch.zeros(len(topology.pose_names), dtype=torch.bool)  # by anybody, so far
        self.acted_E = torch.zeros(len(topology.expression_names), dtype=torch.bool)

    def learning_rate_factor(self) -> float:
        """Linear warm-up, then a cosine down to 1 %."""
        progress = (self.step - self.config.warmup) / max(1, self.config.steps - self.config.warmup)
        if progress < 0:
            return (self.step + 1) / self.config.warmup
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    @torch.no_grad()
    def update_ema(self) -> None:
        # A short memory at first, so that the average does not drag the random start along.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name].copy_(value)

    def see(self, batches: Sequence[Batch]) -> None:
        """Note which joints and facial actions people of this process move; unknown ones are not moved."""
        for batch in batches:
            turns_PR33 = batch.pose_PR33 - torch.eye(3)
            self.turned_R |= (turns_PR33.abs() > 1e-3).flatten(2).any(-1).any(0)
            self.acted_E |= (batch.expression_PE.abs() > 1e-3).any(0)

    def unmoved_names(self) -> tuple[str, ...]:
        """Joints and facial actions that nobody moved: of these the network could learn nothing."""
        topology = self.model.body.topology
        names = (*topology.pose_names, *topology.expression_names)
        moved = torch.cat([self.turned_R, self.acted_E]).tolist()
        return tuple(name for name, moves in zip(names, moved, strict=True) if not moves)

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file gets its name only when all of it is on the disk.

        OSError: it cannot be written; the previous one stays as it was.
        """
        content = {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "moved": (self.turned_R, self.acted_E),
            "config": asdict(self.config),
            "size": size_of(self.model),
        }
        try:
            with atomic_path(path, sync=True) as draft, draft.open("wb") as file:
                torch.save(content, file)
        except (
            OSError,
            RuntimeError,
        ) as error:  # torch raises the second, of few words, when the disk is full
            reason = error.strerror if isinstance(error, OSError) else "is the disk full?"
            before = "the one of before is whole" if path.exists() else "there is none of before"
            raise OSError(
                f"the checkpoint of step {self.step} cannot be written to {path} ({reason}); {before}: make "
                "room and run the same command again"
            ) from error

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        ValueError: it is damaged, or of a network of another size; both are named.
        """
        try:
            content = torch.load(path, map_location=self.model.device, weights_only=True)
            weights = dict(CurrentNames(content["model"], self.model))
            step, _ = content["step"], content["moved"]
        except _READ_ERRORS as error:
            raise ValueError(
                f"{path} is damaged or no checkpoint ({_first_line(error)}); move it away to start anew"
            ) from error
        self._check_size(path, content, weights)
        self.model.load_state_dict(weights)
        try:
            self.optimizer.load_state_dict(content["optimizer"])
        except ValueError as error:
            raise ValueError(
                f"{path} trained other parts of the network (--freeze-stages); go on with the flags that it "
                "was begun with, or take another --out"
            ) from error
        if content.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(content["scaler"])
        self.ema = dict(CurrentNames(content["ema"], self.model))
        self.turned_R, self.acted_E = (moved.cpu() for moved in content["moved"])
        self.step = step

    def _check_size(self, path: Path, content: dict[str, Any], weights: dict[str, Tensor]) -> None:
        own = self.model.state_dict()
        if {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in own.items()}:
            return
        there = content.get("size") or f"{sum(map(torch.numel, weights.values())) / 1e6:.1f} M numbers"
        raise ValueError(
            f"{path} holds a network of {there}, but this run trains one of {size_of(self.model)}; give the "
            "flags that it was begun with, or take another --out"
        )


def size_of(model: Network) -> str:
    """The size of a network in words."""
    numbers = sum(map(torch.numel, model.state_dict().values()))
    return f"{model.config.backbone} at {model.config.image_size} pixels ({numbers / 1e6:.1f} M numbers)"


def _parameter_groups(model: Network, config: TrainConfig) -> list[dict[str, Any]]:
    """Pretrained parts learn slower; biases, norms and tables are not decayed."""
    pretrained = ("backbone.stem.", "backbone.vit.")
    groups: dict[tuple[bool, bool], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and "rows" not in name and "cols" not in name
            groups.setdefault((name.startswith(pretrained), decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "factor": config.backbone_lr_scale if slow else 1.0,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (slow, decays), parameters in groups.items()
    ]


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
