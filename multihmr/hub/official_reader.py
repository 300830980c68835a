"""Read tensors and training options of an official checkpoint (`.pt`) without executing code.

`weights_only=True` with a short list of allowed types; what a file is comes from its table of contents first.
"""

from __future__ import annotations

import argparse
import contextlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_STATE_KEYS = ("model_state_dict", "state_dict_model", "state_dict")
_MAX_PICKLE = 64 << 20  # bytes of the part of a file that is not tensors; a real one has some 100 kB


def read_state(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The tensors of a file in float32, by key, and its training options (none in some files).

    FileNotFoundError: there is no such file. ValueError: it is cut short, hostile or holds no tensors.
    """
    return _state_and_args(_read(path), path.name)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    _check_archive(path)
    try:
        with _allowed():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} was not read: it asks for {_asked_for(str(error))}, which no checkpoint needs; "
            "such a file can run any code"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path.name} is damaged: {reason}") from None


def _check_archive(path: Path) -> None:
    """Refuse by its table of contents what is no torch archive, or would unpack to more than it is."""
    size = path.stat().st_size
    if not size:
        raise ValueError(f"{path.name} is empty (0 bytes)")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile:
        if _is_safetensors(path):
            raise ValueError(
                f"{path.name} is a safetensors file, which needs no conversion: load_model reads those of "
                "this package as they are; only official checkpoints (.pt) are converted"
            ) from None
        raise ValueError(
            f"{path.name} is cut short or no file of torch.save since version 1.6 ({size} bytes)"
        ) from None
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{path.name} is a zip file, but none that torch.save wrote: it has no data.pkl")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError(f"{path.name} was not read: it is compressed, as torch.save never does")
    if pickles[0].file_size > _MAX_PICKLE:
        raise ValueError(
            f"{path.name} was not read: {pickles[0].file_size >> 20} MB of it are no tensors; "
            f"a checkpoint has less than {_MAX_PICKLE >> 20}"
        )


def _is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors does: the length of a JSON header, and the header."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _allowed() -> contextlib.AbstractContextManager[Any]:
    """argparse.Namespace, for the training options, and numpy's scalars, for the best score."""
    kinds = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "bool")]
    scalars = [_numpy_scalar(core) for core in ("core", "_core")]  # files of numpy 1, and 2
    return torch.serialization.safe_globals([argparse.Namespace, np.dtype, *scalars, *kinds])


def _numpy_scalar(core: str) -> Any:
    """Numpy's function behind all pickled scalars, under the name that a file calls it by."""

    def scalar(*args: Any) -> Any:
        return np.float64(0).__reduce__()[0](*args)

    scalar.__module__, scalar.__qualname__ = f"numpy.{core}.multiarray", "scalar"
    return scalar


def _asked_for(message: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", message) or re.search(
        r"`?([\w.]+\.[\w]+)`? was not an allowed", message
    )
    return found[1] if found else message.splitlines()[0]


def _state_and_args(content: Any, name: str) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{name} holds a {type(content).__name__}, where a checkpoint is a dict")
    args = content.get("args")
    options = vars(args) if isinstance(args, argparse.Namespace) else dict(args or {})
    state = next((content[key] for key in _STATE_KEYS if key in content), content)
    tensors = {str(k): v.detach().float() for k, v in state.items() if isinstance(v, Tensor)}
    if tensors and all(key.startswith("module.") for key in tensors):  # saved from several GPUs
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    if not tensors:
        raise ValueError(f"{name} holds no tensors; expected them under {', '.join(_STATE_KEYS)}")
    return tensors, options
