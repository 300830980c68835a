"""Model names to networks: releases, files and the cache folder; networks written as checkpoints.

A checkpoint is one safetensors file: the tensors of the network (not of its body, which has its own asset)
and a header that says how to build it; official .pt files become the same through official_converter.py.
Reading one never runs code that comes with it.

In the cache folder are models/NAME.safetensors (converted; the .pt that it was made from is removed), graphs/
(backbones for other runtimes), smplx/SMPLX_NEUTRAL.npz (put there by the user) and licences.txt (those that
were shown).
"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..bodies.loading import find_smplx, float32_on_cpu, load_body
from ..networks.base import Network
from ..networks.registry import FAMILIES
from ..storage.download import download, locked
from ..storage.paths import bundled_file, cache_folder, user_path
from .checkpoint import (
    PICKLE_STARTS,
    PICKLE_SUFFIXES,
    Checkpoint,
    check_family,
    config_of,
    existing,
    is_pickle,
    load_weights,
    own_state,
    packed,
    read_safetensors,
    write_checkpoint,
)
from .checkpoint import read_metadata as read_metadata  # the header, importable from here
from .releases import DEFAULT, RELEASES, Release, find_release, unknown_release

logger = logging.getLogger(__name__)


def load_network(
    name: str | os.PathLike[str] | None = None, *, smplx: str | os.PathLike[str] | None = None
) -> tuple[Network, str]:
    """The network of a release or a file, on the CPU, and the licence of its weights.

    Args:
        name: a release or a path, as `load_model` takes it; None is the bundled default.
        smplx: SMPLX_NEUTRAL.npz or its folder, for networks with that body.
    """
    source = RELEASES[DEFAULT] if name is None else _source(name)
    return _load_release(source, smplx) if isinstance(source, Release) else _load_file(source, smplx)


def save_network(
    network: Network,
    path: str | os.PathLike[str],
    *,
    half: bool = False,
    small: bool = False,
    **metadata: str,
) -> Path:
    """Write `network` as one safetensors file that `load_model` reads, and return its path.

    half: store floats with 16 bits; ValueError where a number does not fit. small: matrices with 8 bits a
    number and a scale for each row, the rest as `half` says; they are read as float32 again. metadata: text
    for the header, as licence="CC0-1.0" or source="..."; `family`, `config`, `body`, `body_options` and
    `version` are set here.
    """
    tensors = {}
    for key, value in own_state(network).items():
        tensors[key] = value.detach().cpu().clone()
        if half and value.is_floating_point():
            tensors[key] = tensors[key].half()
    checkpoint = Checkpoint(
        file=Path(path).name,
        family=_family(network),
        config=dataclasses.asdict(network.config),
        body=network.body.name,
        licence=metadata.pop("licence", "unknown"),
        tensors=packed(tensors, network.backbone.exact) if small else tensors,
        body_options={"shape_count": network.body.shape_count} if network.body.name == "smplx" else {},
    )
    return write_checkpoint(checkpoint, path, **metadata)


def _source(name: str | os.PathLike[str]) -> Release | Path:
    """What `load_model`'s argument means: a release, or a file that exists."""
    if not isinstance(name, (str, os.PathLike)):
        raise ValueError(f"a model is the name of a release or a path, got {type(name).__name__}")
    if not str(name).strip():
        raise ValueError(f"an empty name is no model, got {name!r}; load_model() loads the bundled one")
    if not isinstance(name, str):
        return existing(user_path(name))
    bare = name.removeprefix("release:")
    release = find_release(bare)
    if release is not None:
        if bare == name and Path(name).exists():
            raise ValueError(
                f"{name!r} is both a release and a file here; write 'release:{name}' or './{name}'"
            )
        return release
    suffix = Path(name).suffix.lower()
    looks_like_path = "/" in name or os.sep in name or suffix in {".safetensors", *PICKLE_SUFFIXES}
    if bare == name and (looks_like_path or Path(name).exists()):
        return existing(user_path(name))
    raise ValueError(unknown_release(bare))


def read_checkpoint(path: Path, *, label: str = "") -> Checkpoint:
    """The checkpoint in a .safetensors or an official .pt file; nothing in it is run.

    Args:
        path: of the file, whose first bytes tell the format.
        label: what messages call the file; its name by default.

    Raises:
        ValueError: the file is damaged, hostile, of another format, or of an unknown family.
        FileNotFoundError: there is no such file.
    """
    if not is_pickle(path):
        return read_safetensors(path, FAMILIES, label=label)
    from .official_converter import read_official

    official = read_official(path)
    check_family(official.family, FAMILIES, label or path.name)
    return dataclasses.replace(official, file=label or path.name)


def _load_file(path: Path, smplx: str | os.PathLike[str] | None) -> tuple[Network, str]:
    """The model in a file, which must hold what an official name of that file promises."""
    checkpoint = read_checkpoint(path)
    release = find_release(path.stem)
    if release is not None and path.name.lower() == release.file.lower() and release.urls:
        _check_release(checkpoint, release)
    return _build(checkpoint, smplx)


def _load_release(release: Release, smplx: str | os.PathLike[str] | None) -> tuple[Network, str]:
    """The model of a release: bundled, from the cache folder, or fetched into it."""
    if not release.urls:
        return _load_file(bundled_file(release.file), smplx)
    if release.body == "smplx":
        smplx = find_smplx(smplx)
    stored = cache_folder() / "models" / f"{release.name}.safetensors"
    if not stored.exists():
        with locked(stored):
            if not stored.exists():  # another process was first
                return _first_load(release, stored, smplx)
    checkpoint = read_checkpoint(stored, label=f"{stored} (delete it to fetch it anew)")
    _check_release(checkpoint, release)
    return _build(checkpoint, smplx)


def _first_load(release: Release, stored: Path, smplx: str | os.PathLike[str] | None) -> tuple[Network, str]:
    """Fetch a release, and keep it as `stored`; the .pt that was fetched for it is removed then."""
    official = stored.with_name(release.file)
    fetched = not official.exists()
    if fetched:
        if release.body == "smplx":
            load_body("smplx", smplx=smplx)  # a wrong file or a missing package is said before a gigabyte
        say_licence(release)
        size = release.size if release.sha256 else None
        download(release.urls, official, sha256=release.sha256, size=size, starts=PICKLE_STARTS)
    label = f"{official} ({'removed' if fetched else 'delete it to fetch it anew'})"
    try:
        checkpoint = read_checkpoint(official, label=label)
        _check_release(checkpoint, release)
    except ValueError:
        if fetched:  # what is no such checkpoint must not be found again
            official.unlink()
        raise
    network, _ = _build(checkpoint, smplx)
    try:
        save_network(network, stored, licence=release.licence, source=f"converted from {release.urls[0]}")
    except OSError as error:
        logger.warning("%s is converted at each start, because it cannot be kept: %s", release.name, error)
    else:
        if fetched:
            official.unlink()
    return network, release.licence


def say_licence(release: Release) -> None:
    """Log the licence before the first download under it; the cache folder remembers which were shown."""
    said = cache_folder() / "licences.txt"
    try:
        if said.exists() and release.licence_url in said.read_text(encoding="utf-8").splitlines():
            return
    except OSError:
        pass  # rather twice than never
    logger.warning(
        "%s may be used for non-commercial purposes only, under NAVER's licence: %s",
        release.name,
        release.licence_url,
    )
    try:
        said.parent.mkdir(parents=True, exist_ok=True)
        with said.open("a", encoding="utf-8") as file:
            file.write(release.licence_url + "\n")
    except OSError as error:
        logger.debug("that the licence was shown cannot be remembered: %s", error)


def _check_release(checkpoint: Checkpoint, release: Release) -> None:
    """ValueError if the checkpoint is not the one of its name."""
    config = checkpoint.config
    found = (checkpoint.family, checkpoint.body, config.get("backbone"), config.get("image_size"))
    expected = (release.family, release.body, release.backbone, release.image_size)
    if found != expected:
        kinds = [f"{kind[0]} on {kind[2]} at {kind[3]} pixels, body {kind[1]}" for kind in (found, expected)]
        raise ValueError(
            f"{checkpoint.file} is not {release.name}: it holds {kinds[0]}; expected {kinds[1]}. "
            "Give the file its own name, or take the right one"
        )


_RANDOM_INITS = {
    *("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"),
    *("uniform_", "normal_", "trunc_normal_"),
}


class _WithoutRandomNumbers(TorchFunctionMode):
    """Within it, torch.nn.init draws no random numbers, which takes a quarter of the time of loading.

    The checkpoint replaces all weights; `load_weights` refuses one that lacks some.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init" and func.__name__ in _RANDOM_INITS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@float32_on_cpu()
def _build(checkpoint: Checkpoint, smplx: str | os.PathLike[str] | None) -> tuple[Network, str]:
    """The network that a checkpoint describes, with its weights and its body, on the CPU."""
    network_class, config_class = FAMILIES[checkpoint.family]()
    config = config_of(checkpoint, config_class)
    count = checkpoint.body_options.get("shape_count")
    if set(checkpoint.body_options) - {"shape_count"} or not isinstance(count, (int, NoneType)):
        raise ValueError(
            f"{checkpoint.file} has body options {checkpoint.body_options}, expected at most a shape_count; "
            "it was saved by another version of multihmr"
        )
    body = load_body(checkpoint.body, shape_count=count, smplx=smplx)
    # The random numbers of the host program go on as if nothing had been loaded.
    with _WithoutRandomNumbers(), torch.random.fork_rng(devices=[]):
        network = network_class(config, body)
    load_weights(network, checkpoint)
    return network, checkpoint.licence


def _family(network: Network) -> str:
    family = getattr(network, "family", "")
    if family in FAMILIES and type(network) is FAMILIES[family]()[0]:
        return family
    raise ValueError(
        f"{type(network).__name__} is of no family in registry.FAMILIES, so it could not be loaded again"
    )
