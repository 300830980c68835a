"""Letterbox and crop transforms: how pixels and intrinsics move into the input window of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

PADDING = 128  # grey around the image, in all three channels
MOST_SHRINKAGE = 0.02  # an image is drawn smaller by so much where that saves rows or columns of a window
PERSON_CONTEXT = 1.25  # side of a person's crop, in longer sides of their box
SMALLEST_CROP = 8.0  # [pixels of the image]: less shows nothing


Array = TypeVar("Array", np.ndarray, Tensor)


def shortest_side(size: int, multiple: int) -> int:
    """The least shorter side of a rectangular window whose longer side is `size` [pixels].

    Training draws windows down to it, and prediction asks for no thinner ones.
    """
    return multiple * math.ceil(size / 2 / multiple)


@dataclass(frozen=True)
class Letterbox:
    """Transform of an image into a window of pixels: scale * image + shift, then mirrored if `flip`.

    Pixels move, metres do not: with `intrinsics(K)` a 3D point falls where `points` moves its pixel. When
    mirrored, that holds for the mirrored world, in which every x has the other sign.

    Attributes:
        scale: (x, y); the two differ by less than a pixel of the window over the image, and only in
            `official_2024`.
        shift: (x, y) in pixels of the window.
        size: side of the window, of rectangles the longer one [pixels].
        flip: mirror left and right.
        padding: level of all channels where the image does not reach.
        reducing_gap: of Pillow's resize: large images are first shrunk by whole pixels, quicker and as good.
        rectangle_shape: (height, width) of a window that is no square; None for squares.
    """

    scale: tuple[float, float]
    shift: tuple[float, float]
    size: int
    flip: bool = False
    padding: int = PADDING
    reducing_gap: float | None = 3.0
    rectangle_shape: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the window [pixels]."""
        return self.rectangle_shape or (self.size, self.size)

    @classmethod
    def whole(cls, height: int, width: int, size: int) -> Letterbox:
        """The whole image, with its aspect ratio, in the middle of the square."""
        return cls.box(0, 0, width, height, size)

    @classmethod
    def rectangle(cls, height: int, width: int, size: int, multiple: int) -> Letterbox:
        """The whole image in the middle of the smallest window that hardly pads it.

        The longer side is `size`, the shorter one a multiple of `multiple` and at least half as long. The
        image is drawn up to 2 % smaller than it could be where that saves a multiple.
        """
        longer, shorter = max(height, width), min(height, width)
        wanted = (1 - MOST_SHRINKAGE) * shorter * size / longer
        side = max(shortest_side(size, multiple), multiple * math.ceil(wanted / multiple - 1e-9))
        scale = min(size / longer, side / shorter)
        shape = (side, size) if width >= height else (size, side)
        shift = (shape[1] / 2 - scale * width / 2, shape[0] / 2 - scale * height / 2)
        return cls((scale, scale), shift, size, rectangle_shape=shape if side < size else None)

    def cut(self, x: int, y: int, shape: tuple[int, int]) -> Letterbox:
        """The part of this window from pixel (x, y) on, of `shape` (height, width); not of a mirrored one."""
        if self.flip:
            raise ValueError("a mirroring letterbox cannot be cut")
        return replace(self, shift=(self.shift[0] - x, self.shift[1] - y), rectangle_shape=shape)

    @classmethod
    def official_2024(cls, height: int, width: int, size: int) -> Letterbox:
        """The whole image as the checkpoints of 2024 were trained: whole pixels of content, black around."""
        longer = max(height, width)
        content = [round(side / longer * size) for side in (width, height)]  # half to even, as theirs
        margins = [round((size - side) * 0.5) for side in content]
        scale = (max(content[0], 1) / width, max(content[1], 1) / height)
        return cls(scale, (margins[0], margins[1]), size, padding=0, reducing_gap=None)

    @classmethod
    def box(cls, x0: float, y0: float, x1: float, y1: float, size: int, *, flip: bool = False) -> Letterbox:
        """The box from (x0, y0) to (x1, y1) [image pixels], undistorted, centred; it may leave the image."""
        side = max(x1 - x0, y1 - y0)
        if not (x1 > x0 and y1 > y0 and math.isfinite(side)) or size < 1:
            raise ValueError(
                f"a letterbox needs x1 > x0, y1 > y0, size >= 1; got {(x0, y0, x1, y1)}, size {size}"
            )
        scale = size / side
        shift = (size / 2 - scale * (x0 + x1) / 2, size / 2 - scale * (y0 + y1) / 2)
        return cls((scale, scale), shift, size, flip)

    @classmethod
    def person(cls, x0: float, y0: float, x1: float, y1: float, size: int) -> Letterbox:
        """A person's box with context around it, the input of top-down networks.

        Its side is 1.25 times the longer side of the box, at least `SMALLEST_CROP` pixels of the image.
        """
        half = max(PERSON_CONTEXT * max(x1 - x0, y1 - y0), SMALLEST_CROP) / 2
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        return cls.box(x - half, y - half, x + half, y + half, size)

    def to_tensor(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, height, width) float32 in [0, 1]: `apply` as networks take it."""
        return torch.from_numpy(self.apply(image)).permute(2, 0, 1).float().div(255).contiguous()

    def apply(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (height, width, 3) uint8 of the window, `padding` around the image.

        Bicubic, with the filter widened when shrinking, so that a picture of twice the size looks the same.
        """
        canvas = np.full((*self.shape, 3), self.padding, np.uint8)
        height, width = image.shape[:2]
        (left, right, x0, x1) = self.span(width, 0)
        (top, bottom, y0, y1) = self.span(height, 1)
        if right > left and bottom > top:
            box = (x0, y0, x1, y1)
            canvas[top:bottom, left:right] = _resized(
                image, (bottom - top, right - left), box, self.reducing_gap
            )
        return np.ascontiguousarray(canvas[:, ::-1]) if self.flip else canvas

    def span(self, length: int, axis: int) -> tuple[int, int, float, float]:
        """Along one side: pixels of the window that the image fills, and the image pixels that they show."""
        scale, shift = self.scale[axis], self.shift[axis]
        first = max(0, math.ceil(shift - 1e-6))
        last = min(self.shape[1 - axis], math.floor(shift + scale * length + 1e-6))
        start, end = ((edge - shift) / scale for edge in (first, last))
        return first, last, max(start, 0.0), min(end, float(length))

    def content(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom: the pixels of the window that an image of that size fills."""
        left, right, *_ = self.span(width, 0)
        top, bottom, *_ = self.span(height, 1)
        if self.flip:
            left, right = self.shape[1] - right, self.shape[1] - left
        return left, top, max(left, right), max(top, bottom)

    def intrinsics(self, K: Array) -> Array:
        """(..., 3, 3) intrinsics of the image -> of the window; the only place where K follows pixels."""
        moved = K * 1.0  # a copy, for arrays and tensors alike
        moved[..., 0, :] = moved[..., 0, :] * self.scale[0]
        moved[..., 1, :] = moved[..., 1, :] * self.scale[1]
        moved[..., 0, 2] += self.shift[0]
        moved[..., 1, 2] += self.shift[1]
        if self.flip:
            moved[..., 0, 1] *= -1
            moved[..., 0, 2] = self.shape[1] - moved[..., 0, 2]
        return moved

    def image_intrinsics(self, K: Array) -> Array:
        """(..., 3, 3) intrinsics of the window -> of the image: the inverse of `intrinsics`."""
        moved = K * 1.0
        if self.flip:
            moved[..., 0, 1] *= -1
            moved[..., 0, 2] = self.shape[1] - moved[..., 0, 2]
        moved[..., 0, 2] -= self.shift[0]
        moved[..., 1, 2] -= self.shift[1]
        moved[..., 0, :] = moved[..., 0, :] / self.scale[0]
        moved[..., 1, :] = moved[..., 1, :] / self.scale[1]
        return moved

    def points(self, xy: Array) -> Array:
        """(..., 2) pixels of the image -> of the window."""
        moved = xy * 1.0
        moved[..., 0] = moved[..., 0] * self.scale[0] + self.shift[0]
        moved[..., 1] = moved[..., 1] * self.scale[1] + self.shift[1]
        if self.flip:
            moved[..., 0] = self.shape[1] - moved[..., 0]
        return moved

    def inverse_points(self, xy: Array) -> Array:
        """(..., 2) pixels of the window -> of the image."""
        moved = xy * 1.0
        if self.flip:
            moved[..., 0] = self.shape[1] - moved[..., 0]
        moved[..., 0] = (moved[..., 0] - self.shift[0]) / self.scale[0]
        moved[..., 1] = (moved[..., 1] - self.shift[1]) / self.scale[1]
        return moved


def _resized(
    image: np.ndarray, shape: tuple[int, int], box: tuple[float, float, float, float], gap: float | None
) -> np.ndarray:
    """The box (x0, y0, x1, y1) of an (H, W, 3) uint8 image, drawn in `shape` (height, width): bicubic.

    Pillow's results; one or two levels of 255 off in some 3 of 1000 values where torch's vector instructions
    compute them in a ninth of the time. gap: of Pillow's resize; None takes Pillow and its exact results.
    """
    height, width = image.shape[:2]
    part = max(box[0], box[1], width - box[2], height - box[3]) > 1e-6
    if gap is None or part or max(width / shape[1], height / shape[0]) >= 2 * gap or not _resizes_quickly():
        whole = Image.fromarray(np.ascontiguousarray(image))
        size = (shape[1], shape[0])
        return np.asarray(whole.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=gap))
    ours = image if image.flags.writeable and min(image.strides) > 0 else image.copy()
    image_1CHW = torch.from_numpy(ours).permute(2, 0, 1)[None]
    drawn_1Chw = F.interpolate(image_1CHW, size=shape, mode="bicubic", antialias=True)
    return drawn_1Chw[0].permute(1, 2, 0).numpy()


@cache
def _resizes_quickly() -> bool:
    """Whether torch has vector instructions for resizing bytes on this processor."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
