"""Foreign files: what is read, and what is refused in one sentence. The numbers are proved in parity/."""

import argparse
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multihmr.hub.official_converter import convert_state, read_official

TABLES = Path(__file__).parents[1] / "parity"


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """Every tensor of a SMPL-X checkpoint on ViT-S, without its memory."""
    shapes = json.loads((TABLES / "state_dict_smplx_vits_448.json").read_text(encoding="utf-8"))
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


class Runs:
    """A pickle that would leave a file behind if it were run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("key", ["model_state_dict", "state_dict_model", "state_dict", None])
def test_the_tensors_are_found_wherever_they_are(key: str | None, tmp_path: Path) -> None:
    tensors = {"some.weight": torch.zeros(2)}
    options = {"args": argparse.Namespace(img_size=[896]), "best_val": np.float64(1.5), "epoch": 3}
    content = tensors if key is None else {key: tensors, **options}
    # It gets as far as asking what the tensors are of.
    with pytest.raises(ValueError, match=r"x\.pt is no Multi-HMR checkpoint: .* but some\.weight"):
        read_official(saved(tmp_path / "x.pt", content))


def test_scalars_of_numpy_1_and_2_are_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"best_val": np.float64(1.5), "state_dict": {"a": torch.zeros(1)}})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, re.sub(rb"numpy\._?core\.multiarray", module, data))
        with pytest.raises(ValueError, match="is no Multi-HMR checkpoint"):
            read_official(path)


def test_code_is_refused_by_name_and_not_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"it asks for (posix|nt|os)\.system.*can run any code"):
        read_official(saved(tmp_path / "x.pt", {"args": Runs(tmp_path / "ran")}))
    assert not (tmp_path / "ran").exists()


def test_what_is_no_archive_of_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        read_official(path)
    whole = saved(tmp_path / "whole.pt", {"a": torch.zeros(1000)}).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut short"):
        read_official(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(ValueError, match=r"no data\.pkl"):
        read_official(path)
    with pytest.raises(ValueError, match="holds a list"):
        read_official(saved(path, [1, 2]))
    with pytest.raises(ValueError, match="holds no tensors"):
        read_official(saved(path, {"model_state_dict": {}}))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_official(tmp_path / "nowhere.pt")


def test_bombs_are_refused_by_their_table_of_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\0" * 1_000_000)
    with pytest.raises(ValueError, match="compressed"):
        read_official(path)
    monkeypatch.setattr("multihmr.hub.official_reader._MAX_PICKLE", 1 << 20)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\0" * (2 << 20))
    with pytest.raises(ValueError, match="2 MB of it are no tensors"):
        read_official(path)


@pytest.mark.slow
def test_each_tensor_is_needed_and_none_is_left_over(state: dict[str, torch.Tensor]) -> None:
    checkpoint = convert_state(dict(state), {}, "x.pt")
    assert checkpoint.config["backbone"] == "dinov2_vits14"
    assert checkpoint.config["image_size"] == 448
    some = "x_attention_head.transformer.transformer.layers.1.2.norm.bias"
    less = {key: value for key, value in state.items() if key != some}
    with pytest.raises(ValueError, match=f"x.pt lacks the tensor {some}"):
        convert_state(less, {}, "x.pt")
    with pytest.raises(ValueError, match=r"1 tensors that have no place in Multi-HMR: more\.weight"):
        convert_state({**state, "more.weight": torch.zeros(1)}, {}, "x.pt")
    with pytest.raises(ValueError, match=r"deccam\.weight of shape \(4, 1024\), expected \(3, 1024\)"):
        convert_state({**state, "x_attention_head.deccam.weight": torch.zeros(4, 1024)}, {}, "x.pt")


def test_a_body_model_that_the_trainer_wrote_along_is_never_passed_on(
    state: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    state["smpl_layer.neutral_10.bm_x.shapedirs"] = torch.zeros(3)
    state["smpl_layer.neutral_10.bm_x.leye_pose"] = torch.zeros(1, 3)
    assert not [key for key in convert_state(state, {}, "x.pt").tensors if "smpl_layer" in key]
    assert not caplog.records
    state["smpl_layer.neutral_10.bm_x.leye_pose"] += 0.1
    convert_state(state, {}, "x.pt")
    assert "leye_pose" in caplog.text


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({"person_center": "pelvis"}, "person_center='pelvis'"),
        ({"nearness": False}, "nearness=False"),
        ({"img_size": [896]}, "says that its pictures have 896 pixels, its tables are for 448"),
    ],
)
def test_options_that_change_the_arithmetic(
    args: dict[str, Any], sentence: str, state: dict[str, torch.Tensor]
) -> None:
    convert_state(dict(state), {"person_center": "head", "img_size": 448, "lr": 1}, "x.pt")
    with pytest.raises(ValueError, match=sentence):
        convert_state(dict(state), args, "x.pt")


def test_a_file_of_ours_needs_no_conversion():
    from multihmr.hub.releases import DEFAULT, RELEASES
    from multihmr.storage.paths import bundled_file

    with pytest.raises(ValueError, match=r"is a safetensors file, which needs no conversion: load_model"):
        read_official(bundled_file(RELEASES[DEFAULT].file))
