"""Checks of what a user gives `predict`, `predict_batch` and `predict_video` beside the images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from .image import LoadedImage

Made = TypeVar("Made")
_PLAIN_ERRORS = (  # that are made of a sentence
    ValueError, OSError, FileNotFoundError, IsADirectoryError, PermissionError, ConnectionError, TimeoutError,
    ImportError,
)  # fmt: skip
MOST_TILES = 8  # along the longer side of an image


def check_options(
    fov: float | None,
    threshold: float | None,
    max_people: int | None = None,
    tiles: int | str = 1,
    batch_size: int = 1,
    search_below: float | None = None,
) -> None:
    """Raises ValueError for an option of `predict` outside of its range."""
    if fov is not None and not 1 < _number("fov", fov) < 179:
        raise ValueError(f"fov is the field of view in degrees, between 1 and 179, got {fov}")
    if threshold is not None and not 0 <= _number("threshold", threshold) <= 1:
        raise ValueError(f"threshold is a score between 0 and 1, got {threshold}")
    if search_below is not None and not 0 <= _number("search_below", search_below) <= 1:
        raise ValueError(f"search_below is a score between 0 and 1, got {search_below}")
    if max_people is not None and _whole("max_people", max_people) < 0:
        raise ValueError(f"max_people must not be negative, got {max_people}")
    if isinstance(tiles, str) and tiles != "auto":
        raise ValueError(f"tiles must be a whole number or 'auto', got {tiles!r}")
    if tiles != "auto" and not 1 <= _whole("tiles", tiles) <= MOST_TILES:
        raise ValueError(
            f"tiles is how many parts lie along a picture, 1 to {MOST_TILES}, or 'auto', got {tiles}"
        )
    if _whole("batch_size", batch_size) < 1:
        raise ValueError(f"batch_size is how many images are computed at once, 1 or more, got {batch_size}")


def check_switches(**values: Any) -> None:
    """Raises ValueError for a switch that is neither True nor False."""
    for name, value in values.items():
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{name} must be True or False, got {value!r}")


def check_any_rotation(value: Any) -> None:
    """Raises ValueError if `any_rotation` is none of its values."""
    if not (isinstance(value, (bool, np.bool_)) or (isinstance(value, str) and value == "auto")):
        raise ValueError(f"any_rotation must be True, False or 'auto', got {value!r}")


def _number(name: str, value: Any) -> float:
    if isinstance(value, (str, bytes, bool)) or not hasattr(value, "__float__"):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return float(value)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    return int(value)


def several_images(images: Any) -> Any:
    """What `predict_batch` was given, if it can be several images."""
    single = isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, LoadedImage))
    single = single or hasattr(images, "read") or not hasattr(images, "__iter__")
    if single or getattr(images, "ndim", 0) == 3:
        raise ValueError(
            f"predict_batch takes several images, as a list, got one {type(images).__name__}; "
            "use predict for one image, or put it into a list"
        )
    return images


def one_each(name: str, given: Iterable[Any] | None, images: Any) -> list[Any] | None:
    """`given` as a list, if it holds one entry per image."""
    if given is None:
        return None
    if isinstance(given, (str, bytes)) or not hasattr(given, "__iter__"):
        raise ValueError(f"{name} must be a list with one entry (or None) per image, got {given!r}")
    entries = list(given)
    if name == "Ks" and len(entries) == 3 and np.shape(entries[0]) == (3,):  # rows of one K
        raise ValueError("Ks must hold one K (or None) per image; for one camera give [K] * len(images)")
    if hasattr(images, "__len__") and len(entries) != len(images):
        raise ValueError(
            f"{name} must hold one entry (or None) per image: got {len(entries)} for {len(images)} images"
        )
    return entries


def entries_of(name: str, given: list[Any] | None, start: int, count: int) -> list[Any]:
    """The entries of the images from `start` on, None for each where none are given."""
    if given is None:
        return [None] * count
    entries = given[start : start + count]
    if len(entries) < count:
        raise ValueError(f"{name} must hold one entry (or None) per image: got {len(given)}, too few")
    return entries


def in_turn(make: Callable[[Any], Made], values: Iterable[Any], *, start: int, told: bool) -> list[Made]:
    """`make` of each value of a batch that begins at image `start`; errors name the image if `told`."""
    made = []
    for number, value in enumerate(values, start):
        try:
            made.append(make(value))
        except (ValueError, OSError, ImportError) as error:
            if not told or type(error) not in _PLAIN_ERRORS:
                raise
            raise type(error)(f"images[{number}]: {error}") from error
    return made
