"""multihmr video: which predictions are taken up again, which sources and options are accepted, the sound."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clips import StandIn, picture, write_film
from PIL import Image

from multihmr.cli import video as command_video
from multihmr.cli.main import run
from multihmr.io.metadata import read_metadata
from multihmr.video.reader import open_video
from multihmr.video.writer import VideoWriter

av = pytest.importorskip("av")
Command = Callable[..., tuple[int, StandIn]]


@pytest.fixture
def film(tmp_path) -> Path:
    return write_film(tmp_path / "film.mp4", [picture()] * 12)


@pytest.fixture
def command(tmp_path, monkeypatch) -> Command:
    """command(*sources, *flags, weights=...): the exit code and the model, which predicts two people."""

    def call(*words: Any, weights: int = 0, out: str = "out") -> tuple[int, StandIn]:
        model = StandIn()
        model.config = SimpleNamespace(weights=weights)
        monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: model)
        flags = ["--out", str(tmp_path / out), "--fov", "60", "--format", "mot"]
        return run(["video", *flags, *map(str, words)]), model

    return call


@pytest.mark.slow
def test_other_weights_of_the_same_name_do_not_go_on(command: Command, film, capsys):
    assert command(film)[0] == 0
    code, model = command(film, weights=1)
    assert (code, model.sizes) == (1, [])
    assert "holds predictions of a model with other weights: choose another" in capsys.readouterr().err
    code, model = command(film, "--overwrite", weights=1)
    assert (code, len(model.sizes)) == (0, 12)


@pytest.mark.slow
def test_the_same_film_elsewhere_goes_on(command: Command, film, tmp_path):
    command(film)
    moved = film.rename(tmp_path / "moved.mp4")
    code, model = command(moved)
    assert (code, model.sizes) == (0, [])


def test_another_film_of_the_same_name_and_size_does_not(command: Command, film, capsys):
    command(film)
    content = bytearray(film.read_bytes())
    content[-1] ^= 1
    film.write_bytes(content)
    assert command(film)[0] == 1
    assert "of another video" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["exchanged", "added"])
def test_pictures_of_a_folder_that_changed_do_not(command: Command, tmp_path, capsys, change):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in (("1.png", (48, 64)), ("2.png", (48, 66))):
        Image.fromarray(picture(size)).save(folder / name)
    assert command(folder)[0] == 0
    if change == "added":
        Image.fromarray(picture()).save(folder / "3.png")
    else:
        (folder / "1.png").rename(folder / "x")
        (folder / "2.png").rename(folder / "1.png")
        (folder / "x").rename(folder / "2.png")
    assert command(folder)[0] == 1
    assert "of another video" in capsys.readouterr().err


def test_a_broken_link_among_the_frames_is_left_out(command: Command, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(picture()).save(folder / "1.png")
    (folder / "2.png").symlink_to(tmp_path / "nowhere.png")
    code, model = command(folder)
    assert (code, len(model.sizes)) == (1, 1)  # as with other frames that cannot be read
    assert "left out: " in capsys.readouterr().err


@pytest.mark.slow
def test_more_frames_go_on_where_fewer_ended(command: Command, film, tmp_path, capsys):
    def lines() -> int:
        return len((tmp_path / "out" / "tracks.txt").read_text(encoding="utf-8").splitlines())

    assert [len(command(film, *words)[1].sizes) for words in (["--count", "3"], ["--frames", "10"])] == [3, 7]
    assert lines() == 20
    assert "--frames is now --count" in capsys.readouterr().err
    code, model = command(film, "--count", "2")  # fewer again: from what is there
    assert (code, model.sizes, lines()) == (0, [], 4)
    assert len(command(film)[1].sizes) == 2
    assert lines() == 24


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--fov", "300"], "fov is the field of view in degrees, between 1 and 179, got 300"),
        (["--bones", "maya"], "--bones must be one of mixamo, smplx, vrm, got 'maya'"),
        (["--threshold", "7"], "threshold is a score between 0 and 1"),
        (["--tiles", "0"], "tiles is how many parts"),
        (["--fps", "-3"], "--fps must be between 0 and 10000"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(film, tmp_path, monkeypatch, capsys, flags, sentence):
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: pytest.fail("was loaded"))
    out = tmp_path / "out"
    assert run(["video", str(film), "--out", str(out), *flags]) == 1
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_a_keypoint_set_that_is_none_is_told_before_frames_are_predicted(command: Command, film, capsys):
    code, model = command(film, "--keypoints", "coco")
    assert (code, model.sizes) == (1, [])
    assert "no keypoint set 'coco' for body" in capsys.readouterr().err


def test_a_run_that_predicted_nothing_does_not_bind_the_next(command: Command, film, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out"), "--format", "mot"]
    command(film, out="other")  # sets the model
    assert run(["video", str(film), "--K", "600,600,5000,5000", *out]) == 1
    said = capsys.readouterr().err
    assert "multihmr: K has its principal point (5000, 5000) outside the" in said
    assert command(film)[0] == 0


@pytest.mark.parametrize(
    "flags", [["--count", "0"], ["--count", "²"], ["--batch-size", "-1"], ["--format", "x"]]
)
def test_wrong_numbers_are_refused_by_name(film, capsys, flags):
    with pytest.raises(SystemExit, match="2"):
        run(["video", str(film), "--out", "out", *flags])
    assert f"argument {flags[0]}: got" in capsys.readouterr().err


def test_a_folder_with_a_number_as_name_is_no_webcam(command: Command, tmp_path, monkeypatch):
    (tmp_path / "0001").mkdir()
    Image.fromarray(picture()).save(tmp_path / "0001" / "1²2.jpg")
    monkeypatch.chdir(tmp_path)
    code, model = command("0001")
    assert (code, len(model.sizes)) == (0, 1)
    assert command_video.find_sources(["0"]) == [(0, "")]
    assert command_video.find_sources(["²"]) == [(Path("²"), "")]


@pytest.mark.parametrize("pattern", ["frames/f_*.png", "frames/f_%03d.png", "frames/f_%d.png"])
def test_patterns_of_frames_are_told_to_be_folders(command: Command, tmp_path, monkeypatch, capsys, pattern):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames").mkdir()
    Image.fromarray(picture()).save(tmp_path / "frames" / "f_001.png")
    assert command(pattern)[0] == 1
    told = f"{pattern} is a pattern; give the folder, frames, whose pictures are the frames"
    assert told in capsys.readouterr().err
    assert command("other/f_%03d.png")[0] == 1
    assert "there is no video other/f_%03d.png; a webcam is" in capsys.readouterr().err


@pytest.mark.slow
def test_files_of_another_format_stay(command: Command, film, tmp_path):
    """Other formats of the same video need no network: they must not take away those that are there."""
    command(film, "--format", "npz,mot")
    before = {p.name for p in (tmp_path / "out").glob("person_*")}
    assert "person_001.npz" in before
    (tmp_path / "out" / "person_009.npz").touch()  # of an earlier run with more people
    command(film, "--format", "mot")
    assert {p.name for p in (tmp_path / "out").glob("person_*")} == before | {"person_009.npz"}
    command(film, "--format", "npz")
    assert {p.name for p in (tmp_path / "out").glob("person_*")} == before


def test_globs_of_films_are_expanded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b10.mp4", "b9.mp4", "b.txt", "b[1].mp4"):
        (tmp_path / name).touch()
    found = command_video.find_sources(["b*"])
    assert found == [(Path(name), Path(name).stem) for name in ("b9.mp4", "b10.mp4", "b[1].mp4")]
    assert command_video.find_sources(["b[1].mp4"]) == [(Path("b[1].mp4"), "")]


def test_an_empty_name_is_not_the_current_folder(command: Command, capsys):
    assert run(["video", "", "--out", "out"]) == 1
    assert "an empty name is no video" in capsys.readouterr().err


def test_several_films_have_a_folder_each(command: Command, tmp_path, capsys):
    films = tmp_path / "films"
    (films / "sub").mkdir(parents=True)
    for name, count in (("b10.mp4", 3), ("b9.mp4", 2), ("sub/b9.mp4", 1)):
        write_film(films / name, [picture()] * count)
    (films / "broken.mp4").write_bytes(b"no film")
    assert command(films, films / "sub" / "b9.mp4")[0] == 1
    done = {
        path.name: len((path / "tracks.txt").read_text(encoding="utf-8").splitlines())
        for path in (tmp_path / "out").iterdir()
        if (path / "tracks.txt").exists()
    }
    assert done == {"b9": 4, "b10": 6, "b9_2": 2}
    output = capsys.readouterr()
    assert "broken.mp4 is no video or is cut short" in output.err
    assert "3 of 4 videos done" in output.out
    assert "b9_2" in output.out


@pytest.mark.slow
def test_a_film_without_people_says_what_else_can_be_tried(command: Command, film, capsys):
    assert command(film, "--threshold", "1")[0] == 0
    found = capsys.readouterr().out
    assert "no people (with --overwrite try --tiles 2 or auto for small people, --threshold 0.15" in found
    assert command(film, "--threshold", "1", "--tiles", "2", out="tiled")[0] == 0
    assert "no people (with --overwrite try --threshold 0.15" in capsys.readouterr().out


@pytest.mark.slow
def test_quiet_prints_nothing(command: Command, film, capsys):
    assert command(film, "--quiet")[0] == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_a_joined_film_is_done_with_a_warning(command: Command, film, tmp_path, capsys):
    part = write_film(tmp_path / "a.ts", [picture()] * 10).read_bytes()
    (tmp_path / "ab.ts").write_bytes(2 * part)
    assert command(tmp_path / "ab.ts")[0] == 0
    assert "joined end to end" in capsys.readouterr().err


def add_sound(source: Path, target: Path, codec: str = "aac", rate: int = 44100) -> Path:
    """The film with a tone that begins with it and is one second longer."""
    with av.open(str(source)) as film, av.open(str(target), "w") as container:
        pictures = container.add_stream_from_template(film.streams.video[0])
        sound = container.add_stream(codec, rate=rate)
        seconds = float(film.duration / 1e6) + 1
        tone = np.sin(np.arange(round(seconds * rate)) * 440 * 2 * np.pi / rate).astype(np.float32)
        for packet in film.demux(film.streams.video[0]):
            if packet.dts is not None:
                packet.stream = pictures
                container.mux(packet)
        resampler = av.AudioResampler(format=sound.codec_context.format, layout=sound.layout, rate=rate)
        size = sound.codec_context.frame_size or 1024
        for start in range(0, len(tone), size):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + size], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            for part in resampler.resample(frame):
                container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    return target


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".mp4"), ("pcm_s16le", ".mkv")])
def test_the_overlay_keeps_the_sound(film, tmp_path, codec, suffix):
    source = add_sound(film, tmp_path / f"loud{suffix}", codec)
    with VideoWriter(tmp_path / "out.mp4", 10, sound=source) as writer:
        for frame in open_video(source):
            writer.write(frame.image.pixels, frame.time)
    with av.open(str(tmp_path / "out.mp4")) as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.name == "aac"
        frames = [frame.to_ndarray()[0] for frame in container.decode(sound)]
        samples = np.concatenate(frames)
        assert len(samples) / sound.codec_context.sample_rate == pytest.approx(1.2, abs=0.1)
        assert np.abs(samples[5000:20000]).max() > 0.5
        assert len(list(open_video(tmp_path / "out.mp4"))) == 12


@pytest.mark.slow
def test_the_command_keeps_the_sound_unless_told_not_to(film, tmp_path):
    source = add_sound(film, tmp_path / "loud.mp4")
    model = StandIn()
    for flags, streams in (([], 1), (["--no-sound"], 0)):
        out = tmp_path / f"sound{streams}"
        words = ["video", str(source), "--out", str(out), "--fov", "60", "--format", "overlay", *flags]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("multihmr.model.load_model", lambda *_, **__: model)
            assert run(words) == 0
        with av.open(str(out / "overlay.mp4")) as container:
            assert len(container.streams.audio) == streams


@pytest.mark.slow
def test_tracks_tell_where_they_come_from(film, tmp_path, monkeypatch):
    model = StandIn()
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: model)
    assert run(["video", str(film), "--out", str(tmp_path / "out"), "--fov", "60", "--format", "npz"]) == 0
    path = tmp_path / "out" / "person_001.npz"
    metadata = read_metadata(path.read_bytes(), path.name)
    assert metadata["source"] == str(film)
    assert metadata["threshold"] == 0.3
    assert metadata["options"]["fov"] == 60
    assert len(metadata["model_fingerprint"]) == 16
    note = json.loads((tmp_path / "out" / "predictions" / "source.json").read_text(encoding="utf-8"))
    assert note["video"] == str(film)
    assert os.path.getsize(path) > 0


@pytest.mark.slow
def test_the_index_says_which_files_belong_to_which_video(command: Command, film, tmp_path):
    other = tmp_path / "other.mp4"
    other.write_bytes(b"no film")
    assert command(film, other)[0] == 1
    index = (tmp_path / "out" / "index.jsonl").read_text(encoding="utf-8").splitlines()
    good, bad = (json.loads(line) for line in index)
    assert (good["input"], good["outputs"], good["people"], good["frames"]) == (
        str(film), ["film/tracks.txt"], 2, 12,
    )  # fmt: skip
    assert good["options"]["fov"] == 60
    assert bad["input"] == str(other)
    assert "other.mp4" in bad["error"]


@pytest.mark.slow
def test_drawing_flags_change_the_overlay(film, tmp_path, monkeypatch):
    drawn = []

    def draw(humans: Any, image: Any, **options: Any) -> Any:
        drawn.append(options)
        return image.pixels

    monkeypatch.setattr("multihmr.visualization.overlay_video.draw", draw)
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: StandIn())
    words = ["video", str(film), "--out", str(tmp_path / "out"), "--fov", "60", "--format", "overlay"]
    assert run([*words, "--opacity", "0.4", "--boxes", "--count", "1"]) == 0
    assert {key: drawn[0][key] for key in ("opacity", "boxes", "ids")} == {
        "opacity": 0.4, "boxes": True, "ids": True,
    }  # fmt: skip
    assert "keypoints" not in drawn[0]
    assert run([*words, "--opacity", "4"]) == 1


def test_distortion_needs_its_camera_and_is_part_of_what_is_kept(command: Command, film, tmp_path, capsys):
    assert command(film, "--distortion=-0.2,0.1,0,0")[0] == 1  # the fixture gives --fov
    assert "--distortion needs --K" in capsys.readouterr().err
    out = ["--out", str(tmp_path / "out"), "--format", "mot", "--K", "60,60,32,24"]
    assert run(["video", str(film), *out, "--distortion=-0.2,0.1,0,0"]) == 0
    note = json.loads((tmp_path / "out/predictions/source.json").read_text(encoding="utf-8"))
    assert note["distortion"] == [-0.2, 0.1, 0, 0]
    assert run(["video", str(film), *out, "--distortion=-0.1,0.1,0,0"]) == 1
    assert "holds predictions with distortion" in capsys.readouterr().err
