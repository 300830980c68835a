"""Names -> files -> models: what `load_model` accepts, where assets lie; checkpoints written and read.

A checkpoint is one safetensors file: the tensors of the network (not of its body, which has its own asset)
and a header that says how to build it; official .pt files become the same through convert.py. Reading one
never runs code that comes with it. Environment variables, cache folders and downloads are here and, for the
bytes themselves, in download.py; nowhere else.

What is fetched lies in `cache_folder()`: models/NAME.safetensors (converted; the .pt that it was made from is
removed), graphs/ (backbones for other runtimes), smplx/SMPLX_NEUTRAL.npz (put there by the user) and
licences.txt (those that were shown).
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import torch

from .checkpoint import (
    PICKLE_STARTS,
    PICKLE_SUFFIXES,
    Checkpoint,
    config_of,
    existing,
    fill,
    own_state,
    packed,
    read_checkpoint,
    write_checkpoint,
)
from .checkpoint import read_metadata as read_metadata  # the header, for whoever asks this file
from .download import download, locked
from .releases import DEFAULT, RELEASES, Release, find_release, unknown_release

if TYPE_CHECKING:
    from .bodies.body import Body
    from .model import Model

logger = logging.getLogger(__name__)

SMPLX_FILE = "SMPLX_NEUTRAL.npz"
CPU_BACKENDS = ("onnxruntime", "openvino", "openvino-int8")


def _multihmr() -> tuple[type[Any], type[Any]]:
    from .networks.multihmr import MultiHMR, MultiHMRConfig

    return MultiHMR, MultiHMRConfig


def _multihmr_anny() -> tuple[type[Any], type[Any]]:
    from .networks.multihmr_anny import MultiHMRAnny, MultiHMRAnnyConfig

    return MultiHMRAnny, MultiHMRAnnyConfig


def _glnet() -> tuple[type[Any], type[Any]]:
    from .networks.glnet import GLNet, GLNetConfig

    return GLNet, GLNetConfig


FAMILIES: dict[str, Callable[[], tuple[type[Any], type[Any]]]] = {
    "multihmr": _multihmr,
    "multihmr-anny": _multihmr_anny,
    "glnet": _glnet,
}
"""family -> a function that imports it and gives (model class, config class)."""


def list_models() -> list[Release]:
    """The releases that `load_model` knows by name, each with name, body, licence, size and description."""
    return list(RELEASES.values())


def load_model(
    name: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    half: torch.dtype | bool | None = None,
    smplx: str | os.PathLike[str] | None = None,
    backend: str = "eager",
    calibrate: str | os.PathLike[str] | None = None,
) -> Model:
    """A model ready to predict: the bundled default, or what `name` says.

    Args:
        name: a release of `list_models` ("multiHMR_896_L", in any case, or "896_L"), fetched into
            `cache_folder()` on first use; a path to a .safetensors or an official .pt file; or
            "hf:owner/repo" or "hf:owner/repo@revision" for a repository on the Hugging Face Hub. A string
            that is both a release and a file here is refused: "release:NAME" and "./NAME" are the two
            spellings.
        device: None picks cuda, else mps, else cpu.
        half: precision of the backbone, while all that carries metres stays float32. None: float16 on cuda,
            float32 elsewhere; torch.float16, torch.bfloat16, or False for float32; True: float16, on a CPU
            bfloat16.
        smplx: SMPLX_NEUTRAL.npz or its folder, for models with that body; None looks as `find_smplx` does.
        backend: what computes the backbone when nobody learns: "eager" is torch as it stands, "compile"
            torch.compile; on a CPU "onnxruntime", "openvino" or "openvino-int8", which need
            multihmr[export]. What they need is made at first and kept in `cache_folder()`. On an NVIDIA GPU
            "cudagraph" records whole predictions, pixels to people, and replays them; "cudagraph-compile"
            records what torch.compile makes of them, "cudagraph-float8" with products of 8-bit floats (Hopper
            and later, half=torch.bfloat16). These hold for predictions alone, not for `forward`.
        calibrate: for "openvino-int8" at first: a folder of some hundred pictures, or of shards.

    Raises:
        ValueError: the name, an option or the file is wrong.
        ImportError: the backend's packages are missing.
        FileNotFoundError: there is no such file, or no SMPL-X file; said before anything is fetched.
        ConnectionError: no address gave the file.
        OSError: it cannot be written to the cache folder.
    """
    target = pick_device("cpu" if device is None and backend in CPU_BACKENDS else device)
    precision = _half_dtype(half, target)
    if backend != "eager":
        from .graphs.backends import check_backend, set_backend

        check_backend(backend, device=target.type, calibrate=calibrate)
    if isinstance(name, str) and name.startswith("hf:"):
        from .sharing import fetch_checkpoint

        name = fetch_checkpoint(name.removeprefix("hf:"), smplx=smplx)
    source = RELEASES[DEFAULT] if name is None else _source(name)
    load = _load_release if isinstance(source, Release) else _load_file
    model = load(source, smplx)  # type: ignore[arg-type]
    model.backbone.half_dtype = precision
    model.to(target).eval()
    if backend != "eager":
        set_backend(model, backend, folder=cache_folder() / "graphs", calibrate=calibrate)
    return model


def save_model(
    model: Model,
    path: str | os.PathLike[str],
    *,
    half: bool = False,
    small: bool = False,
    **metadata: str,
) -> Path:
    """Write `model` as one safetensors file that `load_model` reads; gives its path.

    half: store floats with 16 bits; ValueError where a number does not fit. small: matrices with 8 bits a
    number and a scale for each row, the rest as `half` says; they are read as float32 again. metadata: text
    for the header, as licence="CC0-1.0" or source="..."; `family`, `config`, `body`, `body_options` and
    `version` are set here.
    """
    tensors = {}
    for key, value in own_state(model).items():
        tensors[key] = value.detach().cpu().clone()
        if half and value.is_floating_point():
            tensors[key] = tensors[key].half()
    checkpoint = Checkpoint(
        file=Path(path).name,
        family=_family(model),
        config=dataclasses.asdict(model.config),
        body=model.body.name,
        licence=metadata.pop("licence", "unknown"),
        tensors=packed(tensors, model.backbone.exact) if small else tensors,
        body_options={"shape_count": model.body.shape_count} if model.body.name == "smplx" else {},
    )
    return write_checkpoint(checkpoint, path, **metadata)


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
        from .bodies.anny import Anny

        return Anny()
    if name == "anny-163":
        from .bodies.anny163 import Anny163

        return Anny163()
    if name == "smplx":
        file = find_smplx(smplx)
        from .bodies.smplx import SMPLX

        return SMPLX(file, shape_count=10 if shape_count is None else shape_count)
    raise ValueError(f"no body {name!r}; this version has: anny, anny-163, smplx")


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
    raise FileNotFoundError(
        "SMPL-X is licensed by its authors and cannot be fetched for you: register at "
        f"https://smpl-x.is.tue.mpg.de, download 'SMPL-X v1.1 (NPZ+PKL)' and put its {SMPLX_FILE} in "
        f"{cache_folder() / 'smplx'}, or give its path: load_model(..., smplx='path/to/{SMPLX_FILE}'). "
        f"Searched: {', '.join(searched)}"
    )


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


def _half_dtype(half: torch.dtype | bool | None, device: torch.device) -> torch.dtype | None:
    """What `load_model(half=...)` means on this device; None is float32."""
    if half is None:
        return torch.float16 if device.type == "cuda" else None  # a CPU gains nothing
    if half is False or half == torch.float32:
        return None
    if half is True:
        return torch.bfloat16 if device.type == "cpu" else torch.float16
    if half not in (torch.float16, torch.bfloat16):
        raise ValueError(f"half must be torch.float16, torch.bfloat16, True, False or None, got {half!r}")
    return half


def _source(name: str | os.PathLike[str]) -> Release | Path:
    """What `load_model`'s argument means: a release, or a file that exists."""
    if not isinstance(name, str):
        return existing(Path(name))
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
        return existing(Path(name))
    raise ValueError(unknown_release(bare))


def _load_file(path: Path, smplx: str | os.PathLike[str] | None) -> Model:
    """The model in a file, which must hold what an official name of that file promises."""
    checkpoint = read_checkpoint(path, FAMILIES)
    release = find_release(path.stem)
    if release is not None and path.name.lower() == release.file.lower() and release.urls:
        _check_release(checkpoint, release)
    return _build(checkpoint, smplx)


def _load_release(release: Release, smplx: str | os.PathLike[str] | None) -> Model:
    """The model of a release: bundled, from the cache folder, or fetched into it."""
    if not release.urls:
        return _load_file(bundled_file(release), smplx)
    if release.body == "smplx":
        smplx = find_smplx(smplx)
    stored = cache_folder() / "models" / f"{release.name}.safetensors"
    if not stored.exists():
        with locked(stored):
            if not stored.exists():  # another process was first
                return _first_load(release, stored, smplx)
    checkpoint = read_checkpoint(stored, FAMILIES, label=f"{stored} (delete it to fetch it anew)")
    _check_release(checkpoint, release)
    return _build(checkpoint, smplx)


def _first_load(release: Release, stored: Path, smplx: str | os.PathLike[str] | None) -> Model:
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
        checkpoint = read_checkpoint(official, FAMILIES, label=label)
        _check_release(checkpoint, release)
    except ValueError:
        if fetched:  # what is no such checkpoint must not be found again
            official.unlink()
        raise
    model = _build(checkpoint, smplx)
    model.licence = release.licence
    try:
        save_model(model, stored, licence=release.licence, source=f"converted from {release.urls[0]}")
    except OSError as error:
        logger.warning("%s is converted at each start, because it cannot be kept: %s", release.name, error)
    else:
        if fetched:
            official.unlink()
    return model


def bundled_file(release: Release) -> Path:
    """Where the checkpoint lies that comes with the package; its model card, README.md, lies beside it."""
    here = Path(__file__).resolve().parent
    # beside the modules once installed (package multihmr.weights), beside the package in a checkout
    for folder in (here / "weights", here.parent / "weights"):
        if (folder / release.file).is_file():
            return folder / release.file
    raise FileNotFoundError(
        f"the bundled model {release.file} is not in {here.parent / 'weights'}; "
        "install multihmr again, or give the path of a model"
    )


def say_licence(release: Release) -> None:
    """Tell the licence before the first download under it, and remember that in the cache folder."""
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
    """ValueError if the checkpoint is another one than its name says."""
    config = checkpoint.config
    found = (checkpoint.family, checkpoint.body, config.get("backbone"), config.get("image_size"))
    expected = (release.family, release.body, release.backbone, release.image_size)
    if found != expected:
        kinds = [f"{kind[0]} on {kind[2]} at {kind[3]} pixels, body {kind[1]}" for kind in (found, expected)]
        raise ValueError(
            f"{checkpoint.file} is not {release.name}: it holds {kinds[0]}; expected {kinds[1]}. "
            "Give the file its own name, or take the right one"
        )


def _build(checkpoint: Checkpoint, smplx: str | os.PathLike[str] | None) -> Model:
    """The network that a checkpoint describes, with its weights and its body, on the CPU."""
    model_class, config_class = FAMILIES[checkpoint.family]()
    config = config_of(checkpoint, config_class)
    count = checkpoint.body_options.get("shape_count")
    if set(checkpoint.body_options) - {"shape_count"} or not isinstance(count, (int, NoneType)):
        raise ValueError(
            f"{checkpoint.file} has body options {checkpoint.body_options}, expected at most a shape_count; "
            "it was saved by another version of multihmr"
        )
    body = load_body(checkpoint.body, shape_count=count, smplx=smplx)
    model = model_class(config, body)
    fill(model, checkpoint)
    model.licence = checkpoint.licence
    if checkpoint.family == "glnet":
        model.load_detector = load_model  # the bundled one finds people where no boxes are given
    return model


def _family(model: Model) -> str:
    family = getattr(model, "family", "")
    if family in FAMILIES and type(model) is FAMILIES[family]()[0]:
        return family
    raise ValueError(
        f"{type(model).__name__} is of no family in hub.FAMILIES, so it could not be loaded again"
    )
