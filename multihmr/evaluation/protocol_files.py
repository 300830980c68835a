"""Licensed files of benchmarks that users bring themselves: body models and the matrices between them.

A comparison that needs a missing file is left out, and a note names the file and where to get it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..bodies.model_files import READ_ERRORS, to_array, unpickle
from ..bodies.smpl import VERTICES as SMPL_VERTICES
from ..bodies.smplx_reader import VERTICES as SMPLX_VERTICES

H36M_JOINTS = 17
FOLDERS = ("bodies", "smplx", "smpl")  # below the root of the data sets and the cache folder

# name -> where it is given out
SOURCES = {
    "SMPL_NEUTRAL": "https://smpl.is.tue.mpg.de (SMPL for Python, version 1.1.0, as .pkl or .npz)",
    "SMPL_FEMALE": "https://smpl.is.tue.mpg.de (SMPL for Python, version 1.1.0, as .pkl or .npz)",
    "SMPL_MALE": "https://smpl.is.tue.mpg.de (SMPL for Python, version 1.1.0, as .pkl or .npz)",
    **{
        f"SMPLX_{gender}.npz": "https://smpl-x.is.tue.mpg.de ('SMPL-X v1.1 (NPZ+PKL)')"
        for gender in ("NEUTRAL", "FEMALE", "MALE")
    },
    "J_regressor_h36m.npy": "the data of https://github.com/nkolot/SPIN (fetch_data.sh)",
    "smplx2smpl.pkl": "the links in the README of https://github.com/naver/multi-hmr",
    "MANO_SMPLX_vertex_ids.pkl": "https://smpl-x.is.tue.mpg.de ('MANO and FLAME vertex indices')",
    "SMPL-X__FLAME_vertex_ids.npy": "https://smpl-x.is.tue.mpg.de ('MANO and FLAME vertex indices')",
}
# what the same file is called in its authors' archives
_OTHER_NAMES = {
    "SMPL_NEUTRAL": ("basicmodel_neutral_lbs_10_207_0_v1.1.0",),
    "SMPL_FEMALE": ("basicmodel_f_lbs_10_207_0_v1.1.0",),
    "SMPL_MALE": ("basicmodel_m_lbs_10_207_0_v1.1.0",),
}


class ProtocolFiles:
    """Licensed files of `SOURCES` found in these folders, or in their `FOLDERS`.

    A property is None if its file is missing, and raises ValueError if the file has other content.
    """

    def __init__(self, *roots: Path) -> None:
        self.folders = [folder for root in roots for folder in (root, *(root / name for name in FOLDERS))]

    def find(self, name: str) -> Path | None:
        """The file of that name; of SMPL_..., with either ending."""
        names = [name] if Path(name).suffix in (".npy", ".npz", ".pkl") else []
        stems = () if names else (name, *_OTHER_NAMES.get(name, ()))
        names += [stem + ending for stem in stems for ending in (".npz", ".pkl")]
        paths = (folder / each for folder in self.folders for each in names)
        return next((path for path in paths if path.is_file()), None)

    def missing(self, *names: str) -> str:
        """Sentence on which of these files are missing and where to get them; "" if none is."""
        lacking = [f"{name} (from {SOURCES[name]})" for name in names if self.find(name) is None]
        return f"{' and '.join(lacking)} in {self.folders[1]}" if lacking else ""

    @cached_property
    def h36m_regressor(self) -> np.ndarray | None:
        """(17, 6890): the joints of Human3.6M from the vertices of SMPL."""
        path = self.find("J_regressor_h36m.npy")
        return None if path is None else _read(path, (H36M_JOINTS, SMPL_VERTICES))

    @cached_property
    def smplx_to_smpl(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """(M,) each: a vertex of SMPL, one of SMPL-X that it is made of, and how much of it."""
        path = self.find("smplx2smpl.pkl")
        if path is None:
            return None
        matrix = _read(path, (SMPL_VERTICES, SMPLX_VERTICES), "matrix")
        rows, columns = np.nonzero(matrix)
        return rows, columns, matrix[rows, columns].astype(np.float32)

    def part_vertices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Indices of SMPL-X's vertices of the left hand, the right hand and the face, as its authors list
        them."""
        hands, face = self.find("MANO_SMPLX_vertex_ids.pkl"), self.find("SMPL-X__FLAME_vertex_ids.npy")
        if hands is None or face is None:
            return None
        parts = _read(hands, None, "left_hand"), _read(hands, None, "right_hand"), _read(face, None)
        for part, path in zip(parts, (hands, hands, face), strict=True):
            if (
                part.ndim != 1
                or part.dtype.kind not in "iu"
                or not 0 <= part.min() <= part.max() < SMPLX_VERTICES
            ):
                raise ValueError(f"{path} must list vertices of SMPL-X, got {part.dtype} {part.shape}")
        return parts

    def missing_part_vertices(self) -> str:
        """Sentence on the files that `part_vertices` needs and that are missing; "" if none is."""
        return self.missing("MANO_SMPLX_vertex_ids.pkl", "SMPL-X__FLAME_vertex_ids.npy")


def _read(path: Path, shape: Sequence[int] | None, key: str = "") -> np.ndarray:
    """The array in an .npy, or under `key` in a pickled dict; of this shape."""
    try:
        with path.open("rb") as file:
            if path.suffix == ".npy":
                array: Any = np.load(file, allow_pickle=False)
            else:
                stored = unpickle(file)
                array = to_array(stored[key] if isinstance(stored, dict) else stored)
    except READ_ERRORS as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} cannot be read: {reason}; get it from {SOURCES[path.name]}") from error
    if shape is not None and array.shape != tuple(shape):
        raise ValueError(
            f"{path} must be {tuple(shape)}, got {array.shape}; get it from {SOURCES[path.name]}"
        )
    return array
