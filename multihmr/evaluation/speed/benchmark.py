"""How long a prediction takes, end to end and by stages, beside the bare backbone of timm in the same run.

A machine's speed drifts (other processes, heat, clock), so nothing is compared across runs: every round times
every candidate once, in an order drawn anew, and a ratio is the median of the ratios within rounds. What is
timed takes the picture as a user gives it, decodes it each time, and says in the end how far its vertices are
from those of eager float32.
"""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
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
    difference_mm,
    matrix_multiply,
    noise_picture,
    operations,
    seconds_of,
)
from .memory import Asked, peak_of_prediction
from .models import EAGER, FLOAT32, VIT_S, Contender, Plan
from .report import Speed, Spread, Timing
from .stages import Trial

WARM_UP_ROUNDS = 2


@dataclass(frozen=True)
class Candidate:
    """A trial, and what is known of it besides its time."""

    contender: Contender
    trial: Trial
    found: float  # people in a picture
    difference: tuple[float, float, int]
    operations: dict[str, float]
    memory_mb: dict[str, float] | None

    def timing(self, rows: Sequence[dict[str, float]], reference: np.ndarray) -> Timing:
        """Of what it took in each round [s], with what the reference took."""
        seconds = {stage: np.array([row[stage] for row in rows]) for stage in rows[0]}
        return Timing(
            name=self.contender.name,
            size=self.contender.size,
            dtype=self.contender.dtype,
            backend=self.contender.backend,
            batch=len(self.trial.images),
            people=self.trial.people,
            found=self.found,
            stages_ms={stage: Spread.of(1000 * values) for stage, values in seconds.items()},
            ratio=Spread.of(seconds["end to end"] / reference),
            operations=self.operations,
            difference_mm=self.difference[:2],
            people_alone=self.difference[2],
            memory_mb=self.memory_mb,
        )


def run(
    model: str | None = None,
    plan: Plan | None = None,
    *,
    device: str | None = None,
    image: str | None = None,
    vits: Sequence[tuple[str, int]] = (VIT_S,),
) -> Speed:
    """`bench` of a model (what `load_model` takes; None is the default), and of Multi-HMR with random weights
    on each of `vits` (backbone and side of the window [pixels]), against the bare ViT-S/14 at 448.

    Raises:
        ValueError: the plan, or the model in it, cannot be; the sentence says why.
        FileNotFoundError: there is no such picture or model.
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
        found = speed_models.contenders(files, plan, device=device, folder=folder)
        return bench(list(found), plan, image=image)


def bench(
    contenders: Sequence[Contender] | Mapping[str, Model],
    plan: Plan | None = None,
    *,
    image: Any = None,
    reference: tuple[str, Callable[[], object]] | None = None,
) -> Speed:
    """Times predict_batch of each contender for all people and batches of the plan, interleaved.

    Args:
        contenders: models in eval mode on one device, as `speed_models.contenders` gives them, or by name.
        plan: of which sizes, precisions and backends are the contenders' own here.
        image: what `predict` takes; None is a noise picture of 640x480 as an array, so nothing is decoded.
        reference: name and function to divide by; None is the bare forward of timm's DINOv2 ViT-S/14 at 448.
    """
    plan = plan or Plan()
    if isinstance(contenders, Mapping):
        contenders = [_eager(name, model) for name, model in contenders.items()]
    if not contenders:
        raise ValueError("bench needs a model at least")
    device = contenders[0].model.device
    image = noise_picture() if image is None else image
    reference_name, reference_call = reference or bare_backbone(device)
    candidates = _candidates(contenders, plan, image)
    dtypes = list(dict.fromkeys([FLOAT32, *(contender.dtype for contender in contenders)]))
    products = {dtype: matrix_multiply(device, DTYPES[dtype]) for dtype in dtypes}

    plain = [reference_call, *(call for _, call in products.values())]
    timed = [partial(_seconds, call, device) for call in plain]
    rows = interleaved([*timed, *(candidate.trial for candidate in candidates)], plan.rounds)
    columns = list(zip(*rows, strict=True))
    whole = [np.array([row["end to end"] for row in column]) for column in columns[: len(plain)]]
    peaks = {
        dtype: count / float(np.median(seconds)) / 1e9
        for (dtype, (count, _)), seconds in zip(products.items(), whole[1:], strict=True)
    }
    return Speed(
        timings=tuple(
            candidate.timing(column, whole[0])
            for candidate, column in zip(candidates, columns[len(plain) :], strict=True)
        ),
        reference=reference_name,
        reference_ms=Spread.of(1000 * whole[0]),
        peak_gflops=peaks,
        rounds=plan.rounds,
        device=device_name(device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        image=f"array {image.shape}" if isinstance(image, np.ndarray) else Path(str(image)).name[:80],
    )


def interleaved(calls: Sequence[Callable[[], dict[str, float]]], rounds: int) -> list[list[dict[str, float]]]:
    """What each call says (columns) in each round (rows), in an order that every round draws anew."""
    order = list(range(len(calls)))
    shuffle = random.Random(0).shuffle
    rows: list[list[dict[str, float]]] = []
    for _ in range(rounds + WARM_UP_ROUNDS):
        shuffle(order)
        said = {i: calls[i]() for i in order}
        rows.append([said[i] for i in range(len(calls))])
    return rows[WARM_UP_ROUNDS:]


def _seconds(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    return {"end to end": seconds_of(call, device)}


def _eager(name: str, model: Model) -> Contender:
    half, truth = model.backbone.half_dtype, model
    if half is not None:
        truth = copy.deepcopy(model)
        truth.backbone.half_dtype = None
    dtype = str(half or torch.float32).removeprefix("torch.")
    return Contender(name, model.config.image_size, dtype, EAGER, model, truth)


def _candidates(contenders: Sequence[Contender], plan: Plan, image: Any) -> list[Candidate]:
    found = []
    for contender in contenders:
        for people in plan.people:
            truth = Trial(contender.truth, image, people=people, batch=1)
            expected = truth.predict()
            whole, seen = operations(truth.predict, f"{type(truth.model.network).__name__}.backbone")
            for batch in plan.batches:
                trial = Trial(contender.model, image, people=people, batch=batch, draw=plan.draw)
                got, risen = _predicted(trial)
                found.append(
                    Candidate(
                        contender,
                        trial,
                        found=sum(map(len, got)) / batch,
                        difference=difference_mm(expected * batch, got),
                        operations={"end to end": batch * whole, "backbone": batch * seen},
                        memory_mb=_memory(contender, trial, risen) if plan.memory else None,
                    )
                )
    return found


def _predicted(trial: Trial) -> tuple[list[Humans], float]:
    """What it predicts, and by how many megabytes the tensors on a GPU grew meanwhile; elsewhere 0."""
    device = trial.model.device
    if device.type != "cuda":
        return trial.predict(), 0.0
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    found = trial.predict()
    return found, (torch.cuda.max_memory_allocated(device) - before) / 1e6


def _memory(contender: Contender, trial: Trial, risen: float) -> dict[str, float] | None:
    """Megabytes at most: of the model and its tensors on a GPU, or of a process of its own on a CPU; None
    where unknown.
    """
    model = contender.model
    if model.device.type == "cuda":
        loaded = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())) / 1e6
        return {"loaded": loaded, "predict": loaded + risen}
    known = contender.file is not None or contender.name == speed_models.DEFAULT
    if not known or contender.model.device.type != "cpu":
        return None
    picture = trial.images[0]
    return peak_of_prediction(
        Asked(
            file=contender.file,
            dtype=contender.dtype,
            backend=contender.backend,
            people=trial.people,
            batch=len(trial.images),
            threads=torch.get_num_threads(),
            image=picture if isinstance(picture, str) else None,
        )
    )
