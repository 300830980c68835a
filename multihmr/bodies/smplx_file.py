"""SMPLX_NEUTRAL.npz or .pkl -> checked arrays; nothing that the file holds is ever run.

Arrays are read as such (`allow_pickle=False`), and from their headers alone it is known how much memory they
take. What is pickled nevertheless (old .pkl files, sparse matrices inside an .npz) is first scanned and then
built by an unpickler that knows numpy arrays, plain containers, scipy's csc matrices and chumpy's wrapper of
an array, each through a stand-in of this file, and refuses everything else by its name.
"""

from __future__ import annotations

import io
import mmap
import pickle
import pickletools
import re
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SITE = "https://smpl-x.is.tue.mpg.de"
HOW_TO_GET = f"register at {SITE}, download 'SMPL-X v1.1 (NPZ+PKL)' and take its SMPLX_NEUTRAL.npz"

VERTICES, JOINTS, EXPRESSIONS = 10475, 55, 10

# None is any length up to the limit.
_SHAPES: dict[str, tuple[int | None, ...]] = {
    "v_template": (VERTICES, 3),
    "shapedirs": (VERTICES, 3, None),
    "posedirs": (VERTICES, 3, 9 * (JOINTS - 1)),
    "J_regressor": (JOINTS, VERTICES),
    "weights": (VERTICES, JOINTS),
    "kintree_table": (2, JOINTS),
    "f": (None, 3),
    "lmk_faces_idx": (51,),
    "lmk_bary_coords": (51, 3),
}
_OPTIONAL: dict[str, tuple[int | None, ...]] = {"vt": (None, 2), "ft": (None, 3)}
_LONGEST = {"shapedirs": 1000}
_LONGEST_OTHERWISE = 100_000
_OTHER_BODIES = {6890: "SMPL or SMPL+H", 778: "MANO", 5023: "FLAME"}

_LARGEST_FILE = 1 << 30  # SMPLX_NEUTRAL.pkl has 544 MB
_LARGEST_PICKLE_IN_NPZ = 64 << 20
_MOST_PICKLE_STEPS = 1_000_000  # each can take some 60 bytes, whatever the size of the file

_READ_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, EOFError, MemoryError,
    OSError, NotImplementedError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class SMPLXFile(NamedTuple):
    """What a body needs of the file; S shape and 10 expression numbers. uv and faces_uv may be missing.

    template (V, 3) [m], directions (V, 3, S + 10), corrections (V, 3, 486), regressor (55, V),
    weights (V, 55), landmark_weights (51, 3) in float32; parents (55,), faces (F, 3), landmark_faces (51,)
    in int64.
    """

    template: np.ndarray
    directions: np.ndarray
    corrections: np.ndarray
    regressor: np.ndarray
    weights: np.ndarray
    parents: np.ndarray
    faces: np.ndarray
    landmark_faces: np.ndarray
    landmark_weights: np.ndarray
    uv: np.ndarray | None
    faces_uv: np.ndarray | None


def read_smplx(path: Path, shape_count: int) -> SMPLXFile:
    """The arrays of a neutral SMPL-X with its first `shape_count` shape and 10 expression components.

    FileNotFoundError if there is no file; ValueError in one sentence if it is no neutral SMPL-X, damaged,
    too large, or holds something else than arrays.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no SMPL-X file {path}: {HOW_TO_GET}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the file in it, such as {path / 'SMPLX_NEUTRAL.npz'}")
    gender = re.search(r"(?<![A-Z])(FE)?MALE(?![A-Z])", path.stem.upper())
    if gender:
        raise ValueError(
            f"{path.name} is the {gender[0].lower()} body, but networks speak of the neutral one; "
            "give SMPLX_NEUTRAL.npz of the same download"
        )
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(
            f"{path} has {path.stat().st_size / 1e9:.1f} GB, more than any SMPL-X file; {HOW_TO_GET}"
        )
    try:
        return _chosen(_read(path), shape_count)
    except _READ_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} cannot be used as SMPL-X: {reason.rstrip('.')}; {HOW_TO_GET}") from error


def _read(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        start = file.read(2)
        if start == b"PK":
            return _read_npz(file)
        if start[:1] not in (b"\x80", b"(", b"}", b"c"):
            raise ValueError("it is neither an .npz nor a .pkl file" if start else "it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            stored = _unpickle(content)
    if not isinstance(stored, dict):
        raise ValueError("its pickle is no dict of arrays")
    if "v_template" in stored:
        _check_body(_to_array(stored["v_template"]))
    arrays = {key: _to_array(stored[key]) for key in (*_SHAPES, *_OPTIONAL) if key in stored}
    _check_shapes(arrays)
    return arrays


def _read_npz(file: Any) -> dict[str, np.ndarray]:
    """Headers first: nothing is unpacked before all shapes are known to be right."""
    with zipfile.ZipFile(file) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        members = {key: members[key] for key in (*_SHAPES, *_OPTIONAL) if key in members}
        headers = {}
        for key, name in members.items():
            with archive.open(name) as member:
                headers[key] = _header(member)
        if "v_template" in headers:
            _check_body(headers["v_template"])
        _check_shapes(headers)
        arrays = {}
        for key, name in members.items():
            with archive.open(name) as member:
                if headers[key].dtype.hasobject:
                    _header(member)
                    arrays[key] = _unpickle_member(member, key)
                else:
                    arrays[key] = np.lib.format.read_array(member, allow_pickle=False)
    _check_shapes(arrays)
    return arrays


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype


def _header(member: Any) -> _Header:
    version = np.lib.format.read_magic(member)
    if version != (1, 0):  # later versions may announce headers of gigabytes
        raise ValueError(f"it has arrays in version {version} of the .npy format, expected (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    return _Header(shape, dtype)


def _check_body(template: _Header | np.ndarray) -> None:
    if len(template.shape) == 2 and template.shape[0] != VERTICES:
        count = template.shape[0]
        body = _OTHER_BODIES.get(count, "a body")
        raise ValueError(f"it is {body} of {count} vertices, but SMPL-X has {VERTICES}")


def _check_shapes(arrays: Mapping[str, _Header | np.ndarray]) -> None:
    """ValueError for what is missing or of a wrong shape; that of a pickled array is only known later."""
    missing = [key for key in _SHAPES if key not in arrays]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for key, array in arrays.items():
        if array.dtype.hasobject:
            continue
        expected = (_SHAPES | _OPTIONAL)[key]
        longest = _LONGEST.get(key, _LONGEST_OTHERWISE)
        if len(array.shape) != len(expected) or not all(
            length == size or (size is None and 0 < length <= longest)
            for length, size in zip(array.shape, expected, strict=True)
        ):
            form = ", ".join(f"1 to {longest}" if n is None else str(n) for n in expected)
            raise ValueError(f"its {key} has the shape {array.shape}, expected ({form})")
        if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
            raise ValueError(f"its {key} has the type {array.dtype}, expected numbers")


def _chosen(arrays: dict[str, np.ndarray], shape_count: int) -> SMPLXFile:
    """Float32 of what is used; values that cannot be right are refused by name."""
    for key, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"its {key} has numbers that are not finite")
    components = arrays["shapedirs"].shape[2]
    # 300 + 100 in version 1.1; files reduced to 10 + 10 are known to the smplx package, too
    first_expression = {400: 300, 20: 10}.get(components)
    if first_expression is None:
        raise ValueError(f"its shapedirs has {components} components, expected 400 or 20")
    if not 1 <= shape_count <= first_expression:
        raise ValueError(f"it has {first_expression} shape components, but {shape_count} were asked for")
    used = [*range(shape_count), *range(first_expression, first_expression + EXPRESSIONS)]
    faces, landmark_faces = (arrays[key].astype(np.int64) for key in ("f", "lmk_faces_idx"))
    parents = arrays["kintree_table"][0].astype(np.int64)
    parents[0] = -1  # stored as 2^32 - 1
    _check_within("f", faces, VERTICES)
    _check_within("lmk_faces_idx", landmark_faces, len(faces))
    if not all(0 <= parent < joint for joint, parent in enumerate(parents) if joint):
        raise ValueError("its kintree_table has joints before their parents")
    uv, faces_uv = arrays.get("vt"), arrays.get("ft")
    if uv is not None and faces_uv is not None:
        _check_within("ft", faces_uv, len(uv))
    else:
        uv = faces_uv = None
    return SMPLXFile(
        template=arrays["v_template"].astype(np.float32, copy=False),
        directions=arrays["shapedirs"][:, :, used].astype(np.float32, copy=False),
        corrections=arrays["posedirs"].astype(np.float32, copy=False),
        regressor=arrays["J_regressor"].astype(np.float32, copy=False),
        weights=arrays["weights"].astype(np.float32, copy=False),
        parents=parents,
        faces=faces,
        landmark_faces=landmark_faces,
        landmark_weights=arrays["lmk_bary_coords"].astype(np.float32, copy=False),
        uv=None if uv is None else uv.astype(np.float32, copy=False),
        faces_uv=None if faces_uv is None else faces_uv.astype(np.int64),
    )


def _check_within(key: str, indices: np.ndarray, count: int) -> None:
    if indices.min() < 0 or indices.max() >= count:
        raise ValueError(
            f"its {key} counts from {indices.min()} to {indices.max()}, expected 0 to {count - 1}"
        )


# --- pickles ---------------------------------------------------------------------------------------------


class _Dtype:
    """Stands in for numpy.dtype: the name of a type, as "f8", and its byte order."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code, self.order = _to_text(code), "="

    def __setstate__(self, state: Any) -> None:
        self.order = _to_text(state[1])


class _Array:
    """Stands in for numpy.ndarray, for the function that makes one and for one that is read from a buffer."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state[-4:]  # shape, dtype, whether in Fortran's order, content; before it a version


class _Stored:
    """Stands in for any object that is made of named parts: csc matrices, chumpy's arrays."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Csc(_Stored):
    pass


class _Chumpy(_Stored):
    pass


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any = "C") -> _Array:
    array = _Array()
    array.state = (shape, dtype, order == "F", content)
    return array


def _scalar(dtype: Any, content: Any = b"") -> _Array:
    return _from_buffer(content, dtype, ())


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes into old pickles."""
    return text.encode("latin1")


def _made(kind: Any, *_: Any) -> Any:
    """Stands in for copyreg._reconstructor."""
    if kind not in (_Array, _Csc, _Chumpy):
        raise pickle.UnpicklingError(f"it makes a {kind!r}")
    return kind()


_STAND_INS: dict[str, Any] = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    "_codecs.encode": _encoded,
    "collections.OrderedDict": OrderedDict,
    "chumpy.ch.Ch": _Chumpy,
    **{f"{m}._reconstructor": _made for m in ("copyreg", "copy_reg")},
    **{f"{m}.object": object for m in ("builtins", "__builtin__")},
    **{f"scipy.sparse.{m}csc_matrix": _Csc for m in ("csc.", "_csc.")},
    **{f"scipy.sparse.{m}csc_array": _Csc for m in ("csc.", "_csc.")},
    **{f"numpy.{m}.multiarray._reconstruct": _Array for m in ("core", "_core")},
    **{f"numpy.{m}.multiarray.scalar": _scalar for m in ("core", "_core")},
    **{f"numpy.{m}.numeric._frombuffer": _from_buffer for m in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _STAND_INS:
            raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}, which is no array")
        return _STAND_INS[f"{module}.{name}"]


def _unpickle(stream: Any) -> Any:
    """The object in a seekable stream, made of containers and the stand-ins above."""
    start = stream.tell()
    for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if step > _MOST_PICKLE_STEPS:
            raise pickle.UnpicklingError(f"its pickle has more than {_MOST_PICKLE_STEPS} steps")
        # the table of things to be used again grows to the highest number in it
        if opcode.name.endswith("PUT") and int(str(argument)) > step:
            raise pickle.UnpicklingError("its pickle was made to fill the memory")
    stream.seek(start)
    return _Unpickler(stream, encoding="latin1").load()


def _unpickle_member(member: Any, key: str) -> np.ndarray:
    content = member.read(_LARGEST_PICKLE_IN_NPZ + 1)
    if len(content) > _LARGEST_PICKLE_IN_NPZ:
        raise ValueError(f"its {key} is pickled and larger than {_LARGEST_PICKLE_IN_NPZ >> 20} MB")
    return _to_array(_unpickle(io.BytesIO(content)))


def _to_array(value: Any) -> np.ndarray:
    """An array from a stand-in; ValueError where it is none or the parts do not fit each other."""
    if isinstance(value, _Chumpy):
        return _to_array(value.state["x"])
    if isinstance(value, _Csc):
        return _csc_to_array(value.state)
    if not isinstance(value, _Array) or value.state is None:
        raise ValueError(f"its pickle has a {type(value).__name__.strip('_')} in place of an array")
    shape, dtype, is_fortran, content = value.state
    if dtype.code.startswith("O"):  # numpy wraps what is no array into one of a single object
        return _to_array(content[0])
    if not re.fullmatch(r"[fiu][1248]", dtype.code):
        raise ValueError(f"its pickle has numbers of the type {dtype.code!r}")
    content = content.encode("latin1") if isinstance(content, str) else content
    order = dtype.order if dtype.order in ("<", ">") else "="
    array = np.frombuffer(content, np.dtype(order + dtype.code))
    return array.reshape(shape, order="F" if is_fortran else "C")


def _csc_to_array(state: dict[str, Any]) -> np.ndarray:
    """Compressed sparse columns: those of column c are data[indptr[c] : indptr[c + 1]], in rows `indices`."""
    if tuple(state["_shape"]) != _SHAPES["J_regressor"]:
        raise ValueError(f"its sparse J_regressor has the shape {tuple(state['_shape'])}")
    data, rows, ends = (_to_array(state[key]) for key in ("data", "indices", "indptr"))
    counts = np.diff(ends)
    if ends.shape != (VERTICES + 1,) or (counts < 0).any() or counts.sum() != len(data) or ends[0] != 0:
        raise ValueError("its sparse J_regressor does not add up")
    _check_within("J_regressor", rows, JOINTS)
    dense = np.zeros((JOINTS, VERTICES), data.dtype)
    dense[rows, np.repeat(np.arange(VERTICES), counts)] = data
    return dense


def _to_text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
