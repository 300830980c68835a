"""Names -> files -> models: what `load_model` accepts, where assets lie; checkpoints written and read.

A checkpoint is one safetensors file: the tensors of the network (not of its body, which has its own asset)
and a header that says how to build it. Reading one never runs code that comes with it. Environment
variables, cache folders and downloads are here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

if TYPE_CHECKING:
    from .bodies.body import Body
    from .model import Model

DEFAULT = "multihmr-anny-hybrid"
FORMAT_VERSION = "1"

_PICKLES = (b"PK\x03\x04", b"\x80")  # torch.save since 1.6, and before
_PICKLE_SUFFIXES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".tar"}


@dataclass(frozen=True)
class Release:
    """A published checkpoint: file name in `weights/`, sha256 and size [bytes] of that file."""

    name: str
    file: str
    sha256: str
    size: int
    body: str
    licence: str
    description: str


RELEASES = {
    release.name: release
    for release in [
        Release(
            name=DEFAULT,
            file="multihmr-anny-hybrid.safetensors",
            sha256="5fd395b1c2afd37ec4d97760706a117aa94813151cc8b53155bfb5a408d57b1d",
            size=19715706,
            body="anny",
            licence="Apache-2.0",
            description="EfficientNet-Lite and ViT blocks for CPUs, trained on synthetic people only",
        ),
    ]
}


def _multihmr() -> tuple[type[Any], type[Any]]:
    from .networks.multihmr import MultiHMR, MultiHMRConfig

    return MultiHMR, MultiHMRConfig


FAMILIES: dict[str, Callable[[], tuple[type[Any], type[Any]]]] = {"multihmr": _multihmr}
"""family -> a function that imports it and gives (model class, config class)."""


def list_models() -> list[Release]:
    """The releases that `load_model` knows by name, each with name, body, licence, size and description."""
    return list(RELEASES.values())


def load_model(
    name: str | os.PathLike[str] | None = None, *, device: str | torch.device | None = None
) -> Model:
    """A model ready to predict: the bundled default, or what `name` says.

    name: a release of `list_models`, a path to a safetensors file, or "hf:owner/repo" for `model.safetensors`
    of a repository on the Hugging Face Hub. A string that is both a release and a file here is refused:
    "release:NAME" and "./NAME" are the two spellings. device: None picks cuda, else mps, else cpu.
    ValueError, FileNotFoundError and ConnectionError say in one sentence what is wrong.
    """
    path = _find(name)
    target = pick_device(device)
    metadata = read_metadata(path)
    family = metadata.get("family", "")
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ValueError(
            f"{path.name} was saved by family {family or 'unknown'!r}; this version knows: {known}. "
            "Only files written by multihmr's save_model can be loaded"
        )
    model_class, config_class = FAMILIES[family]()
    config = _json_to_config(metadata.get("config", ""), config_class, path.name)
    body = load_body(metadata.get("body", ""))
    model = model_class(config, body)
    _load_strictly(model, path, family)
    model.licence = metadata.get("licence", "unknown")
    if target.type == "cuda":  # a CPU gains nothing: it computes in float32
        model.backbone.half_dtype = torch.float16
    return model.to(target).eval()


def save_model(model: Model, path: str | os.PathLike[str], *, half: bool = False, **metadata: str) -> Path:
    """Write `model` as one safetensors file that `load_model` reads; gives its path.

    half: store floats with 16 bits; ValueError where a number does not fit. metadata: text for the header, as
    licence="CC0-1.0" or source="..."; `family`, `config`, `body` and `version` are set here.
    """
    path = Path(path)
    header = {
        "licence": "unknown",
        "source": "unknown",
        **{key: str(value) for key, value in metadata.items()},
        "family": _family(model),
        "config": json.dumps(dataclasses.asdict(model.config)),
        "body": model.body.name,
        "version": FORMAT_VERSION,
    }
    tensors = {}
    for key, value in _own_state(model).items():
        tensors[key] = value.detach().cpu().clone().contiguous()
        if half and value.is_floating_point():
            tensors[key] = tensors[key].half()
        if value.is_floating_point() and not tensors[key].isfinite().all():
            raise ValueError(f"{key} has numbers that are not finite{' with 16 bits' if half else ''}")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")  # a run that dies here leaves the previous file whole
    save_file(tensors, draft, header)
    os.replace(draft, path)
    return path


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The header of a safetensors checkpoint: family, config (JSON), body, licence, source, version, ..."""
    path = Path(path)
    _refuse_foreign(path)
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(
            f"{path.name} is cut short or no safetensors file ({path.stat().st_size} bytes): {error}"
        ) from None


def load_body(name: str) -> Body:
    """The parametric body of that name, from its asset in the package: "anny"."""
    if name == "anny":
        from .bodies.anny import Anny

        return Anny()
    raise ValueError(f"no body {name!r}; this version has: anny")


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """`device`, if it is there; without one the best there is: cuda, mps, cpu."""
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used here: {reason}") from None
    return picked


def _find(name: str | os.PathLike[str] | None) -> Path:
    """The checkpoint file that `load_model`'s argument means; it exists."""
    if name is None:
        return _release_file(DEFAULT)
    if not isinstance(name, str):
        return _existing(Path(name))
    if name.startswith("hf:"):
        return _fetch(name.removeprefix("hf:"))
    if name.startswith("release:"):
        return _release_file(name.removeprefix("release:"))
    if name in RELEASES and Path(name).exists():
        raise ValueError(f"{name!r} is both a release and a file here; write 'release:{name}' or './{name}'")
    if name in RELEASES:
        return _release_file(name)
    suffix = Path(name).suffix.lower()
    looks_like_path = "/" in name or os.sep in name or suffix in {".safetensors", *_PICKLE_SUFFIXES}
    if looks_like_path or Path(name).exists():
        return _existing(Path(name))
    raise ValueError(_unknown(name))


def _release_file(name: str) -> Path:
    if name not in RELEASES:
        raise ValueError(_unknown(name))
    here = Path(__file__).resolve().parent
    # beside the modules once installed (package multihmr.weights), beside the package in a checkout
    for folder in (here / "weights", here.parent / "weights"):
        if (folder / RELEASES[name].file).is_file():
            return folder / RELEASES[name].file
    raise FileNotFoundError(
        f"the bundled model {RELEASES[name].file} is not in {here.parent / 'weights'}; "
        "install multihmr again, or give the path of a model"
    )


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, RELEASES, n=3, cutoff=0.0)
    quoted = ", ".join(repr(near) for near in nearest)
    return (
        f"no model {name!r}; nearest: {quoted}. list_models() shows all, a path or 'hf:owner/repo' also works"
    )


def _existing(path: Path) -> Path:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the .safetensors file in it")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; list_models() shows the models known by name")
    return path


def _fetch(repository: str) -> Path:
    """`model.safetensors` of a Hub repository, from the cache or the net."""
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(f"'hf:{repository}' must be 'hf:owner/repo'")
    from huggingface_hub import hf_hub_download

    home = os.environ.get("MULTIHMR_HOME")
    try:
        found = hf_hub_download(
            repository, "model.safetensors", cache_dir=Path(home) / "hub" if home else None
        )
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(f"cannot get model.safetensors of 'hf:{repository}': {reason}") from error
    return Path(found)


def _refuse_foreign(path: Path) -> None:
    """Files that are no safetensors are turned away by their first bytes; nothing in them is run."""
    with _existing(path).open("rb") as file:
        head = file.read(4)
    if not head:
        raise ValueError(f"{path.name} is empty (0 bytes)")
    if path.suffix.lower() in _PICKLE_SUFFIXES or head.startswith(_PICKLES):
        raise ValueError(
            f"{path.name} is a pickle, which can run any code when it is read, so it was not; "
            "this version loads .safetensors only and does not convert official checkpoints"
        )


def _json_to_config(text: str, config_class: Any, file: str) -> Any:
    """Build a config dataclass from the header; fields that it does not have are named."""
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise ValueError(f"{file} has no readable config in its header: {error}") from None
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(config_class)})
    if unknown:
        raise ValueError(
            f"{file} has config fields that {config_class.__name__} lacks: {', '.join(unknown)}; "
            "it was saved by another version of multihmr"
        )
    try:
        return config_class(**{key: _tuples(value) for key, value in values.items()})
    except TypeError as error:
        raise ValueError(f"{file} does not describe a {config_class.__name__}: {error}") from None


def _tuples(value: Any) -> Any:
    """JSON has lists where a config has tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _family(model: Model) -> str:
    for family, load in FAMILIES.items():
        if type(model) is load()[0]:
            return family
    raise ValueError(
        f"{type(model).__name__} is of no family in hub.FAMILIES, so it could not be loaded again"
    )


def _own_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Everything but the body, which is rebuilt from its own asset."""
    return {key: value for key, value in model.state_dict().items() if not key.startswith("body.")}


def _load_strictly(model: torch.nn.Module, path: Path, family: str) -> None:
    """Fill every tensor of `model` from the file, or say which do not fit."""
    name = type(model).__name__
    with safe_open(path, "pt") as file:
        saved = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    wanted = _own_state(model)
    by = f"it was saved by family {family!r}"
    missing, extra = sorted(wanted.keys() - saved.keys()), sorted(saved.keys() - wanted.keys())
    if missing:
        raise ValueError(
            f"{path.name} lacks {len(missing)} tensors that {name}(config) has: {_some(missing)}; {by}"
        )
    if extra:
        raise ValueError(
            f"{path.name} has {len(extra)} tensors that {name}(config) lacks: {_some(extra)}; {by}"
        )
    for key, value in wanted.items():
        if saved[key].shape != value.shape:
            raise ValueError(
                f"{path.name} has {key} of shape {tuple(saved[key].shape)} where {name}(config) has "
                f"{tuple(value.shape)}; {by}"
            )
    broken = sorted(k for k, v in saved.items() if v.is_floating_point() and not v.isfinite().all())
    if broken:
        raise ValueError(f"{path.name} has numbers that are not finite in {_some(broken)}")
    model.load_state_dict(saved, strict=False)  # checked above; only the body's own are not in the file


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
