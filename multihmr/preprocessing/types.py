"""Types of arguments: `ImageLike` for images, `IntrinsicsLike` for cameras, `BoxesLike` for boxes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO, Literal, Protocol, Union

import numpy as np
from PIL import Image
from torch import Tensor


class DecodedImage(Protocol):
    """An image that was read already: `preprocessing.image.LoadedImage`."""

    @property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright."""
        ...


# Whatever `load_image` reads: a path, a URL, a data URI or base64 text; encoded bytes; a binary file; a PIL
# image; a (H, W, 3), (H, W, 4) or (H, W) uint8 array; a (3, H, W) tensor.
ImageLike = Union[
    str,
    "os.PathLike[str]",
    bytes,
    bytearray,
    memoryview,
    BinaryIO,
    Image.Image,
    np.ndarray,
    Tensor,
    DecodedImage,
]

# A (3, 3) camera matrix in pixels: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].
IntrinsicsLike = np.ndarray | Tensor | Sequence[Sequence[float]]

# (N, 4) boxes x0, y0, x1, y1 in pixels.
BoxesLike = np.ndarray | Tensor | Sequence[Sequence[float]]

# Order of the colour channels of arrays and tensors; files know their own.
ChannelOrder = Literal["rgb", "bgr"]
