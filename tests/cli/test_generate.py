"""multihmr generate: which assets it uses, and counts in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multihmr.cli import main as cli
from multihmr.data.synthetic import dataset, generate
from multihmr.data.synthetic.assets import fingerprint_assets


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is rendered: one shard is said to be written."""
    monkeypatch.setattr(generate, "write_shards", lambda out, *_, **__: out.mkdir() or [out / "0-00000.tar"])
    monkeypatch.setattr(generate, "contact_sheet", lambda _: np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr("multihmr.data.webdataset.Shards", lambda _: [])


def test_the_assets_and_their_fingerprint_are_printed(quick: None, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "assets/pack").mkdir(parents=True)
    (tmp_path / "assets/pack/index.json").write_text('{"assets": []}', encoding="utf-8")
    arguments = ["--out", str(tmp_path / "out"), "--count", "1", "--assets", str(tmp_path / "assets")]
    assert cli.run(["generate", *arguments]) == 0
    said = capsys.readouterr()
    assert str(tmp_path / "assets") in said.out
    assert f"fingerprint {fingerprint_assets(tmp_path / 'assets')}" in said.out
    assert "1 picture in 1 shard in " in said.out
    assert said.err == ""


def test_rendering_without_assets_warns(
    quick: None, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "find_assets", lambda _: None)
    assert cli.run(["generate", "--out", str(tmp_path / "out"), "--count", "2"]) == 0
    said = capsys.readouterr()
    assert "multihmr: warning: no assets folder" in said.err
    assert "--assets DIR" in said.err
    assert "2 pictures in 1 shard" in said.out


def test_training_logs_the_assets_of_pictures_rendered_on_the_fly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level("INFO", logger="multihmr"):
        generate.RenderedDataset(generate.GenerationConfig(1, assets=tmp_path), count=2)
        monkeypatch.setattr(generate, "find_assets", lambda _: None)
        generate.RenderedDataset(generate.GenerationConfig(1), count=2)
    assert f"{tmp_path}, fingerprint " in caplog.messages[0]
    assert (caplog.records[1].levelname, "painted clothes" in caplog.messages[1]) == ("WARNING", True)


def test_counts_in_words() -> None:
    assert [cli.plural(count, "shard") for count in (0, 1, 2)] == ["0 shards", "1 shard", "2 shards"]
    assert [cli.people_text(count) for count in (0, 1, 2)] == ["no people", "1 person", "2 people"]


def test_what_is_left_out_is_counted_in_the_singular_too() -> None:
    told = [
        cli.counted(1, reason)
        for reason in (
            "people whose points no body shows",
            "pictures that are not there",
            "pictures of which several have that name",
            "crowds",
            "entries with broken keypoints",
        )
    ]
    assert told == [
        "1 person whose points no body shows",
        "1 picture that is not there",
        "1 picture of which several have that name",
        "1 crowd",
        "1 entry with broken keypoints",
    ]
    assert cli.counted(2, "pictures that are not there") == "2 pictures that are not there"


@pytest.mark.slow
def test_the_renderer_says_nothing_of_itself() -> None:
    """Warp notes a missing CUDA driver."""
    pytest.importorskip("warp", reason="it renders")
    code = "from multihmr.data.synthetic import renderer, textures\n"
    code += "renderer.RayTracer(textures.TextureBuffer())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, env=os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
