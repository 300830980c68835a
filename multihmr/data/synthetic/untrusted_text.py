"""Text files that came from strangers: they are read whole, if they are text, of a sane size, and inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

import numpy as np

# What no honest file reaches; without these a small archive could ask for all memory.
MAX_FILE_BYTES, MAX_LINES, MAX_LINE = 64 << 20, 2_000_000, 200_000
LARGEST = 1e9  # of any number in a file: beyond it lie only mistakes


def inside(folder: Path, name: str) -> Path:
    """`folder / name`; ValueError when the name leads out of the folder."""
    path = (folder / name).resolve()
    if PureWindowsPath(name).drive or not path.is_relative_to(folder.resolve()):
        raise ValueError(f"asset '{name}' lies outside its folder {folder}")
    return path


def named_file(file: Path, name: str, root: Path) -> Path | None:
    """What `file` calls `name`, relative to itself; None where nothing lies.

    ValueError when that is outside `root`. Many files were written on Windows: capital letters of the last
    part may differ, and backslashes part folders.
    """
    name = name.replace("\\", "/")
    path = (file.parent / name).resolve()
    if PureWindowsPath(name).drive or not path.is_relative_to(root.resolve()):
        raise ValueError(f"{file} names '{name}', which lies outside its folder {root}")
    try:
        if path.is_file():
            return path
        alike = [p for p in sorted(path.parent.iterdir()) if p.name.lower() == path.name.lower()]
    except OSError:
        return None
    return inside(root, str(alike[0].resolve())) if alike and alike[0].is_file() else None


def read_text(path: Path) -> str:
    """A text file in UTF-8 or else Latin-1, lines ended by \\n. ValueError when it is none or too large."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {size >> 20} MiB; more than {MAX_FILE_BYTES >> 20} is no garment")
    data = path.read_bytes()
    if b"\0" in data:
        raise ValueError(f"{path} is binary; a {path.suffix} file is text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.count("\n") > MAX_LINES:
        raise ValueError(f"{path} has more than {MAX_LINES} lines")
    if max(map(len, text.split("\n"))) > MAX_LINE:
        raise ValueError(f"{path} has a line of more than {MAX_LINE} characters")
    return text


def numbers(words: Sequence[str], path: Path) -> np.ndarray:
    """The words as numbers; ValueError if one is none, not finite or absurdly large."""
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        wrong = next(word for word in words if not _is_number(word))
        raise ValueError(f"{path} has '{wrong[:40]}' where a number was expected") from None
    if not (np.abs(values) <= LARGEST).all():  # false for nan as well
        raise ValueError(f"{path} has a number that is not finite")
    return values


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
