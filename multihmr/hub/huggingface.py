"""Models to and from the Hugging Face Hub, or folders laid out like its repositories.

A repository holds model.safetensors, as `save_model` writes it; config.json, which says the same as the
header of that file and by which the Hub counts downloads; and README.md, the model card, with the figures
that `multihmr evaluate` wrote, or none.

The methods of `Model` are called as those of huggingface_hub's ModelHubMixin, but do not come from it: the
mixin makes a model from what its `__init__` takes, which here is a body as well; and what is missing in a
file it replaces by defaults, where we refuse. All that would be left of it are the two calls in
`push_to_hub`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..bodies.loading import find_smplx
from ..networks.base import Network
from ..networks.registry import FAMILIES
from ..storage.paths import bundled_file, plain_reason, repository_cache
from ..storage.telemetry import disable_telemetry
from .checkpoint import config_of, own_state, read_metadata, read_safetensors
from .loading import save_network, say_licence
from .releases import RELEASES, Release, find_release

PATIENCE = 2.0  # seconds to wait for a first answer of the Hub; each of two files may be asked for
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

# Those that the Hub knows by these names; any other is "other" there, with its name beside it.
_LICENCES = {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"}
_LICENCES |= {"cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unknown"}


def pretrained_file(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    smplx: str | os.PathLike[str] | None = None,
) -> Path:
    """The checkpoint of `Model.from_pretrained`, fetched if it is on the Hub."""
    if not Path(name).is_dir():
        name = os.fspath(name)
        _check_name(name.partition("@")[0], f"{name!r} is neither a folder here nor 'owner/repo' on the Hub")
        return fetch_checkpoint(name, revision=revision, token=token, smplx=smplx)
    if revision is not None:
        raise ValueError(f"{name} is a folder here, which has no revisions; leave revision away")
    file = Path(name) / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"{name} has no {WEIGHTS}; save_pretrained writes such folders")
    return file


def fetch_checkpoint(
    repository: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    smplx: str | os.PathLike[str] | None = None,
) -> Path:
    """The checkpoint of "owner/repo" or "owner/repo@revision" on the Hub, from the cache or fetched.

    It is the repository's model.safetensors, else the .pt of the official name. What it needs besides is
    looked for before a large file is fetched.

    Raises:
        ValueError: `repository` is not of that form, or of a family that this version does not know.
        FileNotFoundError: its body is SMPL-X, and there is no SMPL-X file.
        ConnectionError: it cannot be had; the sentence says why.
    """
    repository, _, named = repository.partition("@")
    _check_name(repository, f"'hf:{repository}' must be 'hf:owner/repo'")
    revision = revision or named or None
    release = find_release(repository.partition("/")[2])
    files = [WEIGHTS]
    if release is not None and release.urls:
        if release.body == "smplx":
            find_smplx(smplx)
        say_licence(release)
        files.append(release.file)
    else:
        _check_needs(repository, _described(repository, revision, token), smplx)
    for file in files:
        path = _fetch(repository, file, revision, token)
        if path is not None:
            return path
    raise ConnectionError(f"cannot get {' or '.join(files)} of 'hf:{repository}': it has no such file")


def save_pretrained(
    network: Network,
    folder: str | os.PathLike[str],
    *,
    licence: str,
    evaluation: str | os.PathLike[str] | None = None,
    half: bool = False,
) -> Path:
    """See `Model.save_pretrained`."""
    folder = Path(folder)
    _write(network, licence, folder, folder.absolute().name, evaluation, half)
    return folder


def push_to_hub(
    network: Network,
    repository: str,
    *,
    licence: str,
    evaluation: str | os.PathLike[str] | None = None,
    half: bool = False,
    private: bool | None = None,
    token: str | None = None,
) -> str:
    """See `Model.push_to_hub`."""
    disable_telemetry()
    from huggingface_hub import HfApi

    _check_name(repository, f"a repository on the Hub is called 'owner/name', got {repository!r}")
    if licence == "unknown" and not private:
        raise ValueError(
            "nobody may use a model without a licence: set one before it is published, as "
            "model.licence = 'CC-BY-4.0', or keep the repository private with private=True"
        )
    try:
        _check_reachable()
    except ConnectionError as error:
        raise ConnectionError(f"cannot upload to '{repository}': {error}") from None
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        _write(network, licence, Path(folder), repository, evaluation, half)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message="Model saved by multihmr"
            )
        except (OSError, ValueError, RuntimeError) as error:
            kind = PermissionError if _status(error) in (401, 403) else ConnectionError
            raise kind(f"cannot upload to '{repository}': {_why(error, repository)}") from error
    return str(commit.commit_url)


def _write(
    network: Network,
    licence: str,
    folder: Path,
    name: str,
    evaluation: str | os.PathLike[str] | None,
    half: bool,
) -> None:
    """The three files of a repository called `name`. The bundled model goes as it is, with its own card."""
    bundled = _bundled(network)
    results = None if evaluation is None else _results(Path(evaluation))
    folder.mkdir(parents=True, exist_ok=True)
    if bundled is not None:
        file = bundled_file(bundled.file)
        shutil.copyfile(file, folder / WEIGHTS)
        text = file.with_name(bundled.card).read_text(encoding="utf-8")
    else:
        save_network(network, folder / WEIGHTS, half=half, licence=licence, source="multihmr save_pretrained")
        text = _card_text(network, licence, name)
        text += _figures(None if evaluation is None else Path(evaluation) / "table.md")
    described = _config(folder / WEIGHTS, type(network).__name__)
    (folder / CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    header = _card_header(network, licence, name, results or [])
    (folder / CARD).write_text(f"---\n{header}\n---\n\n{text}", encoding="utf-8")


def _bundled(network: Network) -> Release | None:
    """The release that the package brings whose weights these are, and of which its model card describes."""
    return next((r for r in RELEASES.values() if not r.urls and _is_release(network, r)), None)


def _is_release(network: Network, release: Release) -> bool:
    """Whether these are the weights in the release's file, which lies in the package."""
    if (network.family, network.body.name) != (release.family, release.body):
        return False
    checkpoint = read_safetensors(bundled_file(release.file), FAMILIES)
    if network.config != config_of(checkpoint, type(network.config)):
        return False
    return all(
        torch.equal(value.cpu(), checkpoint.tensors[key].to(value.dtype))
        for key, value in own_state(network).items()
    )


def _config(weights: Path, architecture: str) -> dict[str, Any]:
    """The content of config.json: the header of the weights, with JSON in place of text."""
    header = read_metadata(weights)
    structured = {key: json.loads(header[key]) for key in ("config", "body_options")}
    facts = {"library_name": "multihmr", "architectures": [architecture]}
    return {**facts, **{key: structured.get(key, value) for key, value in sorted(header.items())}}


def _card_header(network: Network, licence: str, name: str, results: Sequence[Any]) -> str:
    """The YAML at the top of the card, which the Hub reads: licence, tags, measured figures."""
    disable_telemetry()
    from huggingface_hub import EvalResult, ModelCardData

    measured = [
        EvalResult(
            task_type="image-to-3d",
            task_name="Human mesh recovery",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", str(result["data"]).lower()) or "unknown",
            dataset_name=str(result["data"]) or "unknown",
            metric_type=figure,
            metric_name=f"{label['label']} {label['unit']}".strip(),
            metric_value=float(f"{value * label['scale']:.4g}"),
        )
        for result in results
        for figure, label, value in _labelled(result)
    ]
    return ModelCardData(
        **_licence(licence),
        library_name="multihmr",
        pipeline_tag="image-to-3d",
        tags=["human-mesh-recovery", "human-pose-estimation", network.family, network.body.name],
        model_name=name if measured else None,
        eval_results=measured or None,
    ).to_yaml()


def _labelled(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], float]]:
    """(name, label with unit and scale, value) of each figure that an evaluation labels.

    Results of version 0.3 have no labels; their figures are shown by name, as they are stored.
    """
    labels = result.get("figure_labels")
    for name, value in result["figures"].items():
        label = {"label": name, "unit": "", "scale": 1.0} if labels is None else labels.get(name)
        if value is not None and label is not None:
            yield name, label, value


def _licence(licence: str) -> dict[str, Any]:
    """Licence identifier of the Hub."""
    if licence.lower() in _LICENCES:
        return {"license": licence.lower()}
    links = [release.licence_url for release in RELEASES.values() if release.licence == licence]
    other = {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")}
    return {**other, **({"license_link": links[0]} if links and links[0] else {})}


def _card_text(network: Network, licence: str, name: str) -> str:
    """The text of the model card, from the config of the network."""
    config, body, topology = network.config, network.body.name, network.body.topology
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    body += " (whose file the user brings)" if body == "smplx" else ""
    sizes = f"{len(topology.joint_names)} joints, {len(topology.shape_names)} shape values"
    unmoved = ", ".join(config.unpredicted) or "nothing"
    return f"""# {name}

Every person in a picture as a whole-body 3D mesh, in metres before the camera.

```python
from multihmr import Model

model = Model.from_pretrained("{name}")
humans = model.predict("street.jpg")
humans.save("street.glb")
```

| | |
|---|---|
| Network | family `{network.family}`, backbone {config.backbone}, {parameters:.1f} million parameters |
| Input | a window of {config.image_size} x {config.image_size} pixels |
| Body | {body}: {sizes} |
| Not predicted | {unmoved} |
| Licence | {licence} |

## Figures

"""


def _figures(table: Path | None) -> str:
    """What `multihmr evaluate` wrote, as it is; without it, that nothing was measured."""
    if table is None:
        return (
            "Not measured. `multihmr evaluate --model model.safetensors --data synth-test --out results` "
            "measures; `save_pretrained(..., evaluation='results')` writes it here.\n"
        )
    return f"Measured by `multihmr evaluate`.\n\n{table.read_text(encoding='utf-8')}"


def _results(folder: Path) -> list[dict[str, Any]]:
    """What an evaluation found: one dict for each benchmark, with `data` and `figures`."""
    found = [folder / name for name in ("results.json", "result.json") if (folder / name).is_file()]
    if not found or not (folder / "table.md").is_file():
        raise FileNotFoundError(
            f"{folder} holds no evaluation (result.json and table.md); "
            f"`multihmr evaluate --out {folder}` writes one"
        )
    try:
        content = json.loads(found[0].read_text(encoding="utf-8"))
        results = content if isinstance(content, list) else [content]
        for result in results:
            result["data"], result["figures"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{found[0]} is not what `multihmr evaluate` writes: {error!r}") from None
    return results


def _described(repository: str, revision: str | None, token: str | None) -> dict[str, Any]:
    """The config.json of a repository; nothing if it has none, or none can be had (the weights may)."""
    try:
        path = _fetch(repository, CONFIG, revision, token)
        found = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_needs(repository: str, described: dict[str, Any], smplx: str | os.PathLike[str] | None) -> None:
    """Check family and body before the weights are fetched; ValueError or FileNotFoundError."""
    family = described.get("family")
    if family is not None and family not in FAMILIES:
        raise ValueError(
            f"'hf:{repository}' is of family {family!r}; this version knows: {', '.join(FAMILIES)}. "
            "A newer multihmr may read it"
        )
    if described.get("body") == "smplx":
        find_smplx(smplx)


def _fetch(repository: str, file: str, revision: str | None, token: str | None) -> Path | None:
    """A file of a repository, from the cache or the net; None if the repository has none of that name."""
    disable_telemetry()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    options: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": repository_cache()}
    try:
        _check_reachable()
    except ConnectionError as error:  # what was fetched before does without
        try:
            return Path(hf_hub_download(repository, file, local_files_only=True, **options))
        except (OSError, ValueError):
            raise ConnectionError(f"cannot get {file} of 'hf:{repository}': {error}") from None
    try:
        return Path(hf_hub_download(repository, file, **options))
    except (OSError, ValueError, EntryNotFoundError) as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise ConnectionError(f"cannot get {file} of 'hf:{repository}': {_why(error, repository)}") from error


def _check_reachable() -> None:
    """ConnectionError, after `PATIENCE` seconds at most, if the Hub does not answer.

    Without it huggingface_hub tries each file five times, for 47 s in all.
    """
    disable_telemetry()
    from huggingface_hub import constants, get_session

    problem = ["it did not answer"]

    def ask() -> None:
        try:
            status = get_session().head(constants.ENDPOINT, timeout=PATIENCE).status_code
            problem[:] = [f"HTTP status {status}"] if status >= 500 or status == 407 else []
        except Exception as error:  # of whatever library huggingface_hub asks with
            problem[:] = [plain_reason(error)]

    asking = threading.Thread(target=ask, daemon=True)  # names are resolved without a limit of time
    asking.start()
    asking.join(PATIENCE)
    if problem:
        raise ConnectionError(
            f"the Hugging Face Hub cannot be reached at {constants.ENDPOINT} ({problem[0]}); "
            "check the network and the proxy"
        )


def _check_name(repository: str, message: str) -> None:
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(message)


def _status(error: Exception) -> int:
    """The HTTP status that an error is about; 0 where there is none."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _why(error: Exception, repository: str) -> str:
    """Error message for a failure of the Hub, with what to do about it."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return f"its owner asks for an agreement: https://huggingface.co/{repository}, then `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision"
    if _status(error) == 403:
        return "your token may not do this; make one that may write at https://huggingface.co/settings/tokens"
    if isinstance(error, RepositoryNotFoundError) or _status(error) == 401:
        return (
            "there is no such repository, or you are not let in; log in with `hf auth login` or set HF_TOKEN"
        )
    cause = error.__cause__ or error  # huggingface_hub wraps some, and says then which file it was
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
