"""Read arrays from body model files: plain arrays, chumpy objects, scipy sparse matrices."""

from __future__ import annotations

import zipfile
import zlib
from typing import Any

import numpy as np

from ..storage import safe_pickle as pickles

# Errors of reading a file of arrays that is damaged or of another format.
READ_ERRORS = (*pickles.ERRORS, zipfile.BadZipFile, zlib.error)

_LARGEST_SPARSE = 80_000_000  # numbers of a matrix that is written out: SMPL by SMPL-X has 72 million


class _Csc(pickles.Stored):
    """Stands in for scipy.sparse.csc_matrix."""


class _Chumpy(pickles.Stored):
    """Stands in for chumpy.Ch."""


_STAND_INS: dict[str, Any] = {
    "chumpy.ch.Ch": _Chumpy,
    **{f"scipy.sparse.{m}csc_matrix": _Csc for m in ("csc.", "_csc.")},
    **{f"scipy.sparse.{m}csc_array": _Csc for m in ("csc.", "_csc.")},
}


def unpickle(stream: Any) -> Any:
    """The object in a seekable stream, made of containers and of what `to_array` takes; nothing is run."""
    return pickles.unpickle(stream, _STAND_INS)


def to_array(value: Any) -> np.ndarray:
    """An array of numbers; ValueError where it is none or the parts do not fit each other."""
    value = pickles.unwrapped(value)
    if isinstance(value, _Chumpy):
        return to_array(value.state["x"])
    return _csc_to_array(value.state) if isinstance(value, _Csc) else pickles.to_array(value)


def _csc_to_array(state: dict[str, Any]) -> np.ndarray:
    """Compressed sparse columns: those of column c are data[indptr[c] : indptr[c + 1]], in rows `indices`."""
    count, columns = (int(length) for length in state["_shape"])
    if not 0 < count * columns <= _LARGEST_SPARSE:
        raise ValueError(f"its sparse matrix has the shape {tuple(state['_shape'])}")
    data, rows, ends = (pickles.to_array(state[key]) for key in ("data", "indices", "indptr"))
    counts = np.diff(ends)
    if ends.shape != (columns + 1,) or (counts < 0).any() or counts.sum() != len(data) or ends[0] != 0:
        raise ValueError("its sparse matrix does not add up")
    if len(rows) and (rows.min() < 0 or rows.max() >= count):
        raise ValueError(f"its sparse matrix has the rows {rows.min()} to {rows.max()} of {count}")
    dense = np.zeros((count, columns), data.dtype)
    dense[rows, np.repeat(np.arange(columns), counts)] = data
    return dense
