"""Reading .npz files of ours: no pickles, damage and other formats in one clear sentence."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

_READERS = {
    "multihmr-track-1": "; it is a person of a video: read it with multihmr.video.load_track",
    "multihmr-humans-1": "; it holds the people of an image: read it with multihmr.load_humans",
}
_WRITERS = {
    "multihmr-track-1": "save_track or multihmr video",
    "multihmr-humans-1": "humans.save or multihmr predict",
}


def read_npz(
    path: str | os.PathLike[str], format_name: str, required: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """All arrays of a .npz whose entry "format" is `format_name`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no .npz, of another format, or lacks required entries.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a file in it")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    _check_magic(path)
    try:
        # opened here, because np.load leaves the file open when it is damaged
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            stored = {key: file[key] for key in file.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or no .npz file: {error}") from error
    except AttributeError as error:  # a single .npy array, which has no names
        raise ValueError(f"{path} is damaged or no .npz file: it holds one array without a name") from error
    if "format" not in stored:
        raise ValueError(
            f"{path} must have the format {format_name!r}, but names none: it was not written by "
            f"{_WRITERS.get(format_name, 'this version')}"
        )
    found = str(stored["format"])
    if found != format_name:
        raise ValueError(
            f"{path} must have the format {format_name!r}, got {found!r}"
            f"{_READERS.get(found, '; save it anew')}"
        )
    missing = set(required) - set(stored)
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; save it anew")
    return stored


def _check_magic(path: Path) -> None:
    """ValueError unless a file begins as archives and arrays of NumPy do: NumPy takes others for pickles."""
    with path.open("rb") as file:
        start = file.read(6)
    if not start.startswith((b"PK", b"\x93NUMPY")):
        empty = "it is empty" if not start else "it does not begin as one does"
        raise ValueError(f"{path} is damaged or no .npz file: {empty}")
