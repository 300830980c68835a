"""EXIF orientation of annotated pictures: which raster 2D points belong to, and how they turn upright.

Pictures are read upright. Annotation tools differ: some label the picture as it is stored in the file, others
as it is displayed. The width and height in the annotations tell which, if the orientation swaps them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..preprocessing.decode import register_heic

_TAG = 0x0112
_SWAPS = (5, 6, 7, 8)  # orientations whose upright picture has width and height exchanged
MIRRORED = (2, 4, 5, 7)  # orientations in which the stored picture is a mirror image


class StoredRaster(NamedTuple):
    """Header of a picture file.

    Attributes:
        orientation: EXIF orientation, 1 (upright) to 8.
        size: (height, width) of the pixels in the file.
    """

    orientation: int
    size: tuple[int, int]


def stored_raster(path: Path) -> StoredRaster:
    """Orientation and size of a picture file, without decoding it.

    Raises:
        ValueError: it is no picture.
        FileNotFoundError: it does not exist.
        ImportError: it is HEIC, and pillow-heif is missing.
    """
    try:
        with path.open("rb") as file:
            register_heic(file, path.name)
        with Image.open(path) as picture:
            orientation = picture.getexif().get(_TAG, 1)
            return StoredRaster(orientation if orientation in range(1, 9) else 1, picture.size[::-1])
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:  # a parser may raise anything on a broken file
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def annotated_orientation(raster: StoredRaster, annotated: tuple[int, int] | None) -> int:
    """The orientation by which annotations have to be turned: the file's, or 1 if they are upright already.

    Args:
        raster: header of the picture file.
        annotated: (height, width) of the picture according to its annotations; None if they do not say.

    Raises:
        ValueError: the annotations fit neither raster, or both.
    """
    orientation, stored = raster
    upright = stored[::-1] if orientation in _SWAPS else stored
    if annotated is not None and annotated not in (stored, upright):
        raise ValueError(
            f"its annotations are for {annotated[1]}x{annotated[0]} pixels, but the picture has "
            f"{upright[1]}x{upright[0]}; use the picture that was annotated"
        )
    if orientation == 1:
        return 1
    if annotated is None or stored == upright:
        raise ValueError(
            f"it has EXIF orientation {orientation}, and its annotations do not tell whether they belong to "
            "the stored or to the upright picture; save the annotated picture without EXIF orientation"
        )
    return orientation if annotated == stored else 1


def turn_points(points: np.ndarray, orientation: int, stored: tuple[int, int]) -> np.ndarray:
    """(..., 2) pixels of the stored picture -> the same points in the upright picture.

    Args:
        points: x, y with the top left corner of the picture at (0, 0).
        orientation: EXIF orientation of the stored picture.
        stored: its (height, width).
    """
    height, width = stored
    x, y = points[..., 0], points[..., 1]
    turned = {
        1: (x, y),
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }
    return np.stack(turned[orientation], axis=-1)


def turn_intrinsics(K: np.ndarray, orientation: int, stored: tuple[int, int]) -> np.ndarray:
    """(3, 3) intrinsics without skew of the stored picture -> those of the upright one, as `turn_points`."""
    focal = K[[1, 0], [1, 0]] if orientation in _SWAPS else K[[0, 1], [0, 1]]
    turned = np.diag([*focal, 1.0])
    turned[:2, 2] = turn_points(K[:2, 2], orientation, stored)
    return turned
