"""Read SMPLX_NEUTRAL.npz or .pkl as checked arrays; no code in the file is executed.

Arrays are read as such (`allow_pickle=False`), and from their headers alone it is known how much memory they
take. What is pickled nevertheless (old .pkl files, sparse matrices inside an .npz) goes through the
unpickler of storage/safe_pickle.py, which refuses everything but arrays.
"""

from __future__ import annotations

import io
import mmap
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .model_files import READ_ERRORS, to_array, unpickle

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


class SMPLXFile(NamedTuple):
    """Arrays of the file that a body needs; S shape, 10 expression components. uv, faces_uv may be missing.

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


def read_smplx(path: Path, shape_count: int, *, gendered: bool = False) -> SMPLXFile:
    """The arrays of a neutral SMPL-X with its first `shape_count` shape and 10 expression components.

    gendered: also accept the female or male model, which ground truth may use.

    FileNotFoundError if there is no file; ValueError in one sentence if it is no neutral SMPL-X, damaged,
    too large, or holds something else than arrays.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no SMPL-X file {path}: {HOW_TO_GET}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the file in it, such as {path / 'SMPLX_NEUTRAL.npz'}")
    gender = re.search(r"(?<![A-Z])(FE)?MALE(?![A-Z])", path.stem.upper())
    if gender and not gendered:
        raise ValueError(
            f"{path.name} is the {gender[0].lower()} body, but networks predict the neutral one; "
            "give SMPLX_NEUTRAL.npz of the same download"
        )
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(
            f"{path} has {path.stat().st_size / 1e9:.1f} GB, more than any SMPL-X file; {HOW_TO_GET}"
        )
    try:
        return _chosen(_read(path), shape_count)
    except (*READ_ERRORS, zipfile.BadZipFile, zlib.error) as error:
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
            stored = unpickle(content)
    if not isinstance(stored, dict):
        raise ValueError("its pickle is no dict of arrays")
    if "v_template" in stored:
        _check_body(to_array(stored["v_template"]))
    arrays = {key: to_array(stored[key]) for key in (*_SHAPES, *_OPTIONAL) if key in stored}
    _check_shapes(arrays)
    return arrays


def _read_npz(file: Any) -> dict[str, np.ndarray]:
    """Check the headers of all arrays before any is unpacked."""
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
    if version != (1, 0):  # later versions allow headers of gigabytes
        raise ValueError(f"it has arrays in version {version} of the .npy format, expected (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    return _Header(shape, dtype)


def _check_body(template: _Header | np.ndarray) -> None:
    if len(template.shape) == 2 and template.shape[0] != VERTICES:
        count = template.shape[0]
        body = _OTHER_BODIES.get(count, "a body")
        raise ValueError(f"it is {body} of {count} vertices, but SMPL-X has {VERTICES}")


def _check_shapes(arrays: Mapping[str, _Header | np.ndarray]) -> None:
    """ValueError for missing arrays and wrong shapes; those of pickled arrays are known only now."""
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
    """The used arrays as float32; implausible values raise ValueError by name."""
    for key, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"its {key} has numbers that are not finite")
    components = arrays["shapedirs"].shape[2]
    # 300 + 100 in version 1.1; files reduced to 10 + 10 are known to the smplx package, too
    first_expression = {400: 300, 20: 10}.get(components)
    if first_expression is None:
        raise ValueError(f"its shapedirs has {components} components, expected 400 or 20")
    if not 1 <= shape_count <= first_expression:
        raise ValueError(f"it has {first_expression} shape components, but {shape_count} were requested")
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


def _unpickle_member(member: Any, key: str) -> np.ndarray:
    content = member.read(_LARGEST_PICKLE_IN_NPZ + 1)
    if len(content) > _LARGEST_PICKLE_IN_NPZ:
        raise ValueError(f"its {key} is pickled and larger than {_LARGEST_PICKLE_IN_NPZ >> 20} MB")
    return to_array(unpickle(io.BytesIO(content)))
