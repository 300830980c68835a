"""Training state: weights, moving average, optimizer, step, and their checkpoint file."""

from __future__ import annotations

import logging
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
from .config import current_names

if TYPE_CHECKING:
    from .config import TrainConfig

log = logging.getLogger(__name__)

# Errors of reading a file that is truncated or no checkpoint.
_READ_ERRORS = (RuntimeError, EOFError, KeyError, pickle.UnpicklingError)


class TrainState:
    """Everything that a run is resumed from: weights, their moving average, optimizer, loss scale, step."""

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
        self.turned_R = torch.zeros(len(topology.pose_names), dtype=torch.bool)  # moved by any person so far
        self.acted_E = torch.zeros(len(topology.expression_names), dtype=torch.bool)

    def learning_rate_factor(self) -> float:
        """Factor on the learning rate at this step: linear warm-up, then a cosine down to 1 %."""
        progress = (self.step - self.config.warmup) / max(1, self.config.steps - self.config.warmup)
        if progress < 0:
            return (self.step + 1) / self.config.warmup
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    @torch.no_grad()
    def update_ema(self) -> None:
        """Update the exponential moving average of the weights."""
        # Faster decay at first, so that the average forgets the random start.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name].copy_(value)

    def record_motion(self, batches: Sequence[Batch]) -> None:
        """Record which joints and facial actions move in these batches; unknown ones count as still."""
        for batch in batches:
            turns_PR33 = batch.pose_PR33 - torch.eye(3)
            self.turned_R |= (turns_PR33.abs() > 1e-3).flatten(2).any(-1).any(0)
            self.acted_E |= (batch.expression_PE.abs() > 1e-3).any(0)

    def unmoved_names(self) -> tuple[str, ...]:
        """Joints and facial actions that never moved, which the network could therefore not learn."""
        topology = self.model.body.topology
        names = (*topology.pose_names, *topology.expression_names)
        moved = torch.cat([self.turned_R, self.acted_E]).tolist()
        return tuple(name for name, moves in zip(names, moved, strict=True) if not moves)

    def save(self, path: Path) -> None:
        """Write a checkpoint atomically.

        Raises:
            OSError: it cannot be written; the previous one is intact.
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
            before = "the previous one is intact" if path.exists() else "there is no previous one"
            raise OSError(
                f"the checkpoint of step {self.step} cannot be written to {path} ({reason}); {before}: free "
                "space and run the same command again"
            ) from error

    def load(self, path: Path) -> None:
        """Resume from a checkpoint.

        Settings of the run that differ from the checkpoint's are logged; of these the present ones count.

        Raises:
            ValueError: it is damaged, or of a network of another size; both are named.
        """
        try:
            content = torch.load(path, map_location=self.model.device, weights_only=True)
            weights = dict(CurrentNames(content["model"], self.model))
            step, _ = content["step"], content["moved"]
        except _READ_ERRORS as error:
            raise ValueError(
                f"{path} is damaged or no checkpoint ({_first_line(error)}); move it away to start a new run"
            ) from error
        self._check_size(path, content, weights)
        self.model.load_state_dict(weights)
        try:
            self.optimizer.load_state_dict(content["optimizer"])
        except ValueError as error:
            raise ValueError(
                f"{path} trained other parts of the network (--freeze-stages); resume with the flags of the "
                "original run, or choose another --out"
            ) from error
        if content.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(content["scaler"])
        self.ema = dict(CurrentNames(content["ema"], self.model))
        self.turned_R, self.acted_E = (moved.cpu() for moved in content["moved"])
        self._log_changes(content.get("config", {}))
        self.step = step

    def _log_changes(self, before: dict[str, Any]) -> None:
        before, now = current_names(before), asdict(self.config)
        changed = [name for name in now if name in before and before[name] != now[name]]
        if changed:
            texts = (f"{name} {before[name]!r} -> {now[name]!r}" for name in changed)
            log.info("settings that differ from the checkpoint's: %s", ", ".join(texts))

    def _check_size(self, path: Path, content: dict[str, Any], weights: dict[str, Tensor]) -> None:
        own = self.model.state_dict()
        if {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in own.items()}:
            return
        there = content.get("size") or f"{sum(map(torch.numel, weights.values())) / 1e6:.1f} M numbers"
        raise ValueError(
            f"{path} holds a network of {there}, but this run trains one of {size_of(self.model)}; use the "
            "flags of the original run, or choose another --out"
        )


def size_of(model: Network) -> str:
    """Backbone, image size and number of parameters, for messages."""
    numbers = sum(map(torch.numel, model.state_dict().values()))
    return f"{model.config.backbone} at {model.config.image_size} pixels ({numbers / 1e6:.1f} M numbers)"


def _parameter_groups(model: Network, config: TrainConfig) -> list[dict[str, Any]]:
    """Pretrained layers have a lower learning rate; biases, norms and embeddings no weight decay."""
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
