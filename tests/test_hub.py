from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import ToyBody, tiny_model

from multihmr import hub
from multihmr.hub import list_models, load_model, read_metadata, save_model

LOAD_BODY = hub.load_body


@pytest.fixture(autouse=True)
def toy_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "load_body", lambda name: ToyBody())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_model(tiny_model(), tmp_path / "model.safetensors", licence="CC0-1.0", source="a test")


def rewritten(path: Path, tensors: dict[str, torch.Tensor] | None = None, **header: str) -> Path:
    """The same checkpoint with other tensors or header entries."""
    header = {**read_metadata(path), **header}
    save_file(load_file(path) if tensors is None else tensors, path, header)
    return path


def test_a_saved_model_comes_back(saved: Path) -> None:
    model, again = tiny_model(), load_model(saved, device="cpu")
    assert not again.training
    assert again.config == model.config
    assert again.licence == "CC0-1.0"
    for (name, before), after in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=0, msg=name)
    header = read_metadata(saved)
    assert header["family"] == "multihmr"
    assert header["body"] == "toy"
    assert json.loads(header["config"]) == json.loads(json.dumps(dataclasses.asdict(model.config)))


def test_half_is_half_the_size_and_loads_as_float32(saved: Path, tmp_path: Path) -> None:
    half = save_model(tiny_model(), tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.6 * saved.stat().st_size
    assert {p.dtype for p in load_model(half, device="cpu").parameters()} == {torch.float32}
    too_large = tiny_model()
    next(too_large.parameters()).data.fill_(1e6)
    with pytest.raises(ValueError, match="not finite with 16 bits"):
        save_model(too_large, half, half=True)
    load_model(half, device="cpu")  # the file that was there is still whole


def test_the_body_is_not_in_the_file(saved: Path) -> None:
    assert not [key for key in load_file(saved) if key.startswith("body.")]


def test_strangers_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of no family"):
        save_model(torch.nn.Linear(1, 1), tmp_path / "x.safetensors")


def test_cut_short(saved: Path) -> None:
    whole = saved.read_bytes()
    for size in (4, 100, len(whole) - 1000):
        saved.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"model\.safetensors is cut short or no safetensors"):
            load_model(saved)
    saved.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        load_model(saved)


class Payload:
    """Unpickling one of these makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model.ckpt"])
def test_pickles_are_never_read(name: str, tmp_path: Path) -> None:
    written, proof = tmp_path / name, tmp_path / "proof"
    torch.save(Payload(proof), written)
    with pytest.raises(ValueError, match="is a pickle, which can run any code"):
        load_model(written)
    written.write_bytes(pickle.dumps(Payload(proof)))
    with pytest.raises(ValueError, match="is a pickle, which can run any code"):
        load_model(written)
    assert not proof.exists()


def test_another_family(saved: Path) -> None:
    with pytest.raises(ValueError, match="saved by family 'glnet'; this version knows: multihmr"):
        load_model(rewritten(saved, family="glnet"))
    save_file({"x": torch.zeros(1)}, saved)
    with pytest.raises(ValueError, match="saved by family 'unknown'"):
        load_model(saved)


def test_a_config_that_does_not_fit(saved: Path) -> None:
    with pytest.raises(ValueError, match="config fields that MultiHMRConfig lacks: colour"):
        load_model(rewritten(saved, config='{"colour": 1}'))
    with pytest.raises(ValueError, match="no readable config"):
        load_model(rewritten(saved, config="[1, 2"))


def test_tensors_that_do_not_fit(saved: Path) -> None:
    tensors = load_file(saved)
    first, *rest = sorted(key for key in tensors if tensors[key].ndim > 1)
    with pytest.raises(
        ValueError, match=rf"lacks 1 tensors that MultiHMR\(config\) has: {first}; it was saved by"
    ):
        load_model(rewritten(saved, {k: v for k, v in tensors.items() if k != first}))
    with pytest.raises(ValueError, match=r"has 1 tensors that MultiHMR\(config\) lacks: stray"):
        load_model(rewritten(saved, {**tensors, "stray": torch.zeros(1)}))
    with pytest.raises(ValueError, match=f"has {rest[0]} of shape"):
        load_model(rewritten(saved, {**tensors, rest[0]: torch.zeros(1, 1, 1, 1, 1)}))
    with pytest.raises(ValueError, match=f"not finite in {first}"):
        load_model(rewritten(saved, {**tensors, first: tensors[first] * float("nan")}))


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no model 'multihmr-anny-l'; nearest: 'multihmr-anny-hybrid'"):
        load_model("multihmr-anny-l")
    with pytest.raises(FileNotFoundError, match=r"nobody\.safetensors does not exist"):
        load_model("nobody.safetensors")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_model(tmp_path)
    (tmp_path / hub.DEFAULT).write_text("")
    with pytest.raises(ValueError, match=f"'release:{hub.DEFAULT}' or './{hub.DEFAULT}'"):
        load_model(hub.DEFAULT)
    with pytest.raises(ValueError, match="is empty"):
        load_model(f"./{hub.DEFAULT}")


def test_hub_repositories(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, file: str, *, cache_dir: Path | None) -> str:
        asked.append((repository, file, cache_dir))
        return str(saved)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setenv("MULTIHMR_HOME", str(tmp_path))
    load_model("hf:someone/people", device="cpu")
    assert asked == [("someone/people", "model.safetensors", tmp_path / "hub")]
    with pytest.raises(ValueError, match="must be 'hf:owner/repo'"):
        load_model("hf:people")

    def unreachable(*_: object, **__: object) -> str:
        raise OSError("no net")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(ConnectionError, match="'hf:someone/people': no net"):
        load_model("hf:someone/people")


def test_devices(saved: Path) -> None:
    with pytest.raises(ValueError, match="device 'toaster' cannot be used here"):
        load_model(saved, device="toaster")
    assert load_model(saved, device=torch.device("cpu")).device.type == "cpu"


def test_bodies() -> None:
    with pytest.raises(ValueError, match="no body 'smplx'; this version has: anny"):
        LOAD_BODY("smplx")


def test_releases_are_what_they_say() -> None:
    for release in list_models():
        try:
            path = hub._release_file(release.name)
        except FileNotFoundError:
            pytest.skip("no bundled model yet")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert (release.sha256, release.size) == (digest, path.stat().st_size)
        header = read_metadata(path)
        assert (release.body, release.licence) == (header["body"], header["licence"])
        assert path.stat().st_size <= 22e6
