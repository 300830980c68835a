"""Atomic file writing: a file gets its name only when all of it is written; its mode follows the umask."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

_NAME_BYTES = 100  # of the target's name in that of the draft: file systems allow 255


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, sync: bool = False) -> Iterator[Path]:
    """Yield an empty file beside `path` to write to; it replaces `path` when the block ends without error.

    If the block raises, the draft is removed and the file that was there before stays as it was. A symbolic
    link is followed: its target is replaced, not the link. A new file has the mode that `open` would give it
    under the current umask, also if a library replaced the draft by a file of its own (safetensors leaves
    0600); a file that exists keeps its mode.

    Args:
        path: of the file to be written; its folder must exist.
        sync: flush the draft to the disk before it is renamed, for files that must survive a power failure,
            such as the checkpoint that a training is continued from.

    Raises:
        OSError: the folder does not exist or cannot be written, or the disk is full.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path.name!r}: there is no folder {path.parent}")
    draft, mode = _create_draft(path)
    try:
        yield draft
        if sync:
            _sync(draft)
        if stat.S_IMODE(draft.stat().st_mode) != mode:
            draft.chmod(mode)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes, *, sync: bool = False) -> Path:
    """Write `content` to `path` atomically; returns the path. See `atomic_path` for mode and errors."""
    with atomic_path(path, sync=sync) as draft:
        draft.write_bytes(content)
    return Path(path)


def write_text(path: str | os.PathLike[str], text: str, *, sync: bool = False) -> Path:
    """Write `text` to `path` atomically, as UTF-8 with newlines as they are; returns the path."""
    return write_bytes(path, text.encode("utf-8"), sync=sync)


def _create_draft(path: Path) -> tuple[Path, int]:
    """An empty file beside `path` with a name of its own, and the mode that the finished file gets.

    Creating the file is the one way to learn what the umask gives that is safe with threads.
    """
    cut = os.fsencode(path.name)[:_NAME_BYTES].decode("utf-8", errors="ignore")  # at whole characters
    name = os.fsdecode(cut.encode("utf-8"))
    draft = path.with_name(f".{name}.{secrets.token_hex(4)}.part")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    source = path if path.exists() else draft
    return draft, stat.S_IMODE(source.stat().st_mode)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
