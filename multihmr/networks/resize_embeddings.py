"""Resize learned position embeddings (per row, column or patch) to a grid of another size."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from .backbones.dinov2 import resized_positions


def stretched(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` resized to the shapes of `wanted`, which has all their names."""
    return {name: _stretched(value, wanted[name]) for name, value in weights.items()}


def _stretched(value: Tensor, wanted: Tensor) -> Tensor:
    if value.shape == wanted.shape:
        return value
    if value.ndim == 3:  # DINOv2's positions: the class token, then a square
        before, side = (round((table.shape[1] - 1) ** 0.5) for table in (value, wanted))
        return resized_positions(value, before, side, side)
    rows = F.interpolate(value.T[None], size=len(wanted), mode="linear", align_corners=False)[0].T
    return rows.contiguous()
