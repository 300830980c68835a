"""Read untrusted pickles as plain containers, numpy arrays and scalars; no code in them is executed.

A pickle is a program that calls what it names. Here it is first scanned for its size, then run by an
unpickler in which every name is a stand-in of this file; any other name is an error that names it. Arrays
are made afterwards, from the parts that the stand-ins kept, once those parts are known to fit each other.
Pickles of Python 2 and 3, numpy 1 and 2 are alike to it.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_STEPS = 1_000_000  # each can take some 60 bytes, whatever the size of the file

# what reading a pickle that is no pickle, cut short or made by hand can end in
ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, EOFError, MemoryError,
    OSError, NotImplementedError, RuntimeError, pickle.UnpicklingError,
)  # fmt: skip


class Stored:
    """Stands in for any object that is made of parts: `args` it was called with, `state` it was given."""

    args: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Dtype(Stored):
    """Stands in for numpy.dtype: the name of a type, as "f8", and its byte order."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code, self.order = _to_text(code), "="

    def __setstate__(self, state: Any) -> None:
        self.order = _to_text(state[1])


class Array(Stored):
    """Stands in for numpy.ndarray, for the function that makes one and for one that is read from a buffer."""

    def __setstate__(self, state: Any) -> None:
        self.state = state[-4:]  # shape, dtype, whether in Fortran's order, content; before it a version


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any = "C") -> Array:
    array = Array()
    array.state = (shape, dtype, order == "F", content)
    return array


def _scalar(dtype: Any, content: Any = b"") -> Array:
    return _from_buffer(content, dtype, ())


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes into old pickles."""
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How Python 3 writes empty bytes into old pickles."""
    return b""


def _made(kind: Any, *_: Any) -> Any:
    """Stands in for copyreg._reconstructor."""
    if not (isinstance(kind, type) and issubclass(kind, Stored)):
        raise pickle.UnpicklingError(f"it makes a {kind!r}")
    return kind()


_STAND_INS: dict[str, Any] = {
    "numpy.dtype": Dtype,
    "numpy.ndarray": Array,
    "_codecs.encode": _encoded,
    "collections.OrderedDict": OrderedDict,
    **{f"{m}.bytes": _no_bytes for m in ("builtins", "__builtin__")},
    **{f"{m}._reconstructor": _made for m in ("copyreg", "copy_reg")},
    **{f"{m}.object": object for m in ("builtins", "__builtin__")},
    **{f"numpy.{m}.multiarray._reconstruct": Array for m in ("core", "_core")},
    **{f"numpy.{m}.multiarray.scalar": _scalar for m in ("core", "_core")},
    **{f"numpy.{m}.numeric._frombuffer": _from_buffer for m in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Any, stand_ins: Mapping[str, Any]) -> None:
        super().__init__(stream, encoding="latin1")
        self._stand_ins = stand_ins

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self._stand_ins:
            raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}, which is no array")
        return self._stand_ins[f"{module}.{name}"]


def unpickle(stream: Any, stand_ins: Mapping[str, Any], most_steps: int = MOST_STEPS) -> Any:
    """The object in a seekable stream, of containers and stand-ins: those of this file and `stand_ins`.

    pickle.UnpicklingError for any other name, and for what was made to fill the memory; others of ERRORS for
    what is no pickle.
    """
    start = stream.tell()
    for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if step > most_steps:
            raise pickle.UnpicklingError(f"its pickle has more than {most_steps} steps")
        # the table of things to be used again grows to the highest number in it
        if opcode.name.endswith("PUT") and int(str(argument)) > step:
            raise pickle.UnpicklingError("its pickle was made to fill the memory")
    stream.seek(start)
    return _Unpickler(stream, _STAND_INS | dict(stand_ins)).load()


def to_array(value: Any) -> np.ndarray:
    """An array of numbers from a stand-in; ValueError where it is none or the parts do not fit each other."""
    value = unwrapped(value)
    if not isinstance(value, Array) or value.state is None:
        raise ValueError(f"its pickle has a {type(value).__name__.strip('_')} in place of an array")
    shape, dtype, is_fortran, content = value.state
    if not re.fullmatch(r"[fiu][1248]", dtype.code):
        raise ValueError(f"its pickle has numbers of the type {dtype.code!r}")
    return shaped(shape, dtype, is_fortran, content)


def unwrapped(value: Any) -> Any:
    """What numpy wrapped into an array of a single object, as it does with anything that is no array."""
    while isinstance(value, Array) and value.state is not None and value.state[1].code.startswith("O"):
        value = value.state[3][0]
    return value


def shaped(shape: Any, dtype: Dtype, is_fortran: Any, content: Any) -> np.ndarray:
    """The array of the parts that a stand-in kept."""
    content = content.encode("latin1") if isinstance(content, str) else content
    order = dtype.order if dtype.order in ("<", ">") else "="
    array = np.frombuffer(content, np.dtype(order + dtype.code))
    return array.reshape(shape, order="F" if is_fortran else "C")


def _to_text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
