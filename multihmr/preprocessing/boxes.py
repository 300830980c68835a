"""Boxes around people: checks of those that users give, and boxes around points."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from .letterbox import SMALLEST_CROP

FORM = "boxes must be (N, 4), x0, y0, x1, y1 in pixels of the image as given"


def check_boxes(boxes: Any, height: int, width: int) -> np.ndarray:
    """Check boxes that a user gives.

    Args:
        boxes: (N, 4) x0, y0, x1, y1 in pixels, of any array type.
        height: of the image [pixels].
        width: of the image [pixels].

    Returns:
        (N, 4) float64 boxes, each of which shows a part of the image; they may reach beyond it.

    Raises:
        ValueError: they have another form, one lies outside, is empty or too small, or they are evidently
            (x, y, width, height) or shares of the image.
    """
    if isinstance(boxes, Tensor):
        boxes = boxes.detach().cpu().numpy()
    try:
        array = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{FORM}; got {type(boxes).__name__} that is no table of numbers") from None
    if not array.size and array.ndim <= 2:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"{FORM}; got {array.shape}{_cure(array)}")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array).all(1)).argmax())
        raise ValueError(f"box {bad} is {_text(array[bad])}; its numbers must be finite")
    if array.min() >= 0 and array.max() <= 1 and max(height, width) > 1:
        raise ValueError(f"{FORM}; these lie in [0, 1]: multiply x by {width} and y by {height}")
    for i, box in enumerate(array):
        _check_box(i, box, height, width)
    return array


def boxes_around(points: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """(N, 4) float32 boxes x0, y0, x1, y1 around (N, M, 2) pixels, clipped to an image (height, width)."""
    height, width = image_size
    if not points.size:
        return np.zeros((len(points), 4), np.float32)
    # NumPy's minima are 8 times as fast along the last axis.
    points_N2M = np.ascontiguousarray(points.transpose(0, 2, 1))
    boxes = np.concatenate([points_N2M.min(axis=2), points_N2M.max(axis=2)], axis=1).astype(np.float32)
    return np.clip(boxes, np.float32(0), np.array([width, height, width, height], np.float32))


def box_of_points(points: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """(M, 2) pixels -> (4,) the box of those within the image; None if there are none.

    It is a tenth larger on each side, for the body around them, and cut to the image.
    """
    limit = np.array([width, height])
    inside = points[((points >= 0) & (points < limit)).all(-1)]
    if not len(inside):
        return None
    low, high = inside.min(0), inside.max(0)
    margin = 0.1 * max(1.0, float((high - low).max()))
    return np.concatenate([np.maximum(low - margin, 0), np.minimum(high + margin, limit)])


def _check_box(i: int, box: np.ndarray, height: int, width: int) -> None:
    x0, y0, x1, y1 = box.tolist()
    if x1 < x0 or y1 < y0:
        like_sizes = x1 > 0 and y1 > 0 and x0 + x1 <= 1.05 * width and y0 + y1 <= 1.05 * height
        cure = (
            "it looks like (x, y, width, height): give (x, y, x + width, y + height)"
            if like_sizes
            else "order its corners"
        )
        raise ValueError(f"box {i} is {_text(box)}, which ends before it begins; {cure}")
    if x1 == x0 or y1 == y0:
        raise ValueError(f"box {i} is {_text(box)}, which has no area; leave it out")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise ValueError(
            f"box {i} is {_text(box)}, outside the {width}x{height} image; give pixels of this one"
        )
    if max(x1 - x0, y1 - y0) < SMALLEST_CROP:
        raise ValueError(
            f"box {i} is {x1 - x0:g}x{y1 - y0:g} pixels, too small to see a person in it (at least "
            f"{SMALLEST_CROP:g}); leave it out"
        )


def _cure(array: np.ndarray) -> str:
    if array.shape == (4,):
        return "; put a single box into a list"
    if array.ndim == 2 and array.shape[1] > 4:
        return "; drop what follows the corners, scores or classes, with boxes[:, :4]"
    if array.ndim == 3:
        return "; for several images give predict_batch one table each"
    return ""


def _text(box: np.ndarray) -> str:
    return f"({', '.join(f'{number:g}' for number in box.tolist())})"
