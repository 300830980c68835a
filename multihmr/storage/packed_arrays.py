"""Arrays in a safetensors file, compressed without loss: `save_packed`, `load_packed`.

The bytes of an array are sorted into planes (all first bytes of its numbers, then all second ones, ...),
because high bytes resemble each other more than the bytes of one number do, and compressed with zlib. The
file then holds one uint8 tensor of that name; types and shapes are in its metadata. An array that would not
get smaller is stored as it is.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

_KEY = "packed"  # of the metadata: name -> [type, shape, planes]
_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float16", "float32")
_MOST_BYTES = 1 << 30  # of an array once it is unpacked; damaged files claim any size


def save_packed(
    arrays: Mapping[str, np.ndarray], path: str | os.PathLike[str], metadata: Mapping[str, str]
) -> None:
    """Write arrays and texts to a file that `load_packed` reads.

    Args:
        arrays: by name, of integers with 8 to 64 bits or floats with 16 or 32.
        path: of the file.
        metadata: texts by name.
    """
    stored, packed = {}, {}
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        options = {planes: zlib.compress(_planes(array, planes), 9) for planes in {1, array.itemsize}}
        planes, smallest = min(options.items(), key=lambda item: len(item[1]))
        if len(smallest) < array.nbytes:
            stored[name] = np.frombuffer(smallest, np.uint8)
            packed[name] = [str(array.dtype), list(array.shape), planes]
        else:
            stored[name] = array
    save_file(stored, path, {**metadata, _KEY: json.dumps(packed)})


def load_packed(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays by name and texts by name of a file of `save_packed`, or of any safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged; the sentence names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, "np") as file:
            metadata = dict(file.metadata() or {})
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        packed = json.loads(metadata.pop(_KEY, "{}"))
        return {
            name: _unpacked(array, *packed[name]) if name in packed else array
            for name, array in stored.items()
        }, metadata
    except (SafetensorError, zlib.error, ValueError, TypeError) as error:
        raise ValueError(f"{path} is no readable safetensors file: {error}") from error


def _planes(array: np.ndarray, planes: int) -> bytes:
    return array.reshape(-1).view(np.uint8).reshape(-1, planes).T.tobytes()


def _unpacked(stored: np.ndarray, dtype: str, shape: list[int], planes: int) -> np.ndarray:
    if dtype not in _DTYPES or planes not in (1, np.dtype(dtype).itemsize):
        raise ValueError(f"an array has the type {dtype!r} in {planes!r} planes")
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not 0 <= size <= _MOST_BYTES:
        raise ValueError(f"an array has the shape {shape}")
    decoder = zlib.decompressobj()
    numbers = decoder.decompress(stored.tobytes(), size + 1)
    if len(numbers) != size or not decoder.eof:
        raise ValueError(f"an array of shape {shape} has another number of bytes than {size}")
    sorted_bytes = np.frombuffer(numbers, np.uint8).reshape(planes, -1)
    return np.ascontiguousarray(sorted_bytes.T).reshape(-1).view(dtype).reshape(shape)
