"""The machine's name and matrix-multiply peak, operation counts, and the reference to divide by."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from ...humans import Humans
from ...networks.backbones.timm_backbones import create_backbone

REFERENCE = "dinov2_vits14"  # random weights are as fast
REFERENCE_SIZE = 448
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SAME_PERSON = 1 / 3  # of the longer side of a box: how far joints may lie apart, on average, in the picture


def device_name(device: torch.device) -> str:
    """The GPU's name, or "cpu: " and the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}: {_processor()}"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Context in which torch uses that many threads; None leaves it unchanged. ValueError below one."""
    if count is not None and count < 1:
        raise ValueError(f"torch needs a thread at least, got {count}")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all queued work, as timing requires."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Duration of a call, including its work on the device."""
    wait_for(device)
    start = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - start


def bare_backbone(
    device: torch.device, name: str = REFERENCE, size: int = REFERENCE_SIZE
) -> tuple[str, Callable[[], object]]:
    """The forward of DINOv2 on one picture already on the device, float32, random weights."""
    network = create_backbone(name, image_size=size).to(device).eval()
    pixels = torch.rand(1, 3, size, size, device=device)

    @torch.inference_mode()
    def forward() -> object:
        return network.extract(pixels)

    return f"bare {name} {size} float32", forward


def matrix_multiply(device: torch.device, dtype: torch.dtype) -> tuple[float, Callable[[], object]]:
    """(floating-point operations, a call that does them): the product of two square matrices.

    Sides of 1024 on a CPU and 8192 on a GPU: large enough that nothing but the arithmetic counts.
    """
    side = 8192 if device.type == "cuda" else 1024
    a = torch.rand(side, side, device=device).to(dtype)

    @torch.inference_mode()
    def multiply() -> object:
        return a @ a

    return 2.0 * side**3, multiply


@torch.inference_mode()
def operations(call: Callable[[], object], part: str = "") -> tuple[float, float]:
    """Floating-point operations of a call in eager mode, and of a module within it ("MultiHMR.backbone").

    Products and convolutions are counted, including those within attention.
    """
    fused = any("flash_attention_for_cpu" in str(kernel) for kernel in flop_registry)
    known = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION] if fused else []
    counter = FlopCounterMode(display=False)
    with (
        sdpa_kernel([*known, SDPBackend.MATH]),
        counter,
    ):  # counters of older versions count plain products only
        call()
    of_part = counter.get_flop_counts().get(part, {})
    return float(counter.get_total_flops()), float(sum(of_part.values()))


def noise_picture(height: int = 480, width: int = 640) -> np.ndarray:
    """(height, width, 3) uint8 noise: a heatmap over it has peaks enough to force people from."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def difference_mm(expected: Sequence[Humans], got: Sequence[Humans]) -> tuple[float, float, int]:
    """(largest, mean) distance between vertices [mm], and how many people only one of the two has.

    People of a picture are the same if their joints lie near each other in it; vertices are compared in the
    frame of the camera, so that depth counts.
    """
    distances, alone = vertex_distances(expected, got)
    if not len(distances):
        return 0.0, 0.0, alone
    return float(distances.max()), float(distances.mean()), alone


def vertex_distances(expected: Sequence[Humans], got: Sequence[Humans]) -> tuple[np.ndarray, int]:
    """(P, V) distances between vertices [mm] of the P people whom both have, and how many only one has."""
    distances: list[np.ndarray] = []
    alone = 0
    for one, other in zip(expected, got, strict=True):
        pairs = _same_people(one, other)
        alone += len(one) + len(other) - 2 * len(pairs)
        distances += [np.linalg.norm(one.vertices[i] - other.vertices[j], axis=-1) for i, j in pairs]
    return (1000 * np.stack(distances) if distances else np.zeros((0, 0))), alone


def _same_people(one: Humans, other: Humans) -> list[tuple[int, int]]:
    """Pairs of the nearest, each person once."""
    distances = np.linalg.norm(one.joints_2d[:, None] - other.joints_2d[None], axis=-1).mean(-1)
    sides = np.maximum(one.boxes[:, 2] - one.boxes[:, 0], one.boxes[:, 3] - one.boxes[:, 1])
    pairs: list[tuple[int, int]] = []
    for flat in distances.argsort(axis=None):
        i, j = divmod(int(flat), len(other))
        free = all(i != a and j != b for a, b in pairs)
        if free and distances[i, j] <= max(_SAME_PERSON * sides[i], 1.0):
            pairs.append((i, j))
    return pairs
