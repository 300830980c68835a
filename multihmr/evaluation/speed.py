"""How long a prediction takes, stage by stage, beside the bare backbone of timm in the same run.

A machine's speed drifts (other processes, heat, clock), so nothing is compared across runs: every round times
every candidate once, in an order drawn anew, and a ratio is the median of the ratios within rounds.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..image import Window, read_photo
from .benchmark import named_model

if TYPE_CHECKING:
    from ..model import Model

REFERENCE = (
    "vit_small_patch14_dinov2"  # timm's name of DINOv2 ViT-S/14, random weights: speed needs no others
)
REFERENCE_SIZE = 448
WARM_UP_ROUNDS = 2


@dataclass(frozen=True)
class Timing:
    """What one thing took over all rounds [ms]: median and quartiles; `ratio` to the reference.

    people: how many were really predicted, which a heatmap with few peaks may keep below what was asked.
    """

    name: str
    stage: str
    people: int | None
    median_ms: float
    quartiles_ms: tuple[float, float]
    ratio: float


@dataclass(frozen=True)
class Speed:
    """The timings of one run and the circumstances that they hold for."""

    timings: tuple[Timing, ...]
    reference: str
    rounds: int
    device: str
    threads: int
    torch: str
    image: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, path: str | Path) -> None:
        """Writes JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n")


def run(
    model: str | Model | None = None,
    *,
    people: Sequence[int] = (1, 10),
    rounds: int = 20,
    device: str | None = None,
    image: Any = None,
    vit: bool = True,
) -> Speed:
    """`bench` of a model (name, path or itself; None is the default), and of Multi-HMR on DINOv2 ViT-S/14 at
    448 pixels with random weights (left out if `vit` is False), against the bare ViT-S/14 at 448.
    """
    from ..hub import load_body
    from ..networks.multihmr import MultiHMR, MultiHMRConfig

    name, first = named_model(model, device)
    models = {name: first}
    if vit:
        config = MultiHMRConfig(backbone="dinov2_vits14", image_size=REFERENCE_SIZE)
        vit_name = f"multihmr dinov2_vits14 {REFERENCE_SIZE}"
        models[vit_name] = MultiHMR(config, load_body("anny")).to(first.device).eval()
    return bench(models, people=people, rounds=rounds, image=image)


def bench(
    models: Mapping[str, Model],
    *,
    people: Sequence[int] = (1, 10),
    rounds: int = 20,
    image: Any = None,
    reference: tuple[str, Callable[[], object]] | None = None,
) -> Speed:
    """Times predict and its stages, for each model and number of `people`, interleaved with a reference.

    Args:
        models: by the name that the table shows; all on one device. Use eval mode.
        people: numbers of people to force, by taking the best-scored peaks whatever their score.
        rounds: how often each is timed, after two rounds of warming up.
        image: what `predict` takes; None is a noise picture of 640x480 as an array, so nothing is decoded.
        reference: name and function to divide by; None is the bare forward of timm's DINOv2 ViT-S/14 at 448.
    """
    if not models or rounds < 1:
        raise ValueError(f"bench needs a model and a round at least, got {len(models)} and {rounds}")
    device = next(iter(models.values())).device
    image = noise_picture() if image is None else image
    reference_name, reference_call = reference or bare_backbone(device)
    candidates: dict[tuple[str, str, int | None], Callable[[], object]] = {}
    for name, model in models.items():
        candidates |= _stages(name, model, image, people)
    calls = [reference_call, *candidates.values()]
    times = _interleaved(calls, rounds, device)

    timings = [_timing((reference_name, "forward", None), times[:, 0], times[:, 0])]
    for key, column in zip(candidates, times.T[1:], strict=True):
        timings.append(_timing(key, column, times[:, 0]))
    return Speed(
        tuple(timings),
        reference=reference_name,
        rounds=rounds,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        image=f"array {image.shape}" if isinstance(image, np.ndarray) else str(image)[:80],
    )


def table(speed: Speed) -> str:
    """The timings as markdown that is also readable as plain text."""
    lines = [
        f"{speed.device}, {speed.threads} threads, torch {speed.torch}, {speed.image}, batch of 1, "
        f"{speed.rounds} interleaved rounds; ratio to {speed.reference}.",
        "",
        "| | stage | people | median ms | quartiles ms | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for t in speed.timings:
        low, high = t.quartiles_ms
        people = "" if t.people is None else t.people
        cells = [t.name, t.stage, people, f"{t.median_ms:.1f}", f"{low:.1f} to {high:.1f}", f"{t.ratio:.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def bare_backbone(
    device: torch.device, name: str = REFERENCE, size: int = REFERENCE_SIZE
) -> tuple[str, Callable[[], object]]:
    """The forward of a timm model on one picture already on the device, float32, random weights."""
    import timm

    network: Any = timm.create_model(name, img_size=size, num_classes=0).to(device).eval()
    pixels = torch.rand(1, 3, size, size, device=device)

    @torch.inference_mode()
    def forward() -> object:
        return network.forward_features(pixels)

    return f"bare {name} {size} float32", forward


def noise_picture(height: int = 480, width: int = 640) -> np.ndarray:
    """(height, width, 3) uint8 noise: a heatmap over it has peaks enough to force people from."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _stages(
    name: str, model: Model, image: Any, people: Sequence[int]
) -> dict[tuple[str, str, int | None], Callable[[], object]]:
    """What to time of one model, by (name, stage, people)."""
    window = _read(model, image).to(model.device)[None]

    @torch.inference_mode()
    def network(count: int) -> Any:
        return model(window, threshold=0.0, max_people=count)

    def predict(count: int) -> object:
        return model.predict(image, fov=60.0, threshold=0.0, max_people=count)

    stages: dict[tuple[str, str, int | None], Callable[[], object]] = {
        (name, "read and window", None): partial(_read, model, image)
    }
    backbone: Any = getattr(model, "backbone", None)
    if backbone is not None:
        dtype = str(backbone.half_dtype or torch.float32).removeprefix("torch.")
        stages[name, f"backbone forward, {dtype}", None] = torch.inference_mode()(partial(backbone, window))
    for asked in people:
        count = len(network(asked).centers)
        stages[name, "whole network", count] = partial(network, asked)
        stages[name, "predict, end to end", count] = partial(predict, asked)
    return stages


def _read(model: Model, image: Any) -> Tensor:
    """The window that the model looks through, on the CPU."""
    pixels = read_photo(image).pixels
    height, width = pixels.shape[:2]
    return Window.whole(height, width, model.config.image_size).pixels(pixels)


def _interleaved(calls: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> np.ndarray:
    """(rounds, calls) seconds; the order within a round is drawn anew each time."""
    order = list(range(len(calls)))
    shuffle = random.Random(0).shuffle
    times = np.zeros((rounds + WARM_UP_ROUNDS, len(calls)))
    for row in times:
        shuffle(order)
        for i in order:
            _wait_for(device)
            start = time.perf_counter()
            calls[i]()
            _wait_for(device)
            row[i] = time.perf_counter() - start
    return times[WARM_UP_ROUNDS:]


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timing(key: tuple[str, str, int | None], seconds: np.ndarray, reference: np.ndarray) -> Timing:
    low, middle, high = (float(x) for x in 1000 * np.quantile(seconds, (0.25, 0.5, 0.75)))
    return Timing(*key, middle, (low, high), float(np.median(seconds / reference)))
