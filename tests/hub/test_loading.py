from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import pickle
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from shelf import Shelf, open_shelf
from toys import ToyBody, tiny_model

from multihmr.bodies.loading import find_smplx
from multihmr.hub import loading as hub
from multihmr.hub.checkpoint import Checkpoint, own_state, read_metadata
from multihmr.hub.releases import list_models
from multihmr.model import load_model, save_model
from multihmr.networks.backbones.timm_backbones import create_backbone
from multihmr.runtime.devices import backbone_dtype
from multihmr.storage import paths
from multihmr.storage.paths import cache_folder

LOAD_BODY = hub.load_body
NAVER = "https://download.europe.naverlabs.com"
BACKBONES = {"dinov2_vits14": "S", "dinov2_vitb14": "B", "dinov2_vitl14": "L"}
OFFICIAL = b"PK\x03\x04 and the rest of a zip"  # what the fake converter takes for an official checkpoint


@pytest.fixture(autouse=True)
def toy_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multihmr.hub.huggingface._check_reachable", lambda: None)
    monkeypatch.setattr(hub, "load_body", lambda name, **_: ToyBody())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_model(tiny_model(), tmp_path / "model.safetensors", licence="CC0-1.0", source="a test")


def rewritten(path: Path, tensors: dict[str, torch.Tensor] | None = None, **header: str) -> Path:
    """The same checkpoint with other tensors or header entries."""
    header = {**read_metadata(path), **header}
    save_file(load_file(path) if tensors is None else tensors, path, header)
    return path


@pytest.mark.slow
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


@pytest.mark.slow
def test_half_is_half_the_size_and_loads_as_float32(saved: Path, tmp_path: Path) -> None:
    half = save_model(tiny_model(), tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.6 * saved.stat().st_size
    assert {p.dtype for p in load_model(half, device="cpu").parameters()} == {torch.float32}
    too_large = tiny_model()
    next(too_large.parameters()).data.fill_(1e6)
    with pytest.raises(ValueError, match="not finite with 16 bits"):
        save_model(too_large, half, half=True)
    load_model(half, device="cpu")  # the file that was there is still whole


@pytest.mark.slow
def test_small_is_a_quarter_of_the_size_and_each_row_is_off_by_half_a_step_at_most(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("multihmr.hub.checkpoint.LEAST_PACKED", 64)
    model = tiny_model()
    whole, small = (
        save_model(model, tmp_path / f"{x}.safetensors", half=True, small=x) for x in (False, True)
    )
    assert small.stat().st_size < 0.75 * whole.stat().st_size
    assert read_metadata(small)["version"] == "2"
    there = load_model(small, device="cpu").state_dict()
    for name, value in own_state(model.network).items():
        rows = value.float().flatten(1) if value.ndim > 1 else value.float()[None]
        step = rows.abs().amax(1, keepdim=True) / 127
        off = (there[name].float().reshape(rows.shape) - rows).abs()
        assert (off <= 0.501 * step + 1e-3 * rows.abs() + 1e-7).all()


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
def test_hostile_pickles_are_never_run(name: str, tmp_path: Path) -> None:
    written, proof = tmp_path / name, tmp_path / "proof"
    for write in (
        lambda hostile: torch.save(hostile, written),
        lambda h: written.write_bytes(pickle.dumps(h)),
    ):
        write(Payload(proof))
        with pytest.raises(ValueError, match=re.escape(name)):
            load_model(written)
        with pytest.raises(ValueError, match="is a pickle"):
            read_metadata(written)
    assert not proof.exists()


def test_another_family(saved: Path) -> None:
    with pytest.raises(ValueError, match="saved by family 'romp'; this version knows: multihmr"):
        load_model(rewritten(saved, family="romp"))
    save_file({"x": torch.zeros(1)}, saved)
    with pytest.raises(ValueError, match="saved by family 'unknown'"):
        load_model(saved)


def test_a_config_that_does_not_fit(saved: Path) -> None:
    with pytest.raises(ValueError, match="config fields that MultiHMRConfig lacks: colour"):
        load_model(rewritten(saved, config='{"colour": 1}'))
    with pytest.raises(ValueError, match="no readable config"):
        load_model(rewritten(saved, config="[1, 2"))


@pytest.mark.slow
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
    (tmp_path / hub.DEFAULT).write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=f"'release:{hub.DEFAULT}' or './{hub.DEFAULT}'"):
        load_model(hub.DEFAULT)
    with pytest.raises(ValueError, match="is empty"):
        load_model(f"./{hub.DEFAULT}")


def test_hub_repositories(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, file: str, *, cache_dir: Path | None, **_: object) -> str:
        asked.append((repository, file, cache_dir))
        return str(saved)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setenv("MULTIHMR_HOME", str(tmp_path))
    load_model("hf:someone/people", device="cpu")
    cache = tmp_path / "hub"
    assert asked == [("someone/people", file, cache) for file in ("config.json", "model.safetensors")]
    with pytest.raises(ValueError, match="must be 'hf:owner/repo'"):
        load_model("hf:people")

    def unreachable(*_: object, **__: object) -> str:
        raise OSError("no net")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(ConnectionError, match="'hf:someone/people': no net"):
        load_model("hf:someone/people")


def test_devices(saved: Path) -> None:
    with pytest.raises(ValueError, match="device must be one of cpu, cuda, cuda:1 and mps, got 'toaster'"):
        load_model(saved, device="toaster")
    assert load_model(saved, device=torch.device("cpu")).device.type == "cpu"


def test_bodies() -> None:
    with pytest.raises(ValueError, match="no body 'smpl'; this version has: anny, anny-163, smplx"):
        LOAD_BODY("smpl")
    with pytest.raises(ValueError, match="fixed number of shape values"):
        LOAD_BODY("anny", shape_count=11)


BUNDLED = {"multihmr-anny-hybrid": 22e6, "glnet-anny-hybrid": 10e6}  # name -> most bytes


@pytest.mark.parametrize("name", BUNDLED)
def test_the_bundled_releases_are_what_they_say(name: str) -> None:
    release = hub.RELEASES[name]
    path = paths.bundled_file(release.file)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (release.sha256, release.size) == (digest, path.stat().st_size)
    header = read_metadata(path)
    assert (release.body, release.licence) == (header["body"], header["licence"])
    assert path.stat().st_size <= BUNDLED[name]
    assert release.sha256 in path.with_name(release.card).read_text(encoding="utf-8")


def test_the_official_releases() -> None:
    official = {release.name: release for release in list_models() if release.name not in BUNDLED}
    assert len(official) == 7
    for name, release in official.items():
        assert release.urls[0] == f"{NAVER}/ComputerVision/MultiHMR/{name}.pt"
        assert release.urls[1] == f"{NAVER}/multihmr/{name}.pt"
        assert "non-commercial" in release.licence
        assert release.licence_url.startswith("https://")
        assert release.size_label.startswith("about ")
        assert f"_{release.image_size}_{BACKBONES[release.backbone]}" in name
        assert release.body == ("anny-163" if "anny" in name else "smplx")
        for spelling in (name.upper(), name.lower().removeprefix("multihmr_")):
            assert hub.find_release(spelling) is release
    assert len({release.licence_url for release in official.values()}) == 2


@pytest.mark.parametrize("name", ["smplx_vits_672", "smplx_vitb_672", "smplx_vitl_896", "anny_vitl_672"])
def test_estimated_sizes_are_those_of_the_tensors(name: str) -> None:
    table = json.loads(
        (Path(__file__).parents[1] / "parity" / f"state_dict_{name}.json").read_text(encoding="utf-8")
    )
    kind, vit, size = name.split("_")
    short = f"{size}_{vit[-1]}" + ("_anny" if kind == "anny" else "")
    release = hub.find_release(short)
    assert release is not None
    assert release.size == 4 * sum(math.prod(shape) for shape in table.values())


def read_official(path: Path) -> Checkpoint:
    """What convert.read_official gives, of a file that holds nothing but a seed."""
    content = path.read_bytes()
    if content != OFFICIAL:
        raise ValueError(f"{path.name} is no official checkpoint")
    model = tiny_model()
    tensors = {key: value for key, value in model.state_dict().items() if not key.startswith("body.")}
    return Checkpoint(
        file=path.name,
        family="multihmr",
        config=json.loads(json.dumps(dataclasses.asdict(model.config))),
        body="toy",
        licence="NAVER",
        tensors=tensors,
    )


@pytest.fixture
def fake_convert(monkeypatch: pytest.MonkeyPatch) -> None:
    convert = SimpleNamespace(read_official=read_official)
    monkeypatch.setitem(sys.modules, "multihmr.hub.official_converter", convert)  # type: ignore[arg-type]


@pytest.fixture
def shelf(fake_convert: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """multiHMR_672_S is a tiny model with the toy body, on a local server; tmp_path/home is the cache."""
    monkeypatch.setenv("MULTIHMR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("multihmr.storage.download.PAUSE_S", 0.0)
    with open_shelf() as shelf:
        release = dataclasses.replace(
            hub.RELEASES["multiHMR_672_S"],
            body="toy",
            backbone="hybrid_lite0",
            image_size=64,
            urls=(shelf.url("readme/x.pt"), shelf.url("demo/x.pt")),
        )
        monkeypatch.setitem(hub.RELEASES, release.name, release)
        yield shelf


def cached(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "home" / "models").iterdir() if p.suffix != ".lock")


@pytest.mark.slow
def test_a_release_is_fetched_converted_and_kept(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("demo/x.pt", OFFICIAL)
    models = [
        load_model(name, device="cpu") for name in ("multihmr_672_s", "672_S", "release:multiHMR_672_S")
    ]
    assert shelf.asked == [("/readme/x.pt", ""), ("/demo/x.pt", "")]
    assert cached(tmp_path) == ["multiHMR_672_S.safetensors"]
    for model in models:
        assert model.licence == hub.RELEASES["multiHMR_672_S"].licence
        for before, after in zip(tiny_model().parameters(), model.parameters(), strict=True):
            assert torch.equal(before, after)


@pytest.mark.slow
def test_the_licence_is_said_once(shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shelf.put("readme/x.pt", OFFICIAL)
    load_model("672_S", device="cpu")
    (tmp_path / "home" / "models" / "multiHMR_672_S.safetensors").unlink()
    load_model("672_S", device="cpu")
    assert len(shelf.asked) == 2
    [record] = caplog.records
    assert (record.name, record.levelname) == ("multihmr.hub.loading", "WARNING")
    assert "multiHMR_672_S may be used for non-commercial purposes only" in record.message
    assert hub.RELEASES["multiHMR_672_S"].licence_url in record.message


def test_a_release_that_cannot_be_fetched_leaves_nothing(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("demo/x.pt", b"<html>", kind="text/html")
    with pytest.raises(ConnectionError, match=r"readme/x\.pt answers 404 .*demo/x\.pt sends a web page"):
        load_model("672_S")
    assert cached(tmp_path) == []


def test_what_is_no_checkpoint_is_removed_again(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("readme/x.pt", OFFICIAL[:-5])
    with pytest.raises(ValueError, match="is no official checkpoint"):
        load_model("672_S")
    assert cached(tmp_path) == []


def test_a_checkpoint_of_another_size_than_its_name(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = dataclasses.replace(hub.RELEASES["multiHMR_672_S"], backbone="dinov2_vits14", image_size=672)
    monkeypatch.setitem(hub.RELEASES, wrong.name, wrong)
    shelf.put("readme/x.pt", OFFICIAL)
    sentence = (
        r"multiHMR_672_S\.pt.* is not multiHMR_672_S: it holds multihmr on hybrid_lite0 at 64 pixels, "
        r"body toy; expected multihmr on dinov2_vits14 at 672 pixels, body toy\."
    )
    with pytest.raises(ValueError, match=sentence):
        load_model("672_S")
    assert cached(tmp_path) == []
    mine = tmp_path / "multihmr_672_s.PT"
    mine.write_bytes(OFFICIAL)
    with pytest.raises(ValueError, match="is not multiHMR_672_S"):
        load_model(mine)
    assert load_model(mine.rename(tmp_path / "mine.pt"), device="cpu").licence == "NAVER"


def test_a_release_put_into_the_cache_by_hand_stays(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "home" / "models").mkdir(parents=True)
    (tmp_path / "home" / "models" / "multiHMR_672_S.pt").write_bytes(OFFICIAL)
    load_model("672_S", device="cpu")
    assert cached(tmp_path) == ["multiHMR_672_S.pt", "multiHMR_672_S.safetensors"]
    assert not shelf.asked


def test_a_conversion_that_cannot_be_kept_is_no_failure(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("multihmr.hub.checkpoint.save_file", full)
    shelf.put("readme/x.pt", OFFICIAL)
    load_model("672_S", device="cpu")
    assert cached(tmp_path) == ["multiHMR_672_S.pt"]
    assert "cannot be kept: " in caplog.records[-1].message


@pytest.mark.slow
def test_two_threads_fetch_and_convert_once(shelf: Shelf) -> None:
    shelf.put("readme/x.pt", OFFICIAL, pause_s=0.1)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: load_model("672_S", device="cpu"), range(2)))
    assert len(shelf.asked) == 1


@pytest.mark.slow
def test_a_damaged_cache_says_what_to_delete(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("readme/x.pt", OFFICIAL)
    load_model("672_S", device="cpu")
    stored = tmp_path / "home" / "models" / "multiHMR_672_S.safetensors"
    rewritten(stored, {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match=rf"{stored} \(delete it to fetch it anew\) lacks \d+ tensors"):
        load_model("672_S")


def test_a_missing_smplx_is_said_before_any_download(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    release = dataclasses.replace(hub.RELEASES["multiHMR_672_S"], body="smplx")
    monkeypatch.setitem(hub.RELEASES, release.name, release)
    with pytest.raises(FileNotFoundError) as caught:
        load_model("672_S")
    places = ("home/smplx", "weights/smplx")
    said = str(caught.value)
    assert "register at https://smpl-x.is.tue.mpg.de, download 'SMPL-X v1.1 (NPZ+PKL)'" in said
    assert all(str(tmp_path / place / "SMPLX_NEUTRAL.npz") in said for place in places)
    with pytest.raises(FileNotFoundError, match=rf"Searched: {tmp_path}/body/SMPLX_NEUTRAL\.npz"):
        load_model("672_S", smplx=tmp_path / "body")

    def wrong(name: str, **_: object) -> None:
        raise ValueError(f"a wrong {name} file")

    (tmp_path / "body.npz").touch()
    monkeypatch.setattr(hub, "load_body", wrong)
    with pytest.raises(ValueError, match="a wrong smplx file"):
        load_model("672_S", smplx=tmp_path / "body.npz")
    assert not shelf.asked


def test_places_of_smplx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MULTIHMR_HOME", str(tmp_path / "home"))
    name = "SMPLX_NEUTRAL.npz"
    for folder in ("weights/smplx", "home/smplx", "given", "above/smplx"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).touch()
    assert find_smplx() == tmp_path / "home" / "smplx" / name
    (tmp_path / "home" / "smplx" / name).unlink()
    assert find_smplx().resolve() == tmp_path / "weights" / "smplx" / name
    assert find_smplx("given") == find_smplx(Path("given", name)) == Path("given", name)
    assert find_smplx("above") == Path("above", "smplx", name)
    with pytest.raises(FileNotFoundError, match=r"^nothing\.npz does not exist\. SMPL-X is licensed"):
        find_smplx("nothing.npz")


@pytest.mark.slow
def test_a_header_whose_length_looks_like_a_pickle_is_read(saved: Path) -> None:
    model = tiny_model()
    first = save_model(model, saved, source="x").read_bytes()[0]
    source = "x" * (1 + (0x80 - first) % 256)  # old pickles start with 0x80
    path = save_model(model, saved, source=source)
    assert path.read_bytes()[:1] == b"\x80"
    assert read_metadata(path)["source"] == source


@pytest.mark.slow
def test_the_body_gets_its_file_and_its_number_of_betas(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SMPLX(ToyBody):
        name = "smplx"

        def __init__(self, path: Path, *, shape_count: int) -> None:
            super().__init__()
            asked.append((path, shape_count))

    asked: list[tuple[Path, int]] = []
    monkeypatch.setitem(sys.modules, "multihmr.bodies.smplx", SimpleNamespace(SMPLX=SMPLX))  # type: ignore[arg-type]
    monkeypatch.setattr(hub, "load_body", LOAD_BODY)
    file = tmp_path / "any.npz"
    file.touch()
    model = tiny_model()
    model.network.body = SMPLX(file, shape_count=2)
    header = read_metadata(save_model(model, saved))
    assert (header["body"], header["body_options"]) == ("smplx", '{"shape_count": 2}')
    load_model(saved, device="cpu", smplx=file)
    LOAD_BODY("smplx", smplx=file)
    assert asked == [(file, 2), (file, 2), (file, 10)]


@pytest.mark.parametrize("options", ['{"gender": 1}', '{"shape_count": "10"}', "[]", "{"])
def test_body_options_that_do_not_fit(options: str, saved: Path) -> None:
    with pytest.raises(ValueError, match=r"body options|no readable body_options"):
        load_model(rewritten(saved, body_options=options))


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MULTIHMR_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "multihmr"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the XDG specification
    assert cache_folder() == Path.home() / ".cache" / "multihmr"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "multihmr"
    monkeypatch.setenv("MULTIHMR_HOME", "~/people")
    assert cache_folder() == Path.home() / "people"


@pytest.mark.slow
def test_the_precision_of_the_backbone(saved: Path) -> None:
    def precision(dtype: Any) -> torch.dtype | None:
        return load_model(saved, device="cpu", dtype=dtype).backbone.half_dtype

    assert [precision(dtype) for dtype in ("auto", torch.float32, "float32", "torch.float32")] == [None] * 4
    assert [precision(dtype) for dtype in ("bfloat16", torch.bfloat16)] == [torch.bfloat16] * 2
    assert [precision(dtype) for dtype in ("float16", torch.float16)] == [torch.float16] * 2
    for device, expected in (("cuda", torch.float16), ("mps", None), ("cpu", None)):
        assert backbone_dtype("auto", torch.device(device)) == expected
    for dtype in (torch.float64, torch.int8, 16, "bf16", True):
        with pytest.raises(
            ValueError, match="dtype must be 'auto', 'fast', float32, float16 or bfloat16, got"
        ):
            load_model(saved, dtype=dtype)


@pytest.mark.slow
def test_half_is_still_read_with_a_warning(saved: Path) -> None:
    def precision(half: Any) -> torch.dtype | None:
        with pytest.warns(DeprecationWarning, match="half is now dtype") as caught:
            model = load_model(saved, device="cpu", half=half)
        assert caught[0].filename == __file__
        return model.backbone.half_dtype

    assert [precision(half) for half in (False, torch.float32)] == [None] * 2
    assert [precision(half) for half in (True, torch.bfloat16)] == [torch.bfloat16] * 2
    assert precision(torch.float16) == torch.float16


def test_a_loaded_model_changes_its_precision(saved: Path) -> None:
    model = load_model(saved, device="cpu")
    picture = np.zeros((64, 64, 3), np.uint8)
    for change, expected in (
        (model.half, torch.bfloat16),  # on a CPU
        (lambda: model.to(torch.float16), torch.float16),
        (model.bfloat16, torch.bfloat16),
        (model.float, None),
    ):
        assert change() is model
        assert model.backbone.half_dtype == expected
        humans = model.predict(picture, threshold=0.0, max_people=1)
        assert humans.vertices.dtype == np.float32
    with pytest.raises(ValueError, match="dtype must be 'auto', 'fast', float32, float16 or bfloat16, got"):
        model.to(torch.float64)


def test_the_hub_repository_of_a_release_may_hold_the_pt_only(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    official = tmp_path / "multiHMR_672_S.pt"
    official.write_bytes(OFFICIAL)
    asked = []

    def download(repository: str, file: str, **_: object) -> str:
        asked.append(file)
        if file != official.name:
            raise EntryNotFoundError(f"no {file}")
        return str(official)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load_model("hf:naver/multiHMR_672_S", device="cpu").licence == "NAVER"
    assert asked == ["model.safetensors", "multiHMR_672_S.pt"]
    assert "non-commercial" in caplog.text
    with pytest.raises(ConnectionError, match=r"cannot get model\.safetensors of 'hf:some/body'"):
        load_model("hf:some/body")


def test_a_backbone_of_timm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # type: ignore[arg-type]
    asked: tuple[tuple[str, int, Any], ...] = (
        ("hrnet_w32", 64, False),
        ("dinov2_vits14", 56, True),
        ("dinov2_vits14", 56, "imagenet"),
    )
    for name, size, pretrained in asked:
        with pytest.raises(ImportError, match=rf"{name}.* needs timm: pip install 'multihmr\[timm\]'"):
            create_backbone(name, image_size=size, pretrained=pretrained)
    create_backbone("dinov2_vits14", image_size=56)
    create_backbone("hybrid_lite0", image_size=64)  # of the bundled models


def test_a_model_is_printed_in_ten_lines(saved: Path) -> None:
    lines = str(load_model(saved, device="cpu")).splitlines()
    assert len(lines) == 10
    assert lines[0] == "Model("
    text = "\n".join(lines)
    for expected in ("multihmr, ", "hybrid_lite0, float32, on cpu", "64 pixels", "toy, 3 joints", "CC0-1.0"):
        assert expected in text


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "an empty name is no model"),
        (3, "the name of a release or a path, got int"),
        (torch.nn.Linear(2, 2), "the name of a release or a path, got Linear"),
    ],
)
def test_what_is_no_name_of_a_model(name: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_model(name)
