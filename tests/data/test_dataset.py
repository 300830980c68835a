from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multihmr.data.dataset import DatasetInfo, PoseDataset
from multihmr.data.index import Record

GOOD = {"pose": [[[0.1, 0, 0], [0, 0.2, 0]]], "translation": [[0, 0, 3.0]], "gender": [2]}


class Toy(PoseDataset):
    """Pictures of 2 rotations a person, all in toy-SPLIT.json."""

    about = DatasetInfo(
        name="toy",
        title="Toys",
        licence="free",
        register="https://toys.example",
        files=("toys.zip",),
        tree="toys/\n  toy-train.json",
        size="1 kB",
        citation="Child, 2020",
    )
    splits = ("train", "test")
    needed = {"toy-{split}.json": "unpack toys.zip"}  # noqa: RUF012
    people_fields = {"pose": ("f4", 2, 3), "translation": ("f4", 3), "gender": ("u1",)}  # noqa: RUF012

    def annotation_files(self) -> Sequence[Path]:
        return [self.root / f"toy-{self.split}.json"]

    def scan(self, path: Path) -> Iterator[Record]:
        for name, people in json.loads(path.read_text(encoding="utf-8")).items():
            arrays = {
                k: np.array(v) if v else np.zeros((0, *self.people_fields[k][1:])) for k, v in people.items()
            }
            yield Record(name, f"{name}.png", arrays, {"K": np.eye(3)})


@pytest.fixture
def toys(tmp_path):
    """toys({name: people}) writes the data set and a picture for each name; its root."""

    def write(content: dict) -> Path:
        (tmp_path / "toy-train.json").write_text(json.dumps(content), encoding="utf-8")
        for shade, name in enumerate(content):
            Image.new("RGB", (8, 6), (shade, 0, 0)).save(tmp_path / f"{name}.png")
        return tmp_path

    return write


def test_samples_hold_what_was_annotated(toys):
    reader = Toy(toys({"a": GOOD, "b": {key: value * 2 for key, value in GOOD.items()}}))
    assert [len(sample) for sample in reader] == [1, 2]
    sample = reader[-1]
    assert (sample.name, sample.body, sample.anchor, sample.image[0, 0, 0]) == ("b", "smplx", "transl", 1)
    assert sample.gender.tolist() == ["male", "male"]
    assert sample.pose[0, 0, 2, 1] == pytest.approx(np.sin(0.1))
    assert sample.image.shape == (6, 8, 3)


def test_what_is_missing_is_said_with_what_to_do(tmp_path):
    assert "register at https://toys.example" in Toy.missing(tmp_path / "nowhere")[0]
    with pytest.raises(FileNotFoundError, match=r"toy-test.json is not there: unpack toys.zip"):
        Toy(tmp_path, "test")
    with pytest.raises(ValueError, match="toy has the splits train, test, got 'val'"):
        Toy(tmp_path, "val")


def test_nothing_is_left_out_silently(toys, caplog):
    behind = GOOD | {"translation": [[0, 0, -1.0]]}
    both = {
        "pose": [*GOOD["pose"], [[np.nan] * 3] * 2],
        "translation": [[0, 0, 3], [0, 0, 3]],
        "gender": [1, 2],
    }
    root = toys({"gone": GOOD, "behind": behind, "both": both})
    (root / "gone.png").unlink()
    for _ in range(2):  # the second time from the index
        caplog.clear()
        with caplog.at_level(logging.WARNING, "multihmr"):
            reader = Toy(root)
        assert [sample.gender.tolist() for sample in reader] == [["female"]]
        assert sorted(reader.skipped.values()) == [1, 1, 1, 1]
        assert "1 left out: people behind the camera" in caplog.text
        assert "1 left out: people with NaN or infinity in their pose" in caplog.text


def test_a_picture_with_nobody_is_a_sample(toys):
    reader = Toy(toys({"a": GOOD, "nobody": {key: [] for key in GOOD}, "c": GOOD}))
    assert [len(sample) for sample in reader] == [1, 0, 1]
    assert reader[1].pose.shape == (0, 2, 3, 3)
    assert reader.records.people == 2


def test_other_shapes_are_refused_by_name(toys):
    with pytest.raises(ValueError, match=r"toy-train.json.*translation of sample 'a' must be \(1, 3\)"):
        Toy(toys({"a": GOOD | {"translation": [[0, 3.0]]}}))
    with pytest.raises(ValueError, match=r"toy-train.json.*gender of sample 'a' is missing"):
        Toy(toys({"a": {key: GOOD[key] for key in ("pose", "translation")}}))


def test_a_picture_that_goes_later_is_named(toys):
    reader = Toy(toys({"a": GOOD, "b": GOOD}))
    Image.effect_noise((64, 64), 50).save(reader.root / "a.png")
    (reader.root / "a.png").write_bytes((reader.root / "a.png").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"sample 'a' of toy.*a.png is cut short"):
        reader[0]
    (reader.root / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"sample 'b' of toy.*b.png does not exist"):
        reader[1]
    with pytest.raises(IndexError):
        reader[2]


def test_annotations_are_scanned_once_until_they_change(toys, monkeypatch):
    scanned = []
    monkeypatch.setattr(
        Toy, "scan", lambda self, path, scan=Toy.scan: (scanned.append(path), scan(self, path))[1]
    )
    root = toys({"a": GOOD})
    assert [len(Toy(root)) for _ in range(3)] == [1, 1, 1]
    assert len(scanned) == 1
    toys({"a": GOOD, "b": GOOD})
    assert [len(Toy(root)) for _ in range(2)] == [2, 2]
    assert len(scanned) == 2


def test_other_files_that_change_are_noticed(toys, monkeypatch):
    root = toys({"a": GOOD})
    (root / "hands.npz").write_bytes(b"flat")
    monkeypatch.setattr(Toy, "also_read", lambda self: [self.root / "hands.npz"])
    before = Toy(root).records.facts["belongs_to"]
    (root / "hands.npz").write_bytes(b"bent a little")
    assert Toy(root).records.facts["belongs_to"] != before


def test_damaged_index_is_made_again(toys, tmp_path):
    reader = Toy(toys({"a": GOOD}), cache=tmp_path / "cache")
    content = reader.records.path.read_bytes()
    assert reader.records.path.parent == tmp_path / "cache"
    reader.records.path.write_bytes(content[:-10])
    assert Toy(reader.root, cache=tmp_path / "cache")[0].name == "a"
    assert reader.records.path.read_bytes() == content


def test_workers_get_the_path_of_the_index(toys):
    reader = Toy(toys({f"p{i}": GOOD for i in range(200)}))
    sent = pickle.dumps(reader.records)
    assert len(sent) < 500
    assert pickle.loads(sent)[7].name == "p7"
