"""Cache folders and bundled files: where downloads, converted checkpoints and package data are stored."""

from __future__ import annotations

import os
import sys
from pathlib import Path


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
