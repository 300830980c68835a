from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fitting.people import SIZE, K, people
from PIL import Image

from multihmr.bodies.anny import Anny
from multihmr.cli import main as cli
from multihmr.data.webdataset import Shards
from multihmr.io.save import load


@pytest.mark.slow
def test_keypoints_become_files_and_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = people(Anny().eval(), 2, seed=3)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", SIZE[::-1], "gray").save(pictures / f"{name}.jpg")
    images = [{"id": i, "file_name": f"{name}.jpg"} for i, name in enumerate(("a", "b", "gone"))]
    entries = [
        {"image_id": i, "keypoints": np.c_[xy - 0.5, np.full(17, 2)].ravel().tolist(), "iscrowd": 0}
        for i, xy in ((0, truth.pixels()[0]), (0, truth.pixels()[1]), (2, truth.pixels()[0]))
    ]
    # points that no body shows: people are left out whose error is too large
    entries.append(
        {**entries[0], "image_id": 1, "keypoints": np.random.default_rng(0).uniform(1, 700, 51).tolist()}
    )
    file = tmp_path / "points.json"
    file.write_text(json.dumps({"images": images, "annotations": entries}), encoding="utf-8")
    camera = ",".join(map(str, (K[0, 0], K[1, 1], K[0, 2], K[1, 2])))
    out = tmp_path / "out"
    code = cli.run(
        ["fit", str(file), str(pictures), "--out", str(out), "--K", camera, "--format", "npz,json,shards"]
    )
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "2 people in 1 picture" in said.out
    assert "left out: 1 picture that is not there" in said.err
    assert "left out: 1 person whose points no body shows" in said.err
    humans = load(out / "a.npz")
    assert len(humans) == 2
    error = np.linalg.norm(humans.keypoints("coco17").xy - truth.pixels(), axis=-1)
    assert error.mean() < 6
    assert json.loads((out / "a.json").read_text(encoding="utf-8"))["camera"]["source"] == "given"
    assert not (out / "b.npz").exists()
    (sample,) = Shards(out / "shards")
    assert np.isnan(sample.pose[:, humans.topology.pose_names.index("finger2-1.L")]).all()
    arm = humans.topology.pose_names.index("upperarm01.L")
    np.testing.assert_allclose(sample.pose[:, arm], humans.pose[:, arm], atol=1e-6)
    assert np.isnan(sample.expression).all()


def test_pictures_of_one_name_are_told_by_their_folders(tmp_path: Path) -> None:
    from collections import Counter

    from multihmr.cli.fit import _matched
    from multihmr.fitting.keypoint_files import PictureKeypoints

    images = [tmp_path / name for name in ("train/a.jpg", "val/a.jpg", "b.jpg", "b.png", "cafe\u0301.jpg")]
    names = ["train/a.jpg", "val\\a.jpg", "a.jpg", "b.png", "b", "caf\u00e9.jpg", "c.jpg"]
    entries = [PictureKeypoints(name, (), np.zeros((0, 0, 2)), np.zeros((0, 0))) for name in names]
    skipped: Counter[str] = Counter()
    found = {entry.picture: path for path, entry in _matched(entries, images, skipped)}
    expected = {"train/a.jpg": 0, "val\\a.jpg": 1, "b.png": 3, "caf\u00e9.jpg": 4}
    assert found == {name: images[i] for name, i in expected.items()}
    assert skipped == {
        "pictures of which several have that name": 2,
        "pictures that are not there": 1,
    }


def test_nothing_to_fit_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "points.json"
    file.write_text(json.dumps({"images": [], "annotations": []}), encoding="utf-8")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg")
    assert cli.run(["fit", str(file), str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out")]) == 1
    assert "nothing was fitted" in capsys.readouterr().err
    assert cli.run(["fit", str(file), str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert "none: does not exist" in capsys.readouterr().err
    command = ["fit", str(file), str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out"), "--height", "175"]
    assert cli.run(command) == 1
    assert "heights are in metres, from 0.3 to 2.8, got 175" in capsys.readouterr().err
