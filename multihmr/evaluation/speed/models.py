"""Models to time: as files, at other input sizes, with random weights, in every precision and backend."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...bodies.loading import load_body
from ...hub.releases import DEFAULT
from ...model import Model, load_model, save_model
from ...networks.configs import MultiHMRConfig
from ...networks.multihmr import MultiHMR
from ...networks.resize_embeddings import at_image_size
from .machine import DTYPES, REFERENCE_SIZE

VIT_S = ("dinov2_vits14", REFERENCE_SIZE)
EAGER, FLOAT32, INT8, WHOLE = "eager", "float32", "openvino-int8", "whole"


@dataclass(frozen=True)
class Plan:
    """What is timed: every combination of these, `rounds` times after two warm-up rounds.

    Attributes:
        people: numbers of people to force, by taking the best-scored cells whatever their score; None: those
            that the model finds by itself.
        batches: images at once.
        sizes: of the network's square input [pixels]; None: the model's own.
        dtypes: precisions of the backbone, of "float32", "float16", "bfloat16"; none: float16 on cuda, else
            float32.
        backends: as load_model takes them; "openvino-int8" is left away with models that are not on DINOv2.
        paddings: as load_model takes them; "thin" is left away with models that cannot.
        calibrate: for "openvino-int8", a folder of images, as load_model takes it.
        rounds: how often each is timed.
        draw: whether to draw an overlay of each, too.
        memory: whether to measure the memory on a CPU, for which each model is run in a process of its own.
    """

    people: tuple[int | None, ...] = (1, 10)
    batches: tuple[int, ...] = (1,)
    sizes: tuple[int | None, ...] = (None,)
    dtypes: tuple[str, ...] = ()
    backends: tuple[str, ...] = (EAGER,)
    paddings: tuple[str, ...] = (WHOLE,)
    calibrate: str | None = None
    rounds: int = 20
    draw: bool = True
    memory: bool = True

    def __post_init__(self) -> None:
        counts = [*self.batches, *(size for size in self.sizes if size is not None), self.rounds]
        if min(counts) < 1 or min((n for n in self.people if n is not None), default=0) < 0:
            raise ValueError(f"batches, sizes and rounds begin at 1, people at 0; got {self}")
        if not (self.people and self.batches and self.sizes and self.backends):
            raise ValueError(f"there is nothing to time in {self}")
        unknown = set(self.dtypes) - set(DTYPES)
        if unknown:
            raise ValueError(f"a precision is one of {', '.join(DTYPES)}, got {', '.join(sorted(unknown))}")


@dataclass(frozen=True)
class Config:
    """A model loaded in one way; `truth` is the same in eager float32, whose results it is compared with."""

    name: str
    size: int  # of its square input [pixels]
    dtype: str
    backend: str
    model: Model
    truth: Model
    file: str | None = None  # what load_model takes
    padding: str = WHOLE

    @property
    def label(self) -> str:
        """Name, size, precision and backend in a line."""
        return f"{self.name} at {self.size}, {self.dtype}, {self.backend_label}"

    @property
    def backend_label(self) -> str:
        """The backend, and the padding where it is not whole."""
        return self.backend if self.padding == WHOLE else f"{self.backend}, {self.padding} padding"


def configs(
    files: Mapping[str, str | None], plan: Plan, *, device: str | None, folder: Path
) -> Iterator[Config]:
    """Each model in each size, precision and backend of the plan.

    Args:
        files: name -> what load_model takes.
        plan: sizes, precisions and backends.
        device: as load_model takes it.
        folder: where models of another size are written.
    """
    for (name, file), size in product(files.items(), plan.sizes):
        of_size = file if size is None else resized(file, size, folder)
        truth = load(of_size, device=device)
        pixels = truth.config.image_size
        for dtype, backend, padding in product(plan.dtypes or (FLOAT32,), plan.backends, plan.paddings):
            if not truth.backbone.thins and (padding != WHOLE or backend == INT8):
                continue
            same = (dtype, backend, padding) == (FLOAT32, EAGER, WHOLE)
            calibrate = plan.calibrate if backend == INT8 else None
            how: dict[str, str | None] = {"device": device, "calibrate": calibrate, "padding": padding}
            model = truth if same else load(of_size, dtype, backend, **how)
            yield Config(name, pixels, dtype, backend, model, truth, of_size, padding)


def load(
    file: str | None,
    dtype: str = FLOAT32,
    backend: str = EAGER,
    *,
    device: str | None = None,
    calibrate: str | None = None,
    padding: Any = WHOLE,
) -> Model:
    """`load_model` with a precision by name."""
    how: dict[str, Any] = {"backend": backend, "calibrate": calibrate, "padding": padding}
    return load_model(file, device=device, dtype=DTYPES[dtype], **how)


def files_of(model: str | None, vits: Sequence[tuple[str, int]], *, folder: Path) -> dict[str, str | None]:
    """Models to time, by their names in tables.

    Args:
        model: what load_model takes; None is the default.
        vits: (backbone, side of the square input [pixels]) of Multi-HMR with random weights, which are the
            same in every run.
        folder: where these are written.
    """
    # The file's name alone: tables are read by others, too.
    name = DEFAULT if model is None else model.rpartition(os.sep)[2]
    files = {name: model}
    for backbone, size in vits:
        config = MultiHMRConfig(backbone=backbone, image_size=size)
        files[random_name(backbone, size)] = random_model(config, folder)
    return files


def random_name(backbone: str, size: int) -> str:
    """Name in tables of Multi-HMR with random weights: "random dinov2_vits14@448"."""
    return f"random {backbone}@{size}"


def random_model(config: MultiHMRConfig, folder: Path) -> str:
    """Write a model with random weights, always the same, into `folder`; its path.

    Layer scales, which begin at 1e-5 before DINOv2 learns, are 1: else what the blocks compute would not
    count, and no precision would change the result.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MultiHMR(config, load_body(config.body))
    for name, parameter in model.backbone.named_parameters():
        if name.endswith((".ls1.gamma", ".ls2.gamma")):
            nn.init.ones_(parameter)
    name = f"{config.backbone}_{config.image_size}.safetensors"
    return str(save_model(model, folder / name, licence="none", source="random weights, to measure speed"))


def resized(file: str | None, size: int, folder: Path) -> str:
    """Write the same model with a square input of `size` pixels into `folder`; its path.

    What belongs to rows, columns or patches is stretched. That is enough to measure its time, not for good
    results, which need training at that size.

    Raises:
        ValueError: the network cannot have this size.
    """
    source = load(file, device="cpu")
    if not isinstance(source.network, MultiHMR):
        raise ValueError(f"only Multi-HMR can be timed at another size than its own, got {source.family!r}")
    model = at_image_size(source.network, size)
    stem = DEFAULT if file is None else Path(file).stem
    return str(save_model(model, folder / f"{stem}_at_{size}.safetensors", licence=source.licence))
