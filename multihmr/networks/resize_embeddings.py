"""Resize learned position embeddings (per row, column or patch) to a grid of another size."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .backbones.dinov2 import resized_positions
from .base import Network

# Sizes in shares of that of training. How near people seem follows their size in the window: with the
# bundled default a fifth less moves them 5 % away, a quarter more 8 % nearer (docs/guides/small_people.md);
# beyond, distances are wrong.
LEAST_SHARE, MOST_SHARE = 0.7, 1.3


def check_image_size(network: Network, image_size: int) -> None:
    """Check that predictions with windows of another size than that of training make sense.

    Raises:
        ValueError: the network takes one size only, or not this one.
    """
    own = network.config.image_size
    if not getattr(network.config, "rectangular", False):
        raise ValueError(
            f"this network takes images of {own} pixels only; image_size is for networks that take windows "
            "of any shape, as the bundled default"
        )
    sizes = [size for size in range(32, 2 * own, 32) if LEAST_SHARE * own <= size <= MOST_SHARE * own]
    if isinstance(image_size, bool) or not hasattr(image_size, "__index__") or image_size not in sizes:
        raise ValueError(
            f"image_size must be one of {', '.join(map(str, sizes))}, got {image_size!r}; this network was "
            f"trained with {own}"
        )


def at_image_size(network: Network, image_size: int) -> Network:
    """The network for windows of another size: the same weights, with resized embeddings of positions.

    Raises:
        ValueError: the backbone cannot take this size.
    """
    config = dataclasses.replace(network.config, image_size=image_size)
    family: Any = type(network)
    other: Network = family(config, network.body)
    other.load_state_dict(stretched(network.state_dict(), other.state_dict()))
    other.backbone.half_dtype = network.backbone.half_dtype
    return other.train(network.training)


def stretched(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict `weights` with tensors resized to the shapes of `wanted`, which has the same names."""
    return {name: _stretched(value, wanted[name]) for name, value in weights.items()}


def _stretched(value: Tensor, wanted: Tensor) -> Tensor:
    if value.shape == wanted.shape:
        return value
    if value.ndim == 3:  # DINOv2's positions: the class token, then a square
        before, side = (round((table.shape[1] - 1) ** 0.5) for table in (value, wanted))
        return resized_positions(value, before, side, side)
    rows = F.interpolate(value.T[None], size=len(wanted), mode="linear", align_corners=False)[0].T
    return rows.contiguous()
