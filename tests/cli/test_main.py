from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multihmr.bodies.topology import Topology
from multihmr.cli import arguments as flags
from multihmr.cli import main as cli
from multihmr.cli import predict
from multihmr.humans import Humans
from multihmr.preprocessing.camera import check_intrinsics
from multihmr.preprocessing.image import LoadedImage, load_image

TOPOLOGY = Topology("dot", np.zeros((0, 3), np.int32), ("head",), (-1,), {}, (), ())


class StubModel:
    """Finds one person 2 m away in every picture, draws nothing and saves an empty file."""

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []

    def predict(self, image: LoadedImage, K: object = None, **options: object) -> Humans:
        self.asked.append({"K": K, **options})
        height, width = load_image(image).pixels.shape[:2]
        if K is not None:
            check_intrinsics(K, height, width)
        nobody = Humans.empty(topology=TOPOLOGY, K=np.eye(3), K_source="assumed", image_size=(height, width))
        values = {name: np.zeros((1, *getattr(nobody, name).shape[1:])) for name in cli_fields(nobody)}
        return dataclasses.replace(nobody, **{**values, "translation": np.array([[0, 0, 2.0]])})


def cli_fields(humans: Humans) -> list[str]:
    return [
        f.name
        for f in dataclasses.fields(humans)
        if getattr(getattr(humans, f.name), "shape", (1,))[:1] == (0,)
    ]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> StubModel:
    stub = StubModel()
    monkeypatch.setattr("multihmr.model.load_model", lambda name=None, **options: stub)
    monkeypatch.setattr(Humans, "save", lambda self, path, **_: Path(path).touch())
    monkeypatch.setattr(Humans, "draw", lambda self, image, **_: load_image(image).pixels)
    return stub


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(path)


def test_predict_writes_every_format(
    model: StubModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.jpg")
    assert cli.run(["predict", str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a.glb",
        "a.json",
        "a.npz",
        "a_overlay.jpg",
        "index.jsonl",
    ]
    assert capsys.readouterr().out == f"{tmp_path / 'a.jpg'}: 1 person at 2.0 m\n"


def test_flags_reach_the_model(model: StubModel, tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    command = ["predict", str(tmp_path / "a.jpg"), "--out", str(tmp_path), "--format", "json"]
    assert (
        cli.run([*command, "--K", "50,60,20,15", "--threshold", "0.2", "--max-people", "3", "--tiles", "2"])
        == 0
    )
    K = [[50, 0, 20], [0, 60, 15], [0, 0, 1]]
    asked = {"K": K, "fov": None, "threshold": 0.2, "max_people": 3, "tiles": 2, "any_rotation": "auto"}
    asked["limbs"] = True
    assert model.asked == [asked]


def test_bad_pictures_are_listed_and_the_rest_is_done(
    model: StubModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in" / "a.png", tmp_path / "in" / "c.png")
    (tmp_path / "in" / "b.png").write_text("no picture", encoding="utf-8")
    (tmp_path / "in" / "notes.txt").write_text("not asked for", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / "in", tmp_path / "missing.jpg", tmp_path / "empty", tmp_path / "*.gif"]
    assert cli.run(["predict", *map(str, paths), "--out", str(tmp_path / "out"), "--format", "glb"]) == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.glb", "c.glb", "index.jsonl"]
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    summary, *bad = [line for line in said.err.splitlines() if "picture/s" not in line]
    assert summary == "multihmr: 2 of 6 done; these were not:"
    assert len(bad) == 4
    for reason in (
        "b.png is no picture",
        "missing.jpg does not exist",
        "without pictures",
        "matches nothing",
    ):
        assert any(reason in line for line in bad), reason


def test_inputs_that_share_a_name_or_a_file_keep_their_results_apart(tmp_path: Path) -> None:
    a, b = tmp_path / "one" / "x.jpg", tmp_path / "two" / "X.png"
    names = predict.output_names([a, b], tmp_path / "out", ["overlay"])
    assert names == {a: "x", b: "X_2"}
    overlay = tmp_path / "one" / "x_overlay.jpg"  # an input that the overlay of x.jpg would overwrite
    assert predict.output_names([a, overlay], a.parent, ["overlay"])[a] == "x_2"


def test_folders_globs_and_files_name_each_picture_once(tmp_path: Path) -> None:
    write(tmp_path / "b.png", tmp_path / "a.JPG", tmp_path / "[1].png", tmp_path / ".hidden.png")
    paths = [str(tmp_path / "b.png"), str(tmp_path), str(tmp_path / "*.png"), str(tmp_path / "[1].png")]
    images, bad = predict.find_images(paths)
    assert [p.name for p in images] == ["b.png", "[1].png", "a.JPG"]
    assert not bad


def test_ctrl_c_says_what_is_done(
    model: StubModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.png", tmp_path / "b.png")
    find = model.predict

    def stop_at_the_second(*args: object, **options: object) -> Humans:
        if model.asked:
            raise KeyboardInterrupt
        return find(*args, **options)

    monkeypatch.setattr(model, "predict", stop_at_the_second)
    assert cli.run(["predict", str(tmp_path), "--out", str(tmp_path / "out")]) == 130
    assert "stopped: 1 of 2 pictures are done" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["--K", "1,2,3"],
        ["--K", "nan,600,256,256"],
        ["--K=-600,600,256,256"],
        ["--fov", "wide"],
        ["--format", "gif"],
        ["--K", "1,1,1,1", "--fov", "60"],
        ["--camera-height", "-1"],
        ["--known-heights", "180"],
        ["--known-heights", "1=nan"],
        [],
    ],
)
def test_wrong_flags(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", "out"] if wrong else []
    with pytest.raises(SystemExit, match="2"):
        cli.run(["predict", "a.jpg", *out, *wrong])
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("multihmr predict: error: ")
    assert said[1:] == ["multihmr predict --help lists all flags"]


def test_unknown_flags_name_the_nearest_and_the_help_of_their_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, said in (
        (
            ["bench", "--nothing-like-it", "3"],
            "multihmr bench: error: unrecognized arguments: --nothing-like-it 3",
        ),
        (["predict", "a.jpg", "--out", "x", "--treshold=0.5"], "--treshold=0.5; did you mean --threshold?"),
        (["models", "--nope"], "multihmr models: error: unrecognized arguments: --nope"),
    ):
        with pytest.raises(SystemExit, match="2"):
            cli.run(words)
        lines = capsys.readouterr().err.splitlines()
        assert lines[0].endswith(said)
        assert lines[1] == f"multihmr {words[0]} --help lists all flags"


@pytest.mark.parametrize("words", [["live", "--port"], ["live", "--websocket"], ["demo", "--port"]])
@pytest.mark.parametrize("number", ["99999", "-1", "x"])
def test_ports_that_are_none(words: list[str], number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.run([words[0], f"{words[1]}={number}"])
    assert f"argument {words[1]}: got '{number}', expected a port, 0 to 65535" in capsys.readouterr().err


def test_an_expected_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.jpg")
    command = ["predict", str(tmp_path / "a.jpg"), "--out", str(tmp_path), "--model", "nobody"]
    assert cli.run(command) == 1
    said = capsys.readouterr().err
    assert said.startswith("multihmr: no model 'nobody'")
    assert said.count("\n") == 1


def test_missing_extras_say_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ModuleNotFoundError("No module named 'warp'", name="warp")
    assert cli.format_error(error) == "this needs warp: pip install 'multihmr[synthetic]'"


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models"]) == 0
    assert "multihmr-anny-hybrid (default)  body anny, Apache-2.0" in capsys.readouterr().out


def test_flags_from_a_dataclass() -> None:
    @dataclasses.dataclass
    class Config:
        data: str
        batch_size: int = 4
        half: bool = True

    Config.__annotations__ = {"data": str, "batch_size": int, "half": bool}
    parser = argparse.ArgumentParser()
    flags.add_fields(parser, Config)
    args = parser.parse_args(["--data", "x", "--batch-size", "8", "--no-half"])
    assert vars(args) == {"data": "x", "batch_size": 8, "half": False}


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.run([command, "--help"])
    assert cli.COMMANDS[command] in capsys.readouterr().out.replace("\n", " ")


def test_main_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["multihmr", "models"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()


def test_the_old_name_of_generate_and_its_old_flag_are_read(monkeypatch, capsys):
    from multihmr.cli import generate

    seen = []
    monkeypatch.setattr(generate, "run", lambda args: seen.append((args.count, args.out.name)) or 0)
    assert cli.run(["synth", "--n", "7", "--out", "shards"]) == 0
    assert cli.run(["generate", "--count", "8", "--out", "synth"]) == 0
    assert seen == [(7, "shards"), (8, "synth")]
    assert "--n is now --count" in capsys.readouterr().err


def test_threads_that_wait_do_not_spin_for_long_unless_the_user_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for given, expected in (
        ({}, "1000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
        ({"GOMP_SPINCOUNT": "5"}, "5"),
    ):
        for name in names:
            monkeypatch.setenv(name, given.get(name, ""))
            if name not in given:
                monkeypatch.delenv(name)
        cli.limit_spinning()
        assert os.environ.get("GOMP_SPINCOUNT") == expected


@pytest.mark.parametrize(("command", "expected"), [("train", "1000"), ("predict", None), ("video", None)])
def test_commands_that_predict_leave_spinning_to_predict(
    command: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that what main sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["multihmr", command])
    monkeypatch.setattr(cli, "run", lambda argv: 0)
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_predicting_commands_exist() -> None:
    assert set(cli.COMMANDS) > cli.PREDICTING


def test_without_a_command_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    said = capsys.readouterr().err
    assert all(f"\n    {command} " in said for command in cli.COMMANDS)


def test_files_whose_names_begin_with_a_dash_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As shells expand *.jpg to them."""
    monkeypatch.chdir(tmp_path)
    for name in ("-dash.jpg", "-h", "a.jpg"):
        (tmp_path / name).write_bytes(b"")
    seen: list[list[str]] = []
    monkeypatch.setattr(predict, "run", lambda args: seen.append(args.paths) or 0)
    assert cli.run(["predict", "-dash.jpg", "a.jpg", "--out", "out"]) == 0
    assert seen == [["./-dash.jpg", "a.jpg"]]
    with pytest.raises(SystemExit, match="2"):
        cli.run(["predict", "-other.jpg", "a.jpg", "--out", "out"])
    assert "unrecognized arguments: -other.jpg" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):  # a flag is a flag
        cli.run(["predict", "-h"])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_of_files_do_not_reach_the_terminal_as_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As "\x1b[2J", which empties it."""
    (tmp_path / "a\x1b[2J\x9b1m.jpg").write_bytes(b"")
    assert cli.run(["predict", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "a\\x1b[2J\\x9b1m.jpg is empty" in said
    assert "\x1b" not in said
    assert cli.clean("tab\tand\nlines, ümläut 名前 \udcff") == "tab\tand\nlines, ümläut 名前 \\udcff"


def test_a_list_that_is_not_there_is_told_without_error_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["predict", str(tmp_path / "list.txt"), "--out", str(tmp_path / "out")]) == 1
    assert f"\n  {tmp_path / 'list.txt'} does not exist\n" in capsys.readouterr().err
