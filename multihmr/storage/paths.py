"""Cache folders and bundled files: where downloads, converted checkpoints and package data are stored."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from pathlib import Path

NAME_BYTES = 150  # of a name for results, to which endings are added; file systems allow 255
_FORBIDDEN = re.compile(r'[<>:"\\|?*\x00-\x1f\x7f\ud800-\udfff]')  # on Windows, and bytes that are no UTF-8
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\.|$)", re.IGNORECASE)


def plain_reason(error: BaseException | str) -> str:
    """The first line of a system's message, without error numbers: "connection refused"."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = re.sub(r"\[(?:Errno|WinError) -?\d+\] ?", "", text).replace("<urlopen error ", "").rstrip(".>")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def portable_name(name: str) -> str:
    """A name for results that every system can have: relative, with "/" between folders.

    Characters that Windows forbids, line breaks and bytes that are no UTF-8 become "_"; dots and spaces at
    the end of a part go, names of devices (CON, nul.txt) get a "_" behind, and long parts are cut.

    Example:
        >>> portable_name("aux/12:30 ?.raw. ")
        'aux_/12_30 _.raw'
    """
    return "/".join(_portable_part(part) for part in name.split("/"))


def same_name(name: str) -> str:
    """A key that is equal for names that some file system takes for one: in case or in Unicode's forms."""
    return unicodedata.normalize("NFC", name).casefold()


def _portable_part(part: str) -> str:
    text = _decoded(part)
    safe = _FORBIDDEN.sub("_", text).rstrip(". ")
    if _RESERVED.match(safe):
        head, dot, rest = safe.partition(".")
        safe = f"{head.rstrip()}_{dot}{rest}"
    safe = safe.encode()[:NAME_BYTES].decode(errors="ignore").rstrip(". ") or "_"
    return safe if text == part else os.fsdecode(safe.encode())


def _decoded(name: str) -> str:
    """The name of a file as text: in a C locale Python leaves the bytes of UTF-8 undecoded."""
    try:
        return os.fsencode(name).decode("utf-8")
    except UnicodeError:  # other bytes, or text that this system has no file names for
        return name


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path; "~" in front, which shells leave alone within `--out=~/x` and quotes, is the home folder."""
    given = Path(path)
    if not given.parts or not given.parts[0].startswith("~") or given.exists():
        return given
    try:
        return given.expanduser()
    except RuntimeError:  # there is no such user
        return given


def cache_folder() -> Path:
    """Where downloads lie: $MULTIHMR_HOME, else $XDG_CACHE_HOME/multihmr, else ~/.cache/multihmr."""
    home = os.environ.get("MULTIHMR_HOME")
    if home:
        return Path(home).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "multihmr"


def repository_cache() -> Path | None:
    """Where files of Hub repositories lie: hub/ in $MULTIHMR_HOME; None leaves it to huggingface_hub."""
    home = os.environ.get("MULTIHMR_HOME")
    return Path(home).expanduser() / "hub" if home else None


def settings_folder() -> Path:
    """Where programs keep what their user chose: ~/.config, or what the platform has for it."""
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Application Support"
    if sys.platform == "win32":
        return home / "AppData" / "Roaming"
    return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")


def bundled_file(file: str) -> Path:
    """Where the checkpoint lies that comes with the package; its model card, README.md, lies beside it."""
    here = Path(__file__).resolve().parents[1]
    # beside the modules once installed (package multihmr.weights), beside the package in a checkout
    for folder in (here / "weights", here.parent / "weights"):
        if (folder / file).is_file():
            return folder / file
    raise FileNotFoundError(
        f"the bundled model {file} is not in {here.parent / 'weights'}; "
        "install multihmr again, or give the path of a model"
    )


def is_set(*names: str) -> bool:
    """Whether the environment has one of these variables."""
    return any(name in os.environ for name in names)
