"""Time of each stage of a prediction, measured by forward hooks of a network's modules.

The modules run unchanged; no part of a network is duplicated here. On a GPU a mark waits
for the device, so that the stages of a GPU together take longer than the undisturbed prediction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...humans import Humans
from ...model import Model
from ...preprocessing.image import load_image
from .machine import seconds_of, wait_for

STAGES = ("decode", "letterbox", "backbone", "detection", "head", "body", "to numpy", "draw")
"""In their order. decode: file to pixels. letterbox: pixels to the network's input. detection: heatmap of
heads and its peaks. head: from there to pose, shape and place. to numpy: posed bodies to `Humans`. draw: the
overlay of one image, after predict."""

# Modules whose start is the start of the head, of any family.
_HEAD_BEGINS = ("rays", "to_token", "head")
_AFTER = {"backbone": "detection", "body": "to numpy"}


class Marks:
    """Start times of the stages of one prediction."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[str, float]] = []

    def begin(self, stage: str) -> None:
        """Record the start of a stage; only its first start counts."""
        if all(stage != name for name, _ in self._marks):
            wait_for(self._device)
            self._marks.append((stage, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Duration of each stage; the last mark is the end. Stages without a mark count to the one before."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return {stage: end - start for (stage, start), (_, end) in pairs}


@contextmanager
def hooked(model: Model, marks: Marks) -> Iterator[None]:
    """Context in which modules set marks. Recorded graphs set none: all time counts as backbone."""
    network = getattr(model.runtime, "network", None)
    if network is None:
        marks.begin("backbone")
        yield
        return
    head = next((part for name in _HEAD_BEGINS if (part := _part(network, name)) is not None), None)
    parts = {"backbone": _part(network, "backbone"), "head": head, "body": _part(network, "body")}
    handles = []
    for name, part in parts.items():
        if part is not None:
            handles.append(part.register_forward_pre_hook(_setting(marks, part, name)))
        if part is not None and name in _AFTER:
            handles.append(part.register_forward_hook(_setting(marks, part, _AFTER[name])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _part(network: nn.Module, name: str) -> nn.Module | None:
    part = getattr(network, name, None)
    return part if isinstance(part, nn.Module) else None


def _setting(marks: Marks, part: nn.Module, stage: str) -> Callable[..., None]:
    """A hook that begins a stage when it is the part itself: a body's copy with few vertices, which the head
    may use, shares its hooks.
    """

    def hook(module: nn.Module, *_: Any) -> None:
        if module is part:
            marks.begin(stage)

    return hook


class Run:
    """A timed call: predict_batch of a model on `batch` times the same image.

    Args:
        model: the model.
        image: what `predict` takes.
        people: how many to force, by taking the best-scored cells whatever their score; None leaves it to the
            model.
        batch: how often the image is in the batch.
        draw: whether to draw an overlay afterwards.
    """

    def __init__(
        self, model: Model, image: Any, *, people: int | None, batch: int, draw: bool = False
    ) -> None:
        self.model = model
        self.images = [image] * batch
        self.people = people
        self.draw = draw

    def predict(self, images: Sequence[Any] | None = None) -> list[Humans]:
        """Humans of each image; the camera is given, so that it is the same in every precision."""
        return self.model.predict_batch(
            self.images if images is None else images,
            fov=60.0,
            threshold=None if self.people is None else 0.0,
            max_people=self.people,
            batch_size=len(self.images),
        )

    def __call__(self) -> dict[str, float]:
        """Seconds of each stage, and "end to end": from the image as given to `Humans` in numpy."""
        device = self.model.device
        marks = Marks(device)
        marks.begin("decode")
        photos = [load_image(image) for image in self.images]  # predict takes these unchanged
        marks.begin("letterbox")
        with hooked(self.model, marks):
            found = self.predict(photos)
        marks.begin("end")
        seconds = marks.seconds()
        cpu = device.type == "cpu"
        seconds["end to end"] = sum(seconds.values()) if cpu else seconds_of(self.predict, device)
        if self.draw:
            start = time.perf_counter()
            found[0].draw(photos[0].pixels)
            seconds["draw"] = time.perf_counter() - start
        return seconds
