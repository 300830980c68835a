"""Resize learned position embeddings (per row, column or patch) to a grid of another size."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


def stretched(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` resized to the shapes of `wanted`, which has all their names."""
    return {name: _stretched(value, wanted[name]) for name, value in weights.items()}


def _stretched(value: Tensor, wanted: Tensor) -> Tensor:
    if value.shape == wanted.shape:
        return value
    if value.ndim == 3:  # DINOv2's positions: the class token, then a square
        from timm.layers import resample_abs_pos_embed

        side = round((wanted.shape[1] - 1) ** 0.5)
        return resample_abs_pos_embed(value, [side, side], num_prefix_tokens=1)
    rows = F.interpolate(value.T[None], size=len(wanted), mode="linear", align_corners=False)[0].T
    return rows.contiguous()
