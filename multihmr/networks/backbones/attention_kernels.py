"""Kernels of the self-attention of ViT backbones: torch's own or those of xformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .hybrid import SelfAttention

KERNELS = ("torch", "xformers")


def set_attention(backbone: nn.Module, name: str, *, device: torch.device, dtype: torch.dtype) -> None:
    """Select the attention kernels of every block of a ViT backbone.

    Args:
        backbone: with blocks of `SelfAttention`.
        name: of KERNELS.
        device: where it will compute.
        dtype: in which precision.

    Raises:
        ValueError: the name is unknown, the backbone has no such blocks, or xformers has no kernel for the
            device and precision.
        ImportError: xformers is not installed.
    """
    if name not in KERNELS:
        raise ValueError(f"attention must be one of {', '.join(KERNELS)}, got {name!r}")
    layers = [module for module in backbone.modules() if isinstance(module, SelfAttention)]
    if name == "torch":
        for layer in layers:
            layer.__dict__.pop("attend", None)
        return
    operators = _xformers()
    if not layers:
        raise ValueError(f"attention={name!r} is for ViT backbones, got {type(backbone).__name__}")
    width = layers[0].proj.in_features // layers[0].head_count
    trial = torch.zeros(1, 16, layers[0].head_count, width, device=device, dtype=dtype)
    try:
        operators.memory_efficient_attention(trial, trial, trial)
    except NotImplementedError as error:
        raise ValueError(
            f"xformers has no attention kernel for {device.type}, {str(dtype).removeprefix('torch.')} and "
            f"heads of {width} numbers; leave out attention='xformers' (its kernels are for CUDA)"
        ) from error

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, heads, N, D) of each, which xformers takes as (B, N, heads, D)."""
        out: Tensor = operators.memory_efficient_attention(*(x.transpose(1, 2) for x in (q, k, v)))
        return out.transpose(1, 2)

    for layer in layers:
        layer.attend = attend  # type: ignore[method-assign]


def _xformers() -> Any:
    """The module xformers.ops."""
    try:
        import xformers.ops
    except ImportError as error:
        raise ImportError("attention='xformers' needs xformers: pip install 'multihmr[xformers]'") from error
    return xformers.ops
