"""Benchmark of speed: predictions end to end and by stages, beside a bare backbone in the same run.

A machine's speed drifts (other processes, heat, clock), so nothing is compared across runs: every round times
every candidate once, in an order drawn anew, and a ratio is the median of the ratios within rounds. A timed
call takes the image as a user gives it and decodes it each time; the distance of its vertices from those of
eager float32 stands beside its time.
"""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...humans import Humans
from ...model import Model
from ...runtime.devices import CPU_BACKENDS, pick_device
from . import models as speed_models
from .machine import (
    DTYPES,
    bare_backbone,
    device_name,
    matrix_multiply,
    noise_picture,
    operations,
    seconds_of,
    vertex_distances,
)
from .memory import Request, peak_of_prediction
from .models import EAGER, FLOAT32, VIT_S, Config, Plan
from .report import Speed, Spread, Timing
from .stages import Run

WARM_UP_ROUNDS = 2


@dataclass(frozen=True)
class Progress:
    """Who is told of a long run before it ends; by default nothing is told.

    Attributes:
        tell: called with one line for each model that is loaded or compared, and for each round.
        keep: called after each round with the result of the rounds so far.
    """

    tell: Callable[[str], None] = lambda line: None
    keep: Callable[[Speed], None] = lambda speed: None


@dataclass(frozen=True)
class Candidate:
    """A timed call with its description."""

    config: Config
    run: Run
    found: float  # people in a picture
    distances: np.ndarray  # (P, V) [mm] to the vertices of eager float32
    people_alone: int
    operations: dict[str, float]
    memory_mb: dict[str, float] | None

    @property
    def eager_key(self) -> tuple[str, int, int | None, int]:
        """Key that is the same for all precisions and backends of one model."""
        return self.config.name, self.config.size, self.run.people, len(self.run.images)

    @property
    def is_eager(self) -> bool:
        """Whether the others with its `eager_key` are compared with it."""
        return (self.config.dtype, self.config.backend_label) == (FLOAT32, EAGER)

    def line(self) -> str:
        """What it is and finds, before it is timed."""
        off = (
            f"{self.distances.mean():.2g} mm off eager float32"
            if self.distances.size
            else "no people to compare"
        )
        batch = f", {len(self.run.images)} images" if len(self.run.images) > 1 else ""
        return f"{self.config.label}{batch}: {self.found:g} people, {off}"

    def timing(
        self, rows: Sequence[dict[str, float]], reference: np.ndarray, eager: np.ndarray | None
    ) -> Timing:
        """From its seconds in each round, those of the reference, and those of eager float32."""
        known = self.distances.size > 0
        seconds = {stage: np.array([row[stage] for row in rows]) for stage in rows[0]}
        return Timing(
            name=self.config.name,
            size=self.config.size,
            dtype=self.config.dtype,
            backend=self.config.backend_label,
            batch=len(self.run.images),
            people=self.run.people,
            found=self.found,
            stages_ms={stage: Spread.of(1000 * values) for stage, values in seconds.items()},
            ratio=Spread.of(seconds["end to end"] / reference),
            operations=self.operations,
            difference_mm=(float(self.distances.max()), float(self.distances.mean()))
            if known
            else (0.0, 0.0),
            people_alone=self.people_alone,
            memory_mb=self.memory_mb,
            speedup=None if eager is None else Spread.of(eager / seconds["end to end"]),
            difference_99_mm=float(np.percentile(self.distances, 99)) if known else None,
        )


def run(
    model: str | None = None,
    plan: Plan | None = None,
    *,
    device: str | None = None,
    image: str | None = None,
    vits: Sequence[tuple[str, int]] = (VIT_S,),
    progress: Progress | None = None,
) -> Speed:
    """`bench` of a model, and of Multi-HMR with random weights, against the bare ViT-S/14 at 448.

    Args:
        model: what `load_model` takes; None is the default.
        plan: what is timed.
        device: as `load_model` takes it.
        image: path of an image; None is noise of 640x480.
        vits: (backbone, side of the square input [pixels]) of the models with random weights.
        progress: who is told before the end.

    Raises:
        ValueError: the plan, or the model in it, cannot be timed; the message tells why.
        FileNotFoundError: there is no such image or model.
    """
    plan = plan or Plan()
    if device is None and set(plan.backends) & set(CPU_BACKENDS):
        device = "cpu"  # where alone the others compute, so all beside them do as well
    default = "float16" if pick_device(device).type == "cuda" else FLOAT32
    if image is not None and not Path(image).is_file():
        raise FileNotFoundError(f"{image} does not exist")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = replace(plan, dtypes=plan.dtypes or (default,))
        files = speed_models.files_of(model, vits, folder=folder)
        found = []
        for config in speed_models.configs(files, plan, device=device, folder=folder):
            (progress or Progress()).tell(f"loaded {config.label}")
            found.append(config)
        return bench(found, plan, image=image, progress=progress)


def bench(
    configs: Sequence[Config] | Mapping[str, Model],
    plan: Plan | None = None,
    *,
    image: Any = None,
    reference: tuple[str, Callable[[], object]] | None = None,
    progress: Progress | None = None,
) -> Speed:
    """Time predict_batch of each config for all people and batches of the plan, interleaved.

    Args:
        configs: models on one device, as `speed.models.configs` gives them, or by name.
        plan: whose sizes, precisions and backends are ignored: the configs have their own.
        image: what `predict` takes; None is noise of 640x480 as an array, so nothing is decoded.
        reference: name and function to divide by; None is the bare forward of DINOv2's ViT-S/14 at 448.
        progress: who is told before the end.
    """
    plan, progress = plan or Plan(), progress or Progress()
    if isinstance(configs, Mapping):
        configs = [_eager(name, model) for name, model in configs.items()]
    if not configs:
        raise ValueError("bench needs a model at least")
    device = configs[0].model.device
    image = noise_picture() if image is None else image
    reference_name, reference_call = reference or bare_backbone(device)
    candidates = []
    for candidate in _candidates(configs, plan, image):
        progress.tell(candidate.line())
        candidates.append(candidate)
    dtypes = list(dict.fromkeys([FLOAT32, *(config.dtype for config in configs)]))
    products = {dtype: matrix_multiply(device, DTYPES[dtype]) for dtype in dtypes}
    name = f"array {image.shape}" if isinstance(image, np.ndarray) else Path(str(image)).name[:80]

    def result(rows: Sequence[Sequence[dict[str, float]]]) -> Speed:
        reference_s, peaks, timings = _measured(rows, candidates, products)
        return Speed(
            timings=timings,
            reference=reference_name,
            reference_ms=Spread.of(1000 * reference_s),
            peak_gflops=peaks,
            rounds=len(rows),
            device=device_name(device),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            image=name,
        )

    def after(rows: Sequence[Sequence[dict[str, float]]]) -> None:
        middles = np.median([[1000 * row["end to end"] for row in round_] for round_ in rows], axis=0)
        mine = ", ".join(f"{middle:.0f}" for middle in middles[1 + len(products) :])
        progress.tell(f"round {len(rows)} of {plan.rounds}: medians so far {mine} ms, in the order above")
        progress.keep(result(rows))

    plain = [reference_call, *(call for _, call in products.values())]
    timed = [partial(_seconds, call, device) for call in plain]
    return result(interleaved([*timed, *(candidate.run for candidate in candidates)], plan.rounds, after))


def _measured(
    rows: Sequence[Sequence[dict[str, float]]],
    candidates: Sequence[Candidate],
    products: Mapping[str, tuple[float, object]],
) -> tuple[np.ndarray, dict[str, float], tuple[Timing, ...]]:
    """From the rounds: seconds of the reference, GFLOP/s of products by precision, timings of candidates."""
    first = 1 + len(products)
    columns = list(zip(*rows, strict=True))
    whole = [np.array([row["end to end"] for row in column]) for column in columns]
    peaks = {
        dtype: count / float(np.median(seconds)) / 1e9
        for (dtype, (count, _)), seconds in zip(products.items(), whole[1:first], strict=True)
    }
    eager = {
        candidate.eager_key: seconds
        for candidate, seconds in zip(candidates, whole[first:], strict=True)
        if candidate.is_eager
    }
    timings = (
        candidate.timing(column, whole[0], eager.get(candidate.eager_key))
        for candidate, column in zip(candidates, columns[first:], strict=True)
    )
    return whole[0], peaks, tuple(timings)


def interleaved(
    calls: Sequence[Callable[[], dict[str, float]]],
    rounds: int,
    after: Callable[[list[list[dict[str, float]]]], None] = lambda rows: None,
) -> list[list[dict[str, float]]]:
    """Results of each call (columns) in each round (rows), in an order that every round draws anew.

    after: called after each round that counts, with the rounds so far.
    """
    order = list(range(len(calls)))
    shuffle = random.Random(0).shuffle
    rows: list[list[dict[str, float]]] = []
    for _ in range(rounds + WARM_UP_ROUNDS):
        shuffle(order)
        results = {i: calls[i]() for i in order}
        rows.append([results[i] for i in range(len(calls))])
        if len(rows) > WARM_UP_ROUNDS:
            after(rows[WARM_UP_ROUNDS:])
    return rows[WARM_UP_ROUNDS:]


def _seconds(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    return {"end to end": seconds_of(call, device)}


def _eager(name: str, model: Model) -> Config:
    half, truth = model.backbone.half_dtype, model
    if half is not None:
        truth = copy.deepcopy(model)
        truth.backbone.half_dtype = None
    dtype = str(half or torch.float32).removeprefix("torch.")
    return Config(name, model.config.image_size, dtype, EAGER, model, truth)


def _candidates(configs: Sequence[Config], plan: Plan, image: Any) -> Iterator[Candidate]:
    for config in configs:
        for people in plan.people:
            truth = Run(config.truth, image, people=people, batch=1)
            expected = truth.predict()
            whole, of_backbone = operations(truth.predict, f"{type(truth.model.network).__name__}.backbone")
            for batch in plan.batches:
                run = Run(config.model, image, people=people, batch=batch, draw=plan.draw)
                got, risen = _predicted(run)
                distances, alone = vertex_distances(expected * batch, got)
                yield Candidate(
                    config,
                    run,
                    found=sum(map(len, got)) / batch,
                    distances=distances,
                    people_alone=alone,
                    operations={"end to end": batch * whole, "backbone": batch * of_backbone},
                    memory_mb=_memory(config, run, risen) if plan.memory else None,
                )


def _predicted(run: Run) -> tuple[list[Humans], float]:
    """Predictions of a call, and the increase of allocated GPU memory [MB]; 0 elsewhere."""
    device = run.model.device
    if device.type != "cuda":
        return run.predict(), 0.0
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    found = run.predict()
    return found, (torch.cuda.max_memory_allocated(device) - before) / 1e6


def _memory(config: Config, run: Run, risen: float) -> dict[str, float] | None:
    """Peak memory [MB]: of the model and its tensors on a GPU, or of a process of its own on a CPU; None
    where unknown.
    """
    model = config.model
    if model.device.type == "cuda":
        loaded = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())) / 1e6
        return {"loaded": loaded, "predict": loaded + risen}
    known = config.file is not None or config.name == speed_models.DEFAULT
    if not known or config.model.device.type != "cpu":
        return None
    picture = run.images[0]
    return peak_of_prediction(
        Request(
            file=config.file,
            dtype=config.dtype,
            backend=config.backend,
            padding=config.padding,
            people=run.people,
            batch=len(run.images),
            threads=torch.get_num_threads(),
            image=picture if isinstance(picture, str) else None,
        )
    )
