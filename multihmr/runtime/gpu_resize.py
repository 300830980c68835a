"""`Letterbox.apply` on a GPU: Pillow's bicubic filter as two matrices, with Pillow's rounding in between."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..preprocessing.letterbox import Letterbox

SUPPORT = 2.0  # of the filter, to both sides [pixels]
SHARPNESS = -0.5  # Pillow's choice of the free number of cubic convolution (Keys, 1981)


def seen_through(letterbox: Letterbox, picture_HW3: Tensor) -> Tensor:
    """(H, W, 3) uint8 -> (3, height, width) float32 in [0, 1] on the same device, as `Letterbox.to_tensor`.

    Pillow's weights have 22 bits, so that a pixel in some thousand is a level of 255 off.
    """
    height, width = picture_HW3.shape[:2]
    left, right, x0, x1 = letterbox.span(width, 0)
    top, bottom, y0, y1 = letterbox.span(height, 1)
    canvas = picture_HW3.new_full((3, *letterbox.shape), letterbox.padding, dtype=torch.float32)
    if right > left and bottom > top:
        across = _side(width, right - left, x0, x1, letterbox.reducing_gap)
        along = _side(height, bottom - top, y0, y1, letterbox.reducing_gap)
        x_3HW = picture_HW3[along.low : along.high, across.low : across.high].permute(2, 0, 1).float()
        if across.factor > 1 or along.factor > 1:
            factors = along.factor, across.factor
            x_3HW = _levels(F.avg_pool2d(x_3HW, factors, ceil_mode=True, count_include_pad=False))
        rows, columns = x_3HW.shape[1:]
        x_3HW = _levels(x_3HW @ weights(columns, across.pixels, across.start, across.end, x_3HW.device).T)
        x_3HW = _levels(weights(rows, along.pixels, along.start, along.end, x_3HW.device) @ x_3HW)
        canvas[:, top:bottom, left:right] = x_3HW
    return (canvas.flip(2) if letterbox.flip else canvas) / 255


class _Side(NamedTuple):
    """What is done along one side of a picture: the mean of each `factor` pixels from `low` to `high`, of
    which then so many `pixels` are made that show what lies from `start` to `end`."""

    low: int
    high: int
    factor: int
    pixels: int
    start: float
    end: float


def _side(length: int, count: int, start: float, end: float, gap: float | None) -> _Side:
    """Pillow's `Image.resize(reducing_gap=gap)`."""
    step = (end - start) / count
    factor = 1 if gap is None else max(1, int(step / gap))
    if factor == 1:
        return _Side(0, length, 1, count, start, end)
    reach = (SUPPORT - 0.5) * step
    low, high = max(0, int(start - reach)), min(length, math.ceil(end + reach))
    return _Side(low, high, factor, count, (start - low) / factor, (end - low) / factor)


def _levels(x: Tensor) -> Tensor:
    """Whole numbers that a byte holds."""
    return (x + 0.5).floor().clamp(0, 255)


@functools.lru_cache(maxsize=32)
def weights(length: int, count: int, start: float, end: float, device: torch.device) -> Tensor:
    """(count, length) how much each of `length` pixels is worth to each of `count` that show start to end.

    When shrinking, the filter is widened as much.
    """
    step = (end - start) / count
    wide = max(step, 1.0)
    middles = start + (np.arange(count) + 0.5) * step
    away = np.abs(np.arange(length) + 0.5 - middles[:, None]) / wide
    near = ((SHARPNESS + 2) * away - (SHARPNESS + 3)) * away**2 + 1
    far = SHARPNESS * (((away - 5) * away + 8) * away - 4)
    filtered = np.where(away < 1, near, np.where(away < SUPPORT, far, 0.0))
    return torch.from_numpy(filtered / filtered.sum(1, keepdims=True)).float().to(device)
