"""Which command has which flags: those of one purpose are the same everywhere, and reach their goal."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from multihmr.cli import main as cli
from multihmr.cli.arguments import chosen_load_options, load_options, loading_flags, prediction_options
from multihmr.cli.main import COMMANDS, command_module

LOADING = {"--model", "--device", "--smplx", "--backend", "--calibrate", "--image-size", "--padding"}
LOADING |= {"--dtype", "--attention", "--threads"}
CAMERA = {"--K", "--fov"}
LENS = {"--distortion"}
WORLD = {"--world", "--camera-pitch", "--camera-roll", "--camera-height"}
DRAWING = {"--opacity", "--keypoints", "--boxes", "--scores", "--ids", "--wireframe"}
OFFERED = {
    "predict": LOADING | LENS | CAMERA | WORLD | DRAWING | {"--body-out", "--smpl", "--flip-test", "--tiles"},
    "video": LOADING | LENS | CAMERA | WORLD | DRAWING | {"--body-out", "--smpl", "--flip-test", "--tiles"},
    "live": LOADING | LENS | CAMERA | {"--threshold", "--tiles", "--quiet"},
    "views": LOADING | DRAWING | {"--cameras", "--unit", "--least-views", "--threshold", "--quiet"},
    "evaluate": LOADING | {"--threshold", "--tiles", "--flip-test"},
    "demo": LOADING,
    "fit": CAMERA | DRAWING | {"--quiet"},
    "cluster": {"--model", "--smplx", "--backend", "--image-size", "--padding", "--threads", "--tiles"},
    "export": {"--model", "--smplx", "--image-size", "--threshold", "--calibrate"},
}


def flags_of(command: str) -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser()
    command_module(command).add_flags(parser)
    return {flag: action for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("command", OFFERED)
def test_a_command_has_the_flags_of_its_purposes(command: str) -> None:
    assert not OFFERED[command] - set(flags_of(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_no_two_arguments_share_a_place(command: str) -> None:
    """`fit POINTS --keypoints` once took the set that is drawn for the file of points."""
    parser = argparse.ArgumentParser()
    command_module(command).add_flags(parser)
    places = [action.dest for action in parser._actions if action.dest != argparse.SUPPRESS]
    on_purpose = {"vit"} if command == "bench" else set()  # --vit and --no-vit
    assert {place for place in places if places.count(place) > 1} == on_purpose


def test_a_path_after_keypoints_is_no_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.run(["predict", "--keypoints", "street.jpg", "--out", "out"])
    assert "got 'street.jpg', expected a keypoint set" in capsys.readouterr().err


def test_flags_of_loading_mean_the_same_everywhere() -> None:
    reference = {flag: action for flag, action in flags_of("predict").items() if flag in LOADING}
    for command in ("video", "views", "live", "evaluate", "demo"):
        there = flags_of(command)
        for flag, action in reference.items():
            assert (there[flag].default, there[flag].help) == (action.default, action.help), (command, flag)


@pytest.mark.parametrize("command", COMMANDS)
def test_helps_of_flags_tell_what_holds_without_them(command: str) -> None:
    if command == "data":  # its flags are those of its verbs
        return
    for flag, action in flags_of(command).items():
        text = action.help or ""
        if action.help == argparse.SUPPRESS or flag in ("-h", "--help"):
            continue
        told = any(word in text for word in ("(default", "(required", "required)", "default:", "by default"))
        assert told, f"{command} {flag}: {text}"
        assert "; default" not in text, f"{command} {flag}: {text}"


def test_flags_of_loading_are_options_of_load_model() -> None:
    import inspect

    from multihmr import load_model

    parser = argparse.ArgumentParser()
    loading_flags(parser)
    plain = parser.parse_args([])
    known = inspect.signature(load_model).parameters
    assert set(load_options(plain)) <= set(known)
    for name, value in load_options(plain).items():
        assert value == known[name].default, name
    assert chosen_load_options(plain) == {}
    asked = parser.parse_args(["--padding", "thin", "--dtype", "fast", "--threads", "2", "--device", "cpu"])
    assert chosen_load_options(asked) == {"padding": "thin", "dtype": "fast", "threads": 2}


@pytest.mark.parametrize("command", ["predict", "video", "live", "evaluate"])
def test_flags_of_loading_reach_the_model(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what is asked for, load_model gets all; here it refuses, so that nothing is predicted."""
    asked: dict[str, Any] = {}

    def load_model(name: str | None = None, **options: Any) -> None:
        asked.update(options)
        raise ValueError("seen")

    monkeypatch.setattr("multihmr.model.load_model", load_model)
    for name in ("0.png", "1.png"):
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    words = {
        "predict": [str(tmp_path / "0.png"), "--out", str(tmp_path / "out")],
        "video": [str(tmp_path), "--out", str(tmp_path / "out")],
        "live": [str(tmp_path), "--no-page", "--seconds", "5"],
        "evaluate": ["--data", str(tmp_path)],
    }[command]
    flags = ["--image-size", "288", "--padding", "thin", "--dtype", "float32", "--threads", "1"]
    assert cli.run([command, *words, *flags]) == 1
    assert capsys.readouterr().err.strip().endswith("seen")
    expected = {"image_size": 288, "padding": "thin", "dtype": "float32", "threads": 1}
    assert {name: asked[name] for name in expected} == expected


def test_the_page_loads_its_models_with_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the page needs gradio: pip install 'multihmr[demo]'")
    from multihmr.demo.sessions import Models

    monkeypatch.setattr("multihmr.demo.sessions.load_model", lambda name, **options: (name, options))
    models = Models(None, image_size=288, device="cpu")
    assert models.load(models.first) == (models.first, {"image_size": 288, "device": "cpu"})


@pytest.fixture(scope="module")
def helps_without_extras() -> dict[str, str]:
    """Command -> its help, as after `pip install .`: the packages of the extras are hidden."""
    extras = (
        "ray pyarrow gradio av pandas openvino onnxruntime onnx pxr rerun warp tensorboard timm smplx scipy"
    )
    code = f"""
import sys, traceback
for name in {extras.split()!r}:
    sys.modules[name] = None
from multihmr.cli.main import run
for command in {[*COMMANDS]!r}:
    print("== help of", command)
    try:
        print("ended with", run([command, "--help"]))
    except SystemExit as end:
        print("ended with", end.code or 0)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True
    )
    texts = done.stdout.split("== help of ")[1:]
    return {command: text.partition("\n")[2] for command, text in zip(COMMANDS, texts, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_extra(command: str, helps_without_extras: dict[str, str]) -> None:
    text = helps_without_extras[command]
    assert text.endswith("ended with 0\n"), text[-500:]
    assert text.startswith(f"usage: -c {command}") or "usage: multihmr" in text


@pytest.mark.parametrize("command", ["predict", "fit"])
def test_the_package_of_a_format_is_checked_before_work_starts(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pxr", None)
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / "points.json").write_text("[]", encoding="utf-8")
    words = [str(tmp_path / "points.json")] if command == "fit" else []
    words += [str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--format", "glb,usdz"]
    assert cli.run([command, *words]) == 1
    error = "multihmr: .usdz files need usd-core: pip install 'multihmr[usd]'"
    assert capsys.readouterr().err.strip() == error
    assert not (tmp_path / "out").exists()


def test_a_film_without_blender_is_refused_as_fbx_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    assert cli.run(["video", str(tmp_path), "--out", str(tmp_path / "out"), "--format", "fbx"]) == 1
    assert "multihmr[fbx]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_said_not_to_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "a.json"
    assert cli.run(["fit", str(missing), str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"multihmr: {missing} does not exist\n"


def test_calibrate_without_8_bits_is_refused() -> None:
    from multihmr import load_model

    with pytest.raises(ValueError, match="openvino-int8"):
        load_model(calibrate="pictures", device="cpu")


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {"any_rotation": "auto"}),
        (["--any-rotation"], {"any_rotation": True}),
        (["--no-any-rotation"], {"any_rotation": False}),
    ],
)
def test_any_rotation_is_on_off_or_automatic(flags: list[str], options: dict[str, object]) -> None:
    parser = argparse.ArgumentParser()
    command_module("predict").add_flags(parser)
    chosen = prediction_options(parser.parse_args(["street.jpg", "--out", "out", *flags]))
    assert {name: value for name, value in chosen.items() if name == "any_rotation"} == options
