"""Read published annotation files (.pkl, .npz, .json) without executing code.

A pickle may hold plain containers, numpy arrays and scalars, and tables of pandas, which need no pandas here;
everything else is refused (storage/safe_pickle.py).
"""

from __future__ import annotations

import json
import math
import mmap
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..storage.safe_pickle import ERRORS, Array, Stored, shaped, unpickle

_MOST_STEPS = 100_000_000  # opcodes of a pickle; those of AGORA have some millions

READ_ERRORS = (*ERRORS, zipfile.BadZipFile, zlib.error)

# joints of SMPL-X in its own order -> the 53 of `bodies/smplx.py`: without eyes, the jaw last
POSE53 = (*range(22), *range(25, 55), 22)


def read_pickle(path: Path) -> Any:
    """Content of a pickle: dicts, lists, tuples, numbers, texts, arrays; a DataFrame as column -> list.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: it is no pickle, damaged, or refers to any other type, which is named and not executed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise ValueError("it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return plain(unpickle(content, _TABLES, _MOST_STEPS))
    except ERRORS as error:
        raise ValueError(f"{path} was not read: {str(error) or type(error).__name__}") from error


def read_npz(path: Path, keys: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Arrays of an .npz by name, each (N, *shape) with the given shape; other arrays are not read.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: an array is missing, pickled, of another shape or length, or the file is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            missing = [key for key in keys if key not in stored.files]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}; it has {', '.join(stored.files)}")
            arrays = {key: stored[key] for key in keys}
        count = len(next(iter(arrays.values())))
        for key, shape in keys.items():
            if arrays[key].shape != (count, *shape):
                raise ValueError(f"its {key} must be {(count, *shape)}, got {arrays[key].shape}")
    except READ_ERRORS as error:
        raise ValueError(f"{path} was not read: {str(error) or type(error).__name__}") from error
    return arrays


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: it is truncated or no JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} was not read: {error}") from error


# File that data sets with such fits need in their root -> instruction if it is missing
MEAN_HANDS = {
    "SMPLX_NEUTRAL.npz": "its fits are relative to SMPL-X's mean hands: copy or link your file from "
    "smpl-x.is.tue.mpg.de there"
}


def read_mean_hands(path: Path) -> np.ndarray:
    """(30, 3) rotation vectors of SMPL-X's mean hands, left first: what `flat_hand_mean=False` adds.

    Fits made with the smplx package's default are relative to these hands, ours to flat ones.

    Args:
        path: of SMPLX_NEUTRAL.npz.

    Raises:
        ValueError: it has no mean hands.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return np.concatenate([stored[f"hands_mean{side}"].reshape(15, 3) for side in "lr"])
    except READ_ERRORS as error:
        raise ValueError(
            f"{path} has no mean hands ({error}); take SMPLX_NEUTRAL.npz of SMPL-X v1.1"
        ) from error


def plain(value: Any) -> Any:
    """The value with all stand-ins of pickled objects replaced, recursively.

    Raises:
        ValueError: a stand-in has no plain value.
    """
    if isinstance(value, Array):
        return _to_plain_array(value)
    if isinstance(value, Frame):
        return _columns(value)
    if isinstance(value, dict):
        return {plain(key): plain(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(content) for content in value)
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    raise ValueError(f"its pickle has a {type(value).__name__} in place of data")


def _to_plain_array(value: Array) -> Any:
    """An array of numbers, bools, texts or objects; a scalar for one without a shape."""
    if value.state is None:
        raise ValueError("its pickle has an array without content")
    shape, dtype, is_fortran, content = value.state
    if dtype.code.startswith("O"):
        objects = [content] if isinstance(content, Stored) else list(content)
        if len(objects) != math.prod(shape):
            raise ValueError(f"its pickle has {len(objects)} objects for the shape {shape}")
        array = np.empty(len(objects), object)
        for place, part in enumerate(objects):
            array[place] = plain(part)
        return array.reshape(shape, order="F" if is_fortran else "C") if shape else array[0]
    if not re.fullmatch(r"[fiu][1248]|b1|[SU]\d{1,6}", dtype.code):
        raise ValueError(f"its pickle has numbers of the type {dtype.code!r}")
    array = shaped(shape, dtype, is_fortran, content)
    return array if array.shape else array.item()


class Frame(Stored):
    """Stands in for a pandas.DataFrame."""


class Blocks(Stored):
    """Stands in for the blocks of columns of one type and the axes of a DataFrame."""

    def parts(self) -> tuple[Any, list[tuple[Any, Any]]]:
        """Names of the columns; (values, column indices) of each block."""
        if self.args:  # since pandas 1.3
            blocks, axes = self.args
            return axes[0], [block.args[:2] for block in blocks]
        inside = self.state[3]["0.14.1"]
        return inside["axes"][0], [(block["values"], block["mgr_locs"]) for block in inside["blocks"]]


class Labels(Stored):
    """Stands in for the function that makes a pandas.Index."""


_TABLES: dict[str, Any] = {
    **{f"{m}.slice": slice for m in ("builtins", "__builtin__")},
    **{f"pandas.{m}DataFrame": Frame for m in ("", "core.frame.")},
    **{f"pandas.core.internals.{m}BlockManager": Blocks for m in ("", "managers.")},
    **{f"pandas._libs.internals.{m}": Stored for m in ("_unpickle_block", "BlockPlacement")},
    "pandas.core.indexes.base._new_Index": Labels,
    **{f"pandas.{m}Index": Stored for m in ("", "core.indexes.base.")},
    **{f"pandas.{m}RangeIndex": Stored for m in ("", "core.indexes.range.")},
    "pandas.core.indexes.numeric.Int64Index": Stored,
}


def _columns(frame: Frame) -> dict[str, list[Any]]:
    """Column -> its values, row by row."""
    blocks = frame.state.get("_mgr", frame.state.get("_data"))
    if not isinstance(blocks, Blocks):
        raise ValueError("its table has no columns")
    labels, parts = blocks.parts()
    names = list(plain(labels.args[1]["data"]))
    columns: dict[str, list[Any]] = {}
    for values, places in parts:
        places = places.args[0] if type(places) is Stored else places  # a BlockPlacement
        numbers = range(*places.indices(len(names))) if isinstance(places, slice) else plain(places).tolist()
        for number, row in zip(numbers, plain(values), strict=True):
            columns[str(names[number])] = list(row)
    return columns
