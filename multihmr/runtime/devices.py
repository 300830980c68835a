"""Choice of the device and of the precision of the backbone."""

from __future__ import annotations

import warnings

import torch

from ..networks.backbones.base import Backbone
from ..networks.backbones.hybrid import cpu_has_bfloat16

CPU_BACKENDS = ("onnxruntime", "openvino", "openvino-int8")  # that compute on a CPU only


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """`device`, if it is there; None takes the first of cuda, mps, cpu that is."""
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        if "at start of device string" in reason:  # torch lists two dozen
            raise ValueError(
                f"device must be one of cpu, cuda, cuda:1 and mps, got {str(device)!r}"
            ) from None
        raise ValueError(f"device {str(device)!r} cannot be used here: {reason}") from None
    return picked


def backbone_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype | None:
    """What the backbone computes in on this device for `load_model(dtype=...)`; None is float32."""
    if dtype is None or dtype == "auto":
        return torch.float16 if device.type == "cuda" else None  # on a CPU as exact as the checkpoint
    if dtype == "fast":
        return torch.float16 if device.type == "cuda" else None  # `set_fast` knows more once it is loaded
    known = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
    name = str(dtype).removeprefix("torch.")
    if name not in known:
        raise ValueError(f"dtype must be 'auto', 'fast', float32, float16 or bfloat16, got {dtype!r}")
    return known[name]


def set_fast(backbone: Backbone, device: torch.device, backend: str) -> None:
    """Let it compute as `dtype="fast"` says: the quickest that was measured to move vertices by a few mm.

    On a CPU that multiplies bfloat16 itself that is bfloat16 for ViTs, and for the ViT blocks behind MoveNet,
    whose convolutions stay in float32: in bfloat16 they move people by 20 mm (docs/speed.md). Backbones on
    EfficientNet-Lite stay in float32, and all do with onnxruntime.
    """
    if device.type == "cuda":
        backbone.half_dtype = torch.float16
        return
    can = device.type == "cpu" and cpu_has_bfloat16() and backend != "onnxruntime"
    backbone.half_dtype = torch.bfloat16 if can and (backbone.thins or backbone.splits) else None
    backbone.half_stem = not backbone.splits


def set_threads(count: int | None) -> None:
    """Let torch compute with that many threads in this process; None changes nothing. ValueError: below 1."""
    if count is None:
        return
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"threads is how many compute on the CPU, 1 or more, got {count!r}")
    torch.set_num_threads(count)


def dtype_of_half(half: torch.dtype | bool, device: str | torch.device | None) -> torch.dtype:
    """The dtype that version 0.3's argument `half` of `load_model` means on a device; with a warning."""
    warnings.warn("half is now dtype; the old argument goes in version 0.5", DeprecationWarning, stacklevel=3)
    if half is True:
        return torch.bfloat16 if pick_device(device).type == "cpu" else torch.float16
    if half is False:
        return torch.float32
    return half
