"""Read untrusted text assets: size limits, no binary content, no paths that leave their folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

import numpy as np

# Limits far above real files; without them a small archive could use up all memory.
MAX_FILE_BYTES, MAX_LINES, MAX_LINE = 64 << 20, 2_000_000, 200_000
LARGEST = 1e9  # of any number in a file


def inside(folder: Path, name: str) -> Path:
    """`folder / name`.

    Raises:
        ValueError: the name leads out of the folder.
    """
    path = (folder / name).resolve()
    if PureWindowsPath(name).drive or not path.is_relative_to(folder.resolve()):
        raise ValueError(f"asset '{name}' lies outside its folder {folder}")
    return path


def named_file(file: Path, name: str, root: Path) -> Path | None:
    """The path of a file named in `file`, relative to it; None if it does not exist.

    Many assets were written on Windows: the case of the last part may differ, and backslashes separate
    folders.

    Raises:
        ValueError: the path is outside `root`.
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
    """Content of a text file in UTF-8 or else Latin-1, with \\n line ends.

    Raises:
        ValueError: it does not exist, is binary, or exceeds a limit.
    """
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
    """The words as numbers.

    Raises:
        ValueError: a word is no number, not finite, or larger than LARGEST.
    """
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
