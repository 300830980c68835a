from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clips import GREY, RED, StandIn, picture, write_film
from PIL import Image
from toys import ToyBody, random_humans

import multihmr
from multihmr.cli.main import run
from multihmr.humans import Humans
from multihmr.preprocessing.image import LoadedImage, load_image
from multihmr.video.frame import Frame
from multihmr.video.predict import _batches, predict_frames, predict_video
from multihmr.video.prediction_cache import PredictionCache
from multihmr.video.reader import open_video
from multihmr.video.tracker import Tracking
from multihmr.video.tracks import collect, load_track
from multihmr.video.writer import VideoWriter

av = pytest.importorskip("av")
ASTRONAUT = Path(__file__).parents[2] / "examples/images/astronaut.jpg"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames, 10 a second."""
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", [picture()] * 20)


def test_a_file_gives_its_frames_times_and_colours(film):
    video = open_video(film)
    frames = list(video)
    assert (video.fps, video.count, len(frames), video.live) == (10, 20, 20, False)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(20) / 10)
    np.testing.assert_allclose(frames[3].image.pixels[10, 10], RED, atol=8)
    np.testing.assert_allclose(frames[3].image.pixels[40, 50], GREY, atol=8)
    assert [frame.number for frame in video] == list(range(20))  # and once again


def test_frames_that_come_when_they_like_keep_their_times(tmp_path):
    times = [0, 0.04, 0.5, 0.54, 1.2]
    with VideoWriter(tmp_path / "film.mp4", 25) as writer:
        for time in times:
            writer.write(picture(), time)
    np.testing.assert_allclose([frame.time for frame in open_video(tmp_path / "film.mp4")], times, atol=1e-3)


@pytest.mark.parametrize(("rotation", "corner"), [(90, (-5, 5)), (180, (-5, -5)), (-90, (5, -5))])
def test_pictures_stand_upright(tmp_path, rotation, corner):
    """Turned counterclockwise by the angle: the red corner goes from the upper left along with it."""
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write rotations")
    path = write_film(tmp_path / "film.mp4", [picture()] * 3, rotation=rotation)
    pixels = next(iter(open_video(path))).image.pixels
    assert pixels.shape[:2] == ((64, 48) if rotation % 180 else (48, 64))
    np.testing.assert_allclose(pixels[corner], RED, atol=8)


@pytest.mark.slow
def test_hdr_of_ten_bits_becomes_ordinary_colour(tmp_path):
    """In PQ the code 0.58 is white paper, 203 cd/m2 (ITU-R BT.2408); read as it stands it would be grey."""
    white = np.full((48, 64, 3), round(0.58 * 65535), np.uint16)
    settings = {"pix_fmt": "yuv420p10le", "color_trc": 16, "color_primaries": 9, "colorspace": 9}
    path = write_film(tmp_path / "film.mp4", [white] * 3, source="rgb48le", **settings)
    pixels = next(iter(open_video(path))).image.pixels  # 3 seconds; all others 15 ms
    assert pixels.dtype == np.uint8
    assert pixels.min() > 235


def test_ten_bits_without_hdr_are_read(tmp_path):
    path = write_film(tmp_path / "film.mp4", [picture()] * 3, pix_fmt="yuv420p10le")
    np.testing.assert_allclose(next(iter(open_video(path))).image.pixels[10, 10], RED, atol=8)


def test_a_size_that_changes_midway_is_followed(tmp_path):
    parts = [
        write_film(tmp_path / f"{n}.ts", [picture(size)] * 5) for n, size in enumerate([(48, 64), (96, 128)])
    ]
    path = tmp_path / "film.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.warns(UserWarning, match="joined end to end"):
        shapes = [frame.image.pixels.shape[:2] for frame in open_video(path)]
    assert set(shapes[:4]) == {(48, 64)}
    assert set(shapes[-4:]) == {(96, 128)}


def test_pixels_that_are_not_square_become_so(tmp_path):
    path = write_film(tmp_path / "film.mp4", [picture()] * 3, sample_aspect_ratio=Fraction(2, 1))
    assert next(iter(open_video(path))).image.pixels.shape == (48, 128, 3)


def test_what_is_cut_short_gives_what_it_has(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    whole = write_film(tmp_path / "film.mkv", list(noise)).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"cut\.mkv (is damaged or cut short|breaks off)") as caught:
        frames = list(open_video(path))
    assert 5 < len(frames) < 25
    assert caught


def test_what_has_no_pictures_says_so(film, tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no film", encoding="utf-8")
    (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[:500])
    (tmp_path / "folder").mkdir()
    sentences = {
        "song.mp4": "has sound but no pictures",
        "empty.mp4": "is empty: 0 bytes",
        "text.mp4": "is no video or is cut short",
        "cut.mp4": "is no video or is cut short",
        "folder": "is a folder without pictures",
    }
    for name, sentence in sentences.items():
        with pytest.raises(ValueError, match=f"{re.escape(name)} {sentence}"):
            open_video(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="there is no video"):
        open_video(tmp_path / "nothing.mp4")


def test_a_film_without_frames_says_so(tmp_path):
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(ValueError, match=r"has no (frames|pictures)|is no video"):
        list(open_video(tmp_path / "film.mp4"))


def test_folders_are_read_by_number_and_bad_pictures_left_out(tmp_path):
    for number, size in {2: (10, 20), 10: (30, 20), 1: (10, 40)}.items():
        Image.fromarray(picture(size)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "frame3.png").write_bytes(b"broken")
    (tmp_path / "notes.txt").touch()
    video = open_video(tmp_path, fps=5)
    assert (video.count, video.fps) == (4, 5)
    with pytest.warns(UserWarning, match=r"left out: .*frame3\.png"):
        frames = list(video)
    assert [frame.image.pixels.shape[:2] for frame in frames] == [(10, 40), (10, 20), (30, 20)]
    assert [frame.time for frame in frames] == [0, 0.2, 0.6]


def test_pictures_in_memory_are_a_video():
    assert len(list(open_video([picture()] * 3))) == 3
    endless = open_video(picture() for _ in itertools.count())
    assert endless.count is None
    assert next(iter(endless)).image.pixels.shape == (48, 64, 3)
    for wrong in (picture(), b"bytes", 3.5):
        with pytest.raises(ValueError, match="a video must be a path, the index of a webcam or an iterable"):
            open_video(wrong)


class Webcam:
    """Three pictures; then somebody pulls the plug."""

    def __init__(self, *_: Any, **__: Any) -> None:
        stream = SimpleNamespace(average_rate=30, sample_aspect_ratio=None)
        self.streams = SimpleNamespace(video=[stream])

    def __enter__(self) -> Webcam:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def decode(self, _: Any) -> Iterator[Any]:
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(picture(), format="rgb24")
            frame.pts, frame.time_base = 100 + i, Fraction(1, 30)
            yield frame
        raise av.error.OSError(19, "No such device")


def test_a_webcam_that_is_unplugged_says_so_after_its_last_picture(monkeypatch):
    monkeypatch.setattr(av, "open", Webcam)
    monkeypatch.setattr(sys, "platform", "linux")
    video, model = open_video(0), StandIn()
    assert video.live
    seen = []
    with pytest.raises(OSError, match="webcam 0 gave no more pictures after 3: is it plugged in"):
        seen.extend(predict_video(model, video))
    assert len(model.sizes) == 4  # one more: with the first, the camera is found out


def test_a_webcam_that_is_not_there_says_so():
    with pytest.raises(OSError, match="there is no webcam 77, or another program uses it"):
        open_video(77)


def test_without_pyav_the_cure_is_said(monkeypatch, film):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"videos need PyAV: pip install 'multihmr\[video\]'"):
        open_video(film)


@pytest.mark.slow
def test_people_of_a_video_have_ids_and_one_shape(film):
    result = list(predict_video(StandIn(), film))
    assert len(result) == 20
    assert {tuple(humans.track_ids) for humans in result} == {(1, 2)}
    first, second = collect(result, fps=10)
    assert (len(first), len(second)) == (20, 20)
    truth = random_humans(ToyBody(), 2)
    np.testing.assert_allclose(result[9].vertices, truth.vertices, atol=1e-4)


def test_prediction_is_a_stream(film):
    model = StandIn()
    height, width = picture().shape[:2]
    K = [[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]]
    stream = predict_video(model, itertools.repeat(picture()), K=K, batch_size=4, tracking=Tracking(8, 2))
    next(stream)
    assert len(model.sizes) == 12  # batches of 4 until 8 frames are looked ahead


def test_the_camera_that_the_network_sees_is_held():
    model = StandIn()
    frames = [Frame(i, i / 10, LoadedImage(picture())) for i in range(6)]
    found = [humans for _, humans in predict_frames(model, frames, batch_size=3)]
    assert len(model.Ks) == 9  # the first three again, with what was seen in them
    assert {float(humans.K[0, 0]) for humans in found} == {102.0}
    assert {humans.K_source for humans in found} == {"predicted"}


def test_frames_with_weak_people_only_are_searched_as_those_without():
    """Half of the score of a new person is kept in videos: that must not end the search as if it were one."""
    asked = []

    class Asked(StandIn):
        def predict_batch(self, photos: list[LoadedImage], Ks: list[Any], **options: Any) -> list[Humans]:
            asked.append((options["threshold"], options.get("search_below")))
            return super().predict_batch(photos, Ks, **options)

    frames = [Frame(i, i / 10, LoadedImage(picture())) for i in range(3)]
    list(predict_frames(Asked(), frames, fov=60.0, threshold=0.15, least_score=0.3))
    list(predict_frames(Asked(), frames, fov=60.0, threshold=0.15))
    list(predict_video(Asked(), [picture()] * 3, fov=60.0, threshold=0.5))
    assert asked == [(0.15, 0.3), (0.15, None), (0.25, 0.5)]


@pytest.mark.slow
def test_a_face_that_fills_a_film_is_found_as_in_its_pictures():
    face = load_image(ASTRONAUT).pixels[0:300, 60:360]
    model = multihmr.load_model(device="cpu")
    weak = model.predict(face, threshold=model.threshold / 2, closeups=False, any_rotation=False).scores
    assert 0 < weak.max(initial=0) < model.threshold  # else this shows nothing
    assert len(model.predict(face, any_rotation=False)) == 1
    assert [len(humans) for humans in model.predict_video([face] * 3)] == [1, 1, 1]


def test_batches_of_large_pictures_are_small():
    def sizes(side: int, count: int = 10) -> list[int]:
        photo = LoadedImage(np.broadcast_to(np.uint8(0), (side, 2 * side, 3)))
        return [len(batch) for batch in _batches([Frame(i, 0, photo) for i in range(count)], 8)]

    assert sizes(100) == [8, 2]
    assert sizes(4320) == [1] * 10
    assert sizes(2160) == [5, 5]


def test_a_film_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "film.mp4"

    def stopped() -> None:
        with VideoWriter(path, 10) as writer:
            writer.write(picture(), 0)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert list(tmp_path.iterdir()) == []
    with VideoWriter(path, 10) as writer:
        for i, size in enumerate([(47, 63), (48, 64), (20, 90)]):
            writer.write(picture(size), i / 10)
    assert [frame.image.pixels.shape for frame in open_video(path)] == [(46, 62, 3)] * 3


def test_a_prediction_cache_is_read_back_and_goes_on(tmp_path):
    people, topology = random_humans(ToyBody(), 2), ToyBody().topology
    cache = PredictionCache(tmp_path / "p", {"video": "a"})
    for i in range(70):
        cache.add(i / 10, people if i % 2 else people[[]])
    assert cache.count == 64  # in memory: 6
    cache.flush()
    again = PredictionCache(tmp_path / "p", {"video": "a"})
    assert (again.count, again.complete) == (70, False)
    time, humans = list(again.read(topology))[69]
    assert time == 6.9
    np.testing.assert_array_equal(humans.pose, people.pose)
    with pytest.raises(ValueError, match="holds predictions with video 'a', not 'b'"):
        PredictionCache(tmp_path / "p", {"video": "b"})
    with pytest.raises(
        ValueError, match="holds predictions with video 'a', and video is not given now: choose"
    ):
        PredictionCache(tmp_path / "p", {"video": None})


@pytest.fixture
def command(film, tmp_path, monkeypatch) -> Callable[..., tuple[int, StandIn]]:
    """command(*flags, stop_after=...): `multihmr video` with a stand-in; the exit code, and what it saw."""

    def call(*flags: str, source: Path = film, stop_after: int = 10**9) -> tuple[int, StandIn]:
        model = StandIn(stop_after)
        monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: model)
        return run(["video", str(source), "--out", str(tmp_path / "out"), "--fov", "60", *flags]), model

    return call


@pytest.mark.slow
def test_the_command_writes_every_file(command, tmp_path, capsys, monkeypatch):
    def save(people: Any, path: Path, *, bones: Any, body: ToyBody, rest: Any, ground: Any) -> None:
        path.write_text(f"{len(people)} {bones} {body.name}{rest or ''}", encoding="utf-8")

    monkeypatch.setattr("multihmr.io.save.save", save)  # the toy body has no rig
    assert command("--bones", "mixamo")[0] == 0
    out = tmp_path / "out"
    names = {path.name for path in out.iterdir()}
    people = {f"person_00{i}.{suffix}" for i in (1, 2) for suffix in ("npz", "bvh")}
    assert names == {"overlay.mp4", "tracks.txt", "people.glb", "predictions", "index.jsonl"} | people
    assert len(load_track(out / "person_002.npz", ToyBody())) == 20
    assert [frame.image.pixels.shape for frame in open_video(out / "overlay.mp4")] == [(48, 64, 3)] * 20
    assert (out / "people.glb").read_text(encoding="utf-8") == "2 mixamo toy"
    assert command("--format", "glb", "--rest", "t-pose")[0] == 0
    assert (out / "people.glb").read_text(encoding="utf-8") == "2 None toyt-pose"
    lines = [line.split(",") for line in (out / "tracks.txt").read_text(encoding="utf-8").splitlines()]
    assert [line[:2] for line in lines[:3]] == [["1", "1"], ["1", "2"], ["2", "1"]]
    assert {len(line) for line in lines} == {10}
    assert "20 frames, 2 people" in capsys.readouterr().out


@pytest.mark.slow
def test_a_stopped_command_goes_on_where_it_was(command, tmp_path, capsys):
    code, _ = command("--format", "npz", "--batch-size", "4", stop_after=10)
    assert code == 130
    assert "the same command goes on after 8 of 20 frames" in capsys.readouterr().err
    code, model = command("--format", "npz", "--batch-size", "4")
    assert (code, len(model.sizes)) == (0, 12)
    assert len(load_track(tmp_path / "out" / "person_001.npz", ToyBody())) == 20
    code, model = command("--format", "mot")  # another format: nothing is predicted again
    assert (code, len(model.sizes)) == (0, 0)


def test_a_full_disk_says_what_is_kept(command, monkeypatch, capsys):
    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".npz":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("multihmr.video.prediction_cache.write_bytes", full)
    assert command("--format", "npz")[0] == 1
    assert "No space left on device (0 frames kept; the same command goes on)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_damaged_video_is_done_as_far_as_possible(command, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    whole = write_film(tmp_path / "film.mkv", list(noise)).read_bytes()
    (tmp_path / "film.mkv").write_bytes(whole[: len(whole) // 2])
    code, model = command("--format", "npz,overlay", source=tmp_path / "film.mkv")
    assert code == 1
    assert len(load_track(tmp_path / "out" / "person_001.npz", ToyBody())) == len(model.sizes) > 5
    assert "film.mkv is damaged or cut short" in capsys.readouterr().err


@pytest.mark.slow
def test_another_video_does_not_overwrite_the_first(command, tmp_path, capsys):
    command("--format", "mot")
    other = write_film(tmp_path / "other.mp4", [picture()] * 3)
    assert command("--format", "mot", source=other)[0] == 1
    assert "holds predictions of another video: choose another --out" in capsys.readouterr().err


def test_frames_are_predicted_as_they_are(film):
    """A film says how it is turned; single frames are not turned because a person bends down."""
    model, asked = StandIn(), []
    predict = model.predict_batch

    def predict_batch(photos, Ks, **options):
        asked.append(options["any_rotation"])
        return predict(photos, Ks, **options)

    model.predict_batch = predict_batch
    list(predict_video(model, film))
    assert set(asked) == {False}
