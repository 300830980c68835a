"""Load a parametric body by name; find the user's SMPL-X file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..storage.paths import cache_folder

if TYPE_CHECKING:
    from .base import Body


SMPLX_FILE = "SMPLX_NEUTRAL.npz"
_used_files: dict[str, Path] = {}  # name of a licensed body -> the user's file that this process used last


@contextmanager
def float32_on_cpu() -> Iterator[None]:
    """Context with torch's default dtype (float32) and device (CPU), whatever the host program has set.

    For constructors of modules, which cannot name dtype and device of every tensor. Within the host's
    `torch.inference_mode()` they make ordinary tensors, which can be trained and differentiated later; within
    its `torch.autocast("cpu")` numbers keep their precision.
    """
    dtype = torch.get_default_dtype()
    # Both contexts cost time where they are not needed.
    ordinary = torch.get_default_device().type == "cpu"
    inference = torch.is_inference_mode_enabled()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            nullcontext() if ordinary else torch.device("cpu"),
            torch.inference_mode(False) if inference else nullcontext(),
            torch.autocast("cpu", enabled=False) if torch.is_autocast_enabled("cpu") else nullcontext(),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)


@float32_on_cpu()
def load_body(
    name: str, *, shape_count: int | None = None, smplx: str | os.PathLike[str] | None = None
) -> Body:
    """The parametric body of that name: "anny" and "anny-163" come with the package, "smplx" does not.

    shape_count and smplx are for "smplx": its number of betas (10 by default) and where its file is, see
    `find_smplx`. Raises ValueError for another name, FileNotFoundError without an SMPL-X file, ImportError
    without the package smplx.
    """
    if shape_count is not None and name != "smplx":
        raise ValueError(f"body {name!r} has a fixed number of shape values; leave shape_count away")
    if name == "anny":
        from ..bodies.anny import Anny

        return Anny()
    if name == "anny-163":
        from ..bodies.anny163 import Anny163

        return Anny163()
    if name == "smplx":
        file = find_smplx(smplx)
        from ..bodies.smplx import SMPLX

        remember_file(name, file)
        return SMPLX(file, shape_count=10 if shape_count is None else shape_count)
    raise ValueError(f"no body {name!r}; this version has: anny, anny-163, smplx")


def remember_file(name: str, file: str | os.PathLike[str]) -> None:
    """Let `load_body_of_people` find the user's file of a licensed body again."""
    _used_files[name] = Path(file).absolute()


def load_body_of_people(name: str, *, shape_count: int | None = None) -> Body:
    """The body of people who were made already: as `load_body`, from the file that this process used last.

    Raises ValueError for a body that is unknown, or licensed and not used in this process; FileNotFoundError
    without an SMPL-X file.
    """
    file = _used_files.get(name)
    if name == "smpl" and file is not None and file.is_file():
        from .smpl import SMPL

        return SMPL(file)
    count = shape_count if name == "smplx" else None
    return load_body(name, shape_count=count, smplx=file if file is not None and file.is_file() else None)


def find_smplx(path: str | os.PathLike[str] | None = None) -> Path:
    """The user's SMPL-X file.

    It is `path` itself, or SMPLX_NEUTRAL.npz in that folder or its smplx/; without a path the first of
    smplx/SMPLX_NEUTRAL.npz in `cache_folder()` and weights/smplx/SMPLX_NEUTRAL.npz in the current folder.
    FileNotFoundError says where to register, which file to take and which places were searched.
    """
    given = None if path is None else Path(path).expanduser()
    if given is None:
        folders = [cache_folder() / "smplx", Path("weights", "smplx")]
    elif given.is_file():
        return given
    else:
        folders = [given, given / "smplx"]
    for folder in folders:
        if (folder / SMPLX_FILE).is_file():
            return folder / SMPLX_FILE
    searched = [str((folder / SMPLX_FILE).absolute()) for folder in folders]
    missing = "" if given is None or given.exists() else f"{given} does not exist. "
    raise FileNotFoundError(
        f"{missing}SMPL-X is licensed by its authors and cannot be fetched for you: register at "
        f"https://smpl-x.is.tue.mpg.de, download 'SMPL-X v1.1 (NPZ+PKL)' and put its {SMPLX_FILE} in "
        f"{cache_folder() / 'smplx'}, or give its path: load_model(..., smplx='path/to/{SMPLX_FILE}'), "
        "to_body('smplx', file=...), or --smplx on the command line. "
        f"Searched: {', '.join(searched)}"
    )
