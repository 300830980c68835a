"""Checkpoints: the safetensors format with its header, and strict loading of the tensors into a network.

Official checkpoints (.pt) are pickles, which official_reader.py reads without running anything in them and
official_converter.py converts. Both become the same Checkpoint; loading.py picks the reader.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..networks.configs import RENAMED_FIELDS
from ..storage.atomic import atomic_path

FORMAT_VERSION = "1"
PACKED_VERSION = "2"  # with tensors of 8 bits, which the first version does not know
SCALES = ".scales"  # behind the name of a tensor of 8 bits: what its rows were divided by
LEAST_PACKED = 4096  # numbers; smaller tensors are not worth the loss

PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save since 1.6, and before
PICKLE_SUFFIXES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".tar"}


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint: family, config, body, tensors; `file` is its name in messages.

    config        fields of the family's config, as JSON has them
    body_options  arguments of the body beside its name, as {"shape_count": 11}
    tensors       all of the network's own, none of its body's
    """

    file: str
    family: str
    config: dict[str, Any]
    body: str
    licence: str
    tensors: Mapping[str, Tensor]
    body_options: dict[str, Any] = field(default_factory=dict)


def read_safetensors(path: Path, families: Iterable[str], *, label: str = "") -> Checkpoint:
    """The checkpoint in a .safetensors file; nothing in it is run.

    Args:
        path: of the file.
        families: those that can be built; others are refused by name.
        label: what messages call the file; its name by default.

    Raises:
        ValueError: the file is damaged, of another format, or of an unknown family.
        FileNotFoundError: there is no such file.
    """
    label = label or path.name
    header = read_metadata(path)
    family = check_family(header.get("family", ""), families, label)
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    return Checkpoint(
        file=label,
        family=family,
        config=_json_object(header.get("config", ""), "config", label),
        body=header.get("body", ""),
        licence=header.get("licence", "unknown"),
        tensors=Unpacked(tensors),
        body_options=_json_object(header.get("body_options", "{}"), "body_options", label),
    )


def write_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str], **metadata: str) -> Path:
    """Write one safetensors file that `load_model` reads, and return its path. metadata: text for the header.

    A run that dies here leaves the previous file whole. ValueError names a tensor that is not finite.
    """
    path = Path(path)
    header = {
        "source": "unknown",
        **{key: str(value) for key, value in metadata.items()},
        "licence": checkpoint.licence,
        "family": checkpoint.family,
        "config": json.dumps(checkpoint.config),
        "body": checkpoint.body,
        "body_options": json.dumps(checkpoint.body_options),
        "version": PACKED_VERSION
        if any(key.endswith(SCALES) for key in checkpoint.tensors)
        else FORMAT_VERSION,
    }
    for key, value in checkpoint.tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            bits = " with 16 bits" if value.dtype == torch.float16 else ""
            raise ValueError(f"{key} of {checkpoint.file} has numbers that are not finite{bits}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_path(path) as draft:
            save_file({key: value.contiguous() for key, value in checkpoint.tensors.items()}, draft, header)
    except SafetensorError as error:  # how safetensors says that the disk is full
        raise OSError(f"{path} cannot be written: {error}") from None
    return path


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The header of a safetensors checkpoint: family, config (JSON), body, licence, source, version, ..."""
    path = Path(path)
    if is_pickle(path):
        raise ValueError(f"{path.name} is a pickle, which has no header; load_model reads official ones")
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(
            f"{path.name} is cut short or no safetensors file ({path.stat().st_size} bytes): {error}"
        ) from None


def packed(tensors: dict[str, Tensor], kept: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Matrices and kernels as whole numbers of 8 bits with a scale for each row, the rest as it is.

    A row's largest number becomes 127 of its scale, so that none is off by more than 1/254 of that. Whose
    names start with one of `kept` stay as they are, too.
    """
    result = {}
    for key, value in tensors.items():
        if (
            key.startswith(kept)
            or not value.is_floating_point()
            or value.ndim < 2
            or value.numel() < LEAST_PACKED
        ):
            result[key] = value
            continue
        rows = value.float().flatten(1)
        scales = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        result[key] = (rows / scales).round().to(torch.int8).view_as(value)
        result[key + SCALES] = scales[:, 0]
    return result


class Unpacked(Mapping[str, Tensor]):
    """Tensors that `packed` made smaller, as float32; each is unpacked on access."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, key: str) -> Tensor:
        value, scales = self._tensors[key], self._tensors.get(key + SCALES)
        return value if scales is None else (value.float().flatten(1) * scales[:, None]).view_as(value)

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._tensors if not key.endswith(SCALES))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def existing(path: Path) -> Path:
    """`path`, which is a file."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the .safetensors or .pt file in it")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; list_models() shows the models known by name")
    return path


def config_of(checkpoint: Checkpoint, config_class: Any) -> Any:
    """The family's config dataclass; fields that it does not have are named."""
    stored = {RENAMED_FIELDS.get(key, key): value for key, value in checkpoint.config.items()}
    unknown = sorted(set(stored) - {entry.name for entry in dataclasses.fields(config_class)})
    if unknown:
        raise ValueError(
            f"{checkpoint.file} has config fields that {config_class.__name__} lacks: {', '.join(unknown)}; "
            "it was saved by another version of multihmr"
        )
    try:
        return config_class(**{key: _tuples(value) for key, value in stored.items()})
    except TypeError as error:
        raise ValueError(f"{checkpoint.file} does not describe a {config_class.__name__}: {error}") from None


class CurrentNames(Mapping[str, Tensor]):
    """Tensors under the names that `model` has for them today.

    `renamed_parameters` of its class says which prefixes were others in older files.
    """

    def __init__(self, tensors: Mapping[str, Tensor], model: torch.nn.Module) -> None:
        prefixes = getattr(model, "renamed_parameters", {})
        self._tensors = tensors
        self._stored = {}
        for key in tensors:
            prefix, dot, rest = key.partition(".")
            self._stored[prefixes.get(prefix, prefix) + dot + rest] = key

    def __getitem__(self, key: str) -> Tensor:
        return self._tensors[self._stored[key]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def own_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Everything but the body, which is rebuilt from its own asset."""
    return {key: value for key, value in model.state_dict().items() if not key.startswith("body.")}


def load_weights(model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Load the weights strictly: ValueError names tensors that are missing, left over or of other shape."""
    file, name = checkpoint.file, type(model).__name__
    saved = CurrentNames(checkpoint.tensors, model)
    wanted = own_state(model)
    by = f"it was saved by family {checkpoint.family!r}"
    missing, extra = sorted(wanted.keys() - saved.keys()), sorted(saved.keys() - wanted.keys())
    if missing:
        raise ValueError(
            f"{file} lacks {len(missing)} tensors that {name}(config) has: {_some(missing)}; {by}"
        )
    if extra:
        raise ValueError(f"{file} has {len(extra)} tensors that {name}(config) lacks: {_some(extra)}; {by}")
    broken = []
    with torch.no_grad():
        for key, value in wanted.items():  # which are those of the model itself
            stored = saved[key]
            if stored.shape != value.shape:
                raise ValueError(
                    f"{file} has {key} of shape {tuple(stored.shape)} where {name}(config) has "
                    f"{tuple(value.shape)}; {by}"
                )
            if stored.is_floating_point() and not stored.isfinite().all():
                broken.append(key)
            value.copy_(stored)
    if broken:
        raise ValueError(f"{file} has numbers that are not finite in {_some(sorted(broken))}")


def is_pickle(path: Path) -> bool:
    """Whether the file's first bytes, which its name must not belie, are those of torch.save."""
    with existing(path).open("rb") as file:
        head = file.read(9)
    if not head:
        raise ValueError(f"{path.name} is empty (0 bytes)")
    # A safetensors file starts with the length of its header, which may be any byte, and then the header.
    if not head.startswith(PICKLE_STARTS) or head[8:] == b"{":
        return False
    if path.suffix.lower() == ".safetensors":
        raise ValueError(
            f"{path.name} is a pickle, which can run any code when it is read, under the name of a "
            "safetensors file, so it was not read; an official checkpoint must be named .pt"
        )
    return True


def check_family(family: str, families: Iterable[str], file: str) -> str:
    """`family`, if it is one of those that can be built; else ValueError."""
    if family not in families:
        known = ", ".join(families)
        raise ValueError(
            f"{file} was saved by family {family or 'unknown'!r}; this version knows: {known}. "
            "Only files written by multihmr's save_model and official checkpoints can be loaded"
        )
    return family


def _json_object(text: str, name: str, file: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise ValueError(f"{file} has no readable {name} in its header: {error}") from None
    return values


def _tuples(value: Any) -> Any:
    """JSON has lists where a config has tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
