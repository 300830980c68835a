"""multihmr predict: which images are read, what is done already, what the results tell of themselves."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toys import ToyBody, random_humans

from multihmr.cli.main import run
from multihmr.cli.predict import FORMATS
from multihmr.humans import Humans
from multihmr.io.metadata import provenance, read_metadata, with_metadata
from multihmr.preprocessing.image import LoadedImage, load_image
from multihmr.storage.paths import portable_name

Command = Callable[..., tuple[int, "Stub"]]


class Stub:
    """A model that predicts `people` in every image and keeps the sizes that it was given."""

    def __init__(self, weights: int = 0, people: int = 2) -> None:
        self.config, self.threshold = SimpleNamespace(weights=weights), 0.3
        self.people, self.sizes, self.body = people, [], ToyBody()

    def predict(self, image: LoadedImage, K: object = None, **_: Any) -> Humans:
        height, width = load_image(image).pixels.shape[:2]
        self.sizes.append((height, width))
        humans = random_humans(ToyBody(), 2)[: self.people]
        return dataclasses.replace(humans, image_size=(height, width))


def write(*paths: Path, size: tuple[int, int] = (40, 30)) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)


@pytest.fixture
def command(tmp_path, monkeypatch) -> Command:
    """command(*words, weights=..., people=...): the exit code, and the model."""

    def call(*words: Any, weights: int = 0, people: int = 2, form: str = "json") -> tuple[int, Stub]:
        model = Stub(weights, people)
        monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: model)
        return run(["predict", *map(str, words), "--out", str(tmp_path / "out"), "--format", form]), model

    return call


def rows(tmp_path: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (tmp_path / "out" / "index.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def files(tmp_path: Path) -> list[str]:
    found = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    return sorted(path.relative_to(tmp_path / "out").as_posix() for path in found)


def test_the_index_and_every_result_tell_which_image_they_are_of(command: Command, tmp_path):
    first, second = tmp_path / "a" / "bus.jpg", tmp_path / "b" / "bus.png"
    write(first, second)
    assert command(first, second, "--fov", "50", form="json,npz,obj,ply")[0] == 0
    inputs = {row["input"]: row["outputs"][0] for row in rows(tmp_path)}
    assert inputs == {str(first): "bus.json", str(second): "bus_2.json"}
    for name, source in (("bus", first), ("bus_2", second)):
        for suffix in (".json", ".npz"):
            path = tmp_path / "out" / f"{name}{suffix}"
            metadata = read_metadata(path.read_bytes(), path.name)
            assert metadata["source"] == str(source)
            assert (metadata["model"], metadata["threshold"]) == ("multihmr-anny-hybrid", 0.3)
            assert metadata["options"]["fov"] == 50
            assert len(metadata["model_fingerprint"]) == 16
            assert metadata["multihmr_version"]
        for suffix in (".obj", ".ply"):
            assert str(source).encode() in (tmp_path / "out" / f"{name}{suffix}").read_bytes()


@pytest.mark.parametrize("by", ["glob", "shell"])
def test_results_beside_the_pictures_are_no_pictures_of_a_glob(command: Command, tmp_path, capsys, by):
    out = tmp_path / "out"
    write(out / "a.png", out / "b.png")

    def given() -> list[Any]:
        return [out / "*.png"] if by == "glob" else sorted(out.glob("*.png"))

    assert command(*given(), form="overlay-png")[0] == 0
    assert [row["input"] for row in rows(tmp_path)] == [str(out / "a.png"), str(out / "b.png")]
    assert command(*given(), form="overlay-png")[0] == 0
    assert len(rows(tmp_path)) == 2
    assert files(tmp_path) == ["a.png", "a_overlay.png", "b.png", "b_overlay.png", "index.jsonl"]
    assert "passed over: 2 overlays" in capsys.readouterr().out
    assert command(out / "a_overlay.png", form="json")[0] == 0  # meant
    assert len(rows(tmp_path)) == 3


def test_metadata_leaves_the_rest_of_a_file_as_it_was(tmp_path):
    humans = random_humans(ToyBody(), 2)
    metadata = provenance("é.jpg", "m", "0" * 16, {"K": None})
    for name in ("p.json", "p.npz", "p.glb"):
        humans.save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        assert read_metadata(content, name) is None
        changed = with_metadata(content, name, metadata)
        assert read_metadata(changed, name) == metadata
        if name.endswith("json"):
            stored = json.loads(changed)
            del stored["multihmr"]
            assert stored == json.loads(content)
        if name.endswith("npz"):
            with np.load(io.BytesIO(changed)) as new, np.load(io.BytesIO(content)) as old:
                assert set(new.files) - set(old.files) == {"multihmr"}
                np.testing.assert_array_equal(new["pose"], old["pose"])
        if name.endswith("glb"):
            assert len(changed) == int.from_bytes(changed[8:12], "little")
            assert changed.endswith(content[-300:])


def test_folders_are_read_with_their_subfolders(command: Command, tmp_path, capsys):
    write(
        tmp_path / "in" / "a.jpg",
        tmp_path / "in" / "deep" / "er" / "a.jpg",
        tmp_path / "in" / ".git" / "b.jpg",
    )
    (tmp_path / "in" / "walk.mp4").write_bytes(b"film")
    (tmp_path / "in" / "notes.txt").write_text("x", encoding="utf-8")
    (tmp_path / "in" / "linked").symlink_to(tmp_path)  # in a circle
    assert command(tmp_path / "in")[0] == 0
    assert files(tmp_path) == ["a.json", "deep/er/a.json", "index.jsonl"]
    said = capsys.readouterr().out
    assert "passed over: 1 linked folder, 1 other file, 1 video; multihmr video reads videos" in said
    assert len(command(tmp_path / "in", "--no-recursive", "--overwrite")[1].sizes) == 1


def test_its_own_overlays_are_no_inputs(command: Command, tmp_path, capsys):
    write(tmp_path / "out" / "a.png", tmp_path / "out" / "sub" / "b.png")
    for expected in (2, 0):
        code, model = command(tmp_path / "out", form="overlay,json")
        assert (code, len(model.sizes)) == (0, expected)
    assert "passed over: 2 overlays, 3 results" in capsys.readouterr().out  # of which one is the index
    (tmp_path / "out" / "index.jsonl").unlink()  # without the index, too
    assert len(command(tmp_path / "out", form="overlay,json")[1].sizes) == 2


def test_what_is_done_with_the_same_model_and_options_is_skipped(command: Command, tmp_path, capsys):
    write(tmp_path / "in" / "a.jpg", tmp_path / "in" / "b.jpg")

    def predicted(*words: Any, **options: Any) -> int:
        return len(command(tmp_path / "in", *words, **options)[1].sizes)

    assert predicted() == 2
    capsys.readouterr()
    assert predicted() == 0
    assert capsys.readouterr().out.startswith("2 done before (--overwrite predicts them anew); files in ")
    assert predicted("--overwrite") == 2
    assert predicted(form="npz") == 2  # a format that is not there
    assert predicted(form="json,npz") == 0  # both are
    assert predicted("--threshold", "0.2") == 2
    assert predicted(weights=1) == 2
    write(tmp_path / "in" / "a.jpg", size=(50, 30))  # another picture of that name
    assert predicted(weights=1) == 1
    (tmp_path / "out" / "b.json").unlink()
    assert predicted(weights=1) == 1
    write(tmp_path / "in" / "aa.jpg")  # names of the others stay
    assert predicted(weights=1) == 1


def test_options_are_checked_once_before_anything_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: pytest.fail("was loaded"))
    write(tmp_path / "a.jpg", tmp_path / "b.jpg")
    out = tmp_path / "out"
    assert run(["predict", str(tmp_path), "--out", str(out), "--fov", "300"]) == 1
    assert capsys.readouterr().err.count("fov is the field of view") == 1
    assert not out.exists()


def test_a_video_names_the_command_for_it(command: Command, tmp_path, capsys):
    for name, quoted in (("walk.mp4", "{}"), ("a walk.mp4", "'{}'")):
        (tmp_path / name).write_bytes(b"film")
        assert command(tmp_path / name)[0] == 1
        assert f"multihmr video {quoted.format(tmp_path / name)} --out DIR" in capsys.readouterr().err


def test_nobody_names_what_else_can_be_tried(command: Command, tmp_path, capsys):
    write(tmp_path / "a.jpg")
    assert command(tmp_path / "a.jpg", people=0)[0] == 0
    output = capsys.readouterr().out
    assert "no people; try --tiles 2" in output
    assert "--threshold" in output


def test_the_summary_counts(command: Command, tmp_path, capsys):
    write(tmp_path / "a.jpg", tmp_path / "b.jpg")
    command(tmp_path / "a.jpg", tmp_path / "b.jpg", people=1)
    assert "2 pictures with 2 people" in capsys.readouterr().out
    command(tmp_path / "a.jpg", tmp_path / "b.jpg", "--overwrite", people=0)
    out = capsys.readouterr().out
    assert "2 pictures with no people, " in out
    assert "of them" not in out
    command(tmp_path / "a.jpg", tmp_path / "b.jpg", "--overwrite", "--quiet")
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_reader_that_ends_does_not_fail_pictures(tmp_path):
    """As in `multihmr predict in --out out | head -1`."""
    write(*(tmp_path / "in" / f"{i}.jpg" for i in range(4)))
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import multihmr.model
from multihmr.cli.main import run
import importlib.util
spec = importlib.util.spec_from_file_location("stub", {__file__!r})
stub = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stub)
multihmr.model.load_model = lambda *_, **__: stub.Stub()
sys.exit(run(["predict", {str(tmp_path / "in")!r}, "--out", {str(tmp_path / "out")!r}, "--format", "json"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(str(tmp_path).encode())
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        errors = process.stderr.read().decode()
    assert process.wait() == 0, errors
    assert "roken pipe" not in errors
    assert len(files(tmp_path)) == 5


def test_every_format_is_one_that_save_knows(tmp_path, monkeypatch):
    from multihmr.io import save as io_save

    known = {".coco.json", ".bvh", ".fbx", ".rrd", *io_save.FORMATS, "_overlay.jpg", "_overlay.png"}
    assert set(FORMATS.values()) <= known


def test_a_bvh_for_each_person(command: Command, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Humans, "save", lambda self, path: Path(path).write_text(str(len(self)), encoding="utf-8")
    )
    write(tmp_path / "a.jpg")
    assert command(tmp_path / "a.jpg", form="bvh")[0] == 0
    assert files(tmp_path) == ["a_001.bvh", "a_002.bvh", "index.jsonl"]
    assert (tmp_path / "out" / "a_002.bvh").read_text(encoding="utf-8") == "1"


def test_drawing_flags_change_the_overlay_and_are_options_of_the_result(
    command: Command, tmp_path, monkeypatch
):
    drawn = []

    def draw(self: Humans, image: Any = None, **options: Any) -> np.ndarray:
        drawn.append(options)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(Humans, "draw", draw)
    write(tmp_path / "a.png")
    flags = ["--opacity", "0.3", "--boxes", "--ids", "--scores", "--wireframe", "--keypoints", "top"]
    assert command(tmp_path / "a.png", form="overlay")[0] == 0
    assert command(tmp_path / "a.png", *flags, form="overlay")[0] == 0  # not "done before"
    named = {
        "opacity": 0.3,
        "boxes": True,
        "ids": True,
        "scores": True,
        "wireframe": True,
        "keypoints": "top",
    }
    assert [{k: v for k, v in options.items() if k != "ground"} for options in drawn] == [{}, named]
    assert rows(tmp_path)[-1]["options"]["draw"] == named
    assert command(tmp_path / "a.png", "--opacity", "3")[0] == 1


def test_distortion_goes_to_predict_with_its_camera(command: Command, tmp_path, monkeypatch, capsys):
    given = []
    predict = Stub.predict

    def keep(self: Stub, image: LoadedImage, K: object = None, **options: Any) -> Humans:
        given.append((K, options["distortion"]))
        return predict(self, image, K, **options)

    monkeypatch.setattr(Stub, "predict", keep)
    write(tmp_path / "a.png")
    words = [tmp_path / "a.png", "--distortion=-0.2,0.1,0,0"]
    assert command(*words, "--K", "100,100,20,15")[0] == 0
    assert given == [([[100, 0, 20], [0, 100, 15], [0, 0, 1]], [-0.2, 0.1, 0, 0])]
    assert command(*words)[0] == 1
    assert "--distortion needs --K" in capsys.readouterr().err
    assert command(*words[:1], "--K", "100,100,20,15", "--distortion", "0.1,0.2")[0] == 1
    assert "distortion must be finite numbers" in capsys.readouterr().err


def test_tiles_may_be_auto(command: Command, tmp_path, monkeypatch, capsys):
    given = []
    predict = Stub.predict

    def keep(self: Stub, image: LoadedImage, K: object = None, **options: Any) -> Humans:
        given.append(options["tiles"])
        return predict(self, image, K, **options)

    monkeypatch.setattr(Stub, "predict", keep)
    write(tmp_path / "a.png")
    assert command(tmp_path / "a.png", "--tiles", "auto")[0] == 0
    assert command(tmp_path / "a.png", "--tiles", "2")[0] == 0
    assert given == ["auto", 2]
    with pytest.raises(SystemExit):
        command(tmp_path / "a.png", "--tiles", "many")
    assert "got 'many', expected a whole number or auto" in capsys.readouterr().err


def test_an_empty_name_is_not_the_current_folder(command, tmp_path, monkeypatch, capsys):
    write(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    code, model = command("")
    assert (code, model.sizes) == (1, [])
    assert "an empty name is no image; it may be an empty shell variable" in capsys.readouterr().err


def test_names_that_shells_and_systems_treat_in_their_own_way(command, tmp_path, capsys):
    """Upper-case suffixes, spaces, quotes, signs of globs, line breaks; links back and to nowhere."""
    names = ["a b.JPG", 'it\'s "q".Png', "[br].jpeg", "star*.jpg", "new\nline.png", "\N{GRINNING FACE}.TIFF"]
    folder = tmp_path / "in"
    for name in names:
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(folder / name, "PNG")
    (folder / "back").symlink_to(folder)
    (folder / "nowhere.jpg").symlink_to(tmp_path / "none")
    code, model = command(folder)
    assert (code, len(model.sizes)) == (0, len(names))
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {portable_name(Path(name).stem) + ".json" for name in names} <= written
    assert "1 broken link" in capsys.readouterr().out
    code, model = command(*[folder / name for name in names])
    assert (code, model.sizes) == (0, [])  # done before


@pytest.mark.parametrize(
    ("out", "sentence"),
    [("file", "file is a file, but a folder is needed there"), ("file/below", "lies below a file")],
)
def test_an_output_that_is_no_folder(tmp_path, monkeypatch, capsys, out, sentence):
    write(tmp_path / "a.png")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: Stub())
    assert run(["predict", str(tmp_path / "a.png"), "--out", str(tmp_path / out)]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert "Errno" not in error


def test_an_output_that_must_not_be_written(tmp_path, monkeypatch, capsys):
    """Root may write everywhere, so the system's refusal is played."""
    write(tmp_path / "a.png")
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: Stub())

    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert run(["predict", str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 1
    assert "no permission to read or write" in capsys.readouterr().err


def test_a_full_disk_ends_the_run_in_one_sentence(command: Command, tmp_path, monkeypatch, capsys):
    def full(self: Humans, path: Path, **_: Any) -> None:
        if "b.json" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        Path(path).write_text("{}", encoding="utf-8")

    write(*(tmp_path / "in" / f"{name}.jpg" for name in "abc"))
    with monkeypatch.context() as patch:
        patch.setattr(Humans, "save", full)
        code, model = command(tmp_path / "in")
    assert (code, len(model.sizes)) == (1, 2)
    said = capsys.readouterr().err.splitlines()
    out = tmp_path / "out"
    assert said[-1] == (
        f"multihmr: no space left on device in {out} (1 done; the same command goes on with the rest)"
    )
    assert command(tmp_path / "in")[0] == 0  # the rest


def test_known_heights_name_nobody_twice():
    from multihmr.cli.arguments import known_heights

    assert known_heights("1=1.8,3=1.65") == {1: 1.8, 3: 1.65}
    with pytest.raises(argparse.ArgumentTypeError, match="names a person twice"):
        known_heights("1=1.8,1=1.7")


def test_results_have_names_that_every_system_can_have(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    long, line = "x" * 240, "two\nlines"
    write(
        *(folder / f"{name}.png" for name in ("con", "12:30", line, long, "50%d", "end.")),
        folder / "Nul.d" / "a b.png",
    )
    assert command(folder)[0] == 0
    expected = ["12_30", "50%d", "Nul_.d/a b", "con_", "end", "two_lines", "x" * 150]
    assert files(tmp_path) == sorted([*(f"{name}.json" for name in expected), "index.jsonl"])


def test_names_that_some_systems_take_for_one_are_numbered(command: Command, tmp_path: Path) -> None:
    one, other = "caf\u00e9", "cafe\u0301"  # composed and decomposed
    write(tmp_path / "in" / f"{one}.png", tmp_path / "in" / f"{other}.png")
    assert command(tmp_path / "in")[0] == 0
    assert sum(name.endswith("_2.json") for name in files(tmp_path)) == 1


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_tells_that_only_its_first_picture_is_read(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    path = tmp_path / f"walk.{'tif' if form == 'TIFF' else form.lower()}"
    frames = [Image.new("RGB", (40, 30), (60 * i, 0, 0)) for i in range(3)]
    frames[0].save(path, form, save_all=True, append_images=frames[1:])
    assert command(path)[0] == 0
    text = capsys.readouterr().out
    assert "in the first of 3 pictures in this file" in text
    assert ("multihmr video reads all" in text) == (form != "TIFF")


@pytest.mark.parametrize("name", ["predict", "video", "fit", "generate", "evaluate", "export", "convert"])
def test_no_command_takes_an_empty_name_for_a_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = {"fit": ["a.json", "a.jpg"], "convert": ["a.pt"], "predict": ["a.jpg"], "video": ["a.mp4"]}
    out = [" "] if name == "convert" else ["--out", ""]
    with pytest.raises(SystemExit):
        run([name, *words.get(name, []), *out])
    assert "an empty name is no path; it may be an empty shell variable" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
