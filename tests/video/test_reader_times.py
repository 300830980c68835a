"""Times of frames: files without timestamps, joined files, equal timestamps, and the laws of the clock."""

from __future__ import annotations

import itertools
import math
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multihmr.video.frame import IncompleteVideo
from multihmr.video.frame_times import FrameClock
from multihmr.video.reader import open_video

av = pytest.importorskip("av")
PERIOD = 1 / 25


def times_of(timestamps: list[float | None], **options: float) -> list[float]:
    clock = FrameClock(PERIOD, **options)
    return [clock(timestamp) for timestamp in timestamps]


def encode(path: Path, count: int, *, fps: int = 30, format: str | None = None, **options: str) -> Path:
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * i % 250, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remux(source: Path, target: Path, **options: str) -> Path:
    """Copy the stream by ffmpeg, as its users do."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg program")
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(source), "-c", "copy", *options.values(), str(target)]
    subprocess.run(command, check=True)
    return target


def test_a_raw_stream_has_the_rate_that_ffmpeg_assumes(tmp_path):
    raw = remux(encode(tmp_path / "walk.mp4", 30, fps=25), tmp_path / "walk.h264")
    video = open_video(raw)
    times = [frame.time for frame in video]
    assert (len(times), video.fps) == (30, 25)
    np.testing.assert_allclose(times, np.arange(30) / 25)
    assert times[-1] == pytest.approx(1.16)


@pytest.mark.parametrize(("codec", "suffix"), [("mpeg1video", "m1v"), ("mpeg2video", "m2v")])
def test_raw_mpeg_has_the_rate_of_its_pictures(tmp_path, codec, suffix):
    """FFmpeg says 25 frames a second, and left out a timestamp where the first frames are reordered."""
    film = encode(tmp_path / "walk.mp4", 30, fps=30)
    raw = remux(film, tmp_path / f"walk.{suffix}", codec="-c:v", name=codec)
    video = open_video(raw)
    np.testing.assert_allclose([frame.time for frame in video], np.arange(30) / 30, atol=1e-6)
    assert video.fps == 30


def test_fps_replaces_the_times_of_a_file(tmp_path):
    raw = encode(tmp_path / "walk.h264", 30, format="h264")
    for path in (raw, encode(tmp_path / "walk.mp4", 30)):
        video = open_video(path, fps=10)
        assert video.fps == 10
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose([frame.time for frame in video], np.arange(30) / 10)


def test_time_goes_on_in_a_joined_file(tmp_path):
    parts = [encode(tmp_path / f"{name}.ts", 24) for name in "ab"]
    joined = tmp_path / "ab.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.warns(UserWarning, match="joined end to end") as caught:
        times = [frame.time for frame in open_video(joined)]
    assert [warning.category for warning in caught] == [UserWarning]
    np.testing.assert_allclose(times, np.arange(48) / 30, atol=1e-3)
    assert times[-1] == pytest.approx(1.567, abs=1e-3)


@pytest.mark.parametrize("frames", ["0", "2"])
def test_frames_without_presentation_timestamps_rise_by_a_period(tmp_path, frames):
    """AVI has decoding timestamps only, counts fields, and has B-frames in another order than shown."""
    film = remux(encode(tmp_path / "a.mp4", 30, fps=25, bf=frames), tmp_path / "a.avi")
    video = open_video(film)
    assert (video.fps, video.count) == (25, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose([frame.time for frame in video], np.arange(30) / 25, atol=1e-6)


def test_files_joined_with_timestamps_far_apart_are_whole(tmp_path):
    """Their length is a difference of two clocks: neither a number of frames nor a reason for a warning."""
    part = encode(tmp_path / "a.ts", 24)
    late = remux(part, tmp_path / "b.ts", offset="-output_ts_offset", by="80000")
    (tmp_path / "ab.ts").write_bytes(part.read_bytes() + late.read_bytes())
    video = open_video(tmp_path / "ab.ts")
    assert video.count is None
    with pytest.warns(UserWarning, match="joined end to end") as caught:
        times = [frame.time for frame in video]
    assert [warning.category for warning in caught] == [UserWarning]
    np.testing.assert_allclose(times, np.arange(48) / 30, atol=1e-3)


def test_a_damaged_timestamp_is_no_pause():
    with pytest.warns(UserWarning, match="jump ahead"):
        times = times_of([0, PERIOD, 1e15, 3 * PERIOD, 4 * PERIOD])
    np.testing.assert_allclose(np.diff(times), PERIOD, rtol=1e-6)


def test_three_joined_files_warn_once(tmp_path):
    part = encode(tmp_path / "a.ts", 10).read_bytes()
    (tmp_path / "aaa.ts").write_bytes(3 * part)
    with pytest.warns(UserWarning, match="joined") as caught:
        times = [frame.time for frame in open_video(tmp_path / "aaa.ts")]
    assert len(caught) == 1
    np.testing.assert_allclose(times, np.arange(30) / 30, atol=1e-3)


@pytest.mark.parametrize(
    ("timestamps", "expected"),
    [
        ([0, 0, 1, 2, 3], [0, 1, 1.5, 2, 3]),  # equal at the beginning
        ([7] * 5, [0, 1, 2, 3, 4]),
        ([None] * 5, [0, 1, 2, 3, 4]),
        ([math.nan, 1, 2, None, 4], [0, 1, 2, 3, 4]),
        ([5, 6, 7, None, None, 10], [0, 1, 2, 3, 4, 5]),
        ([0, 2, 1, 3, 4], [0, 2, 2.75, 3.5, 4.25]),  # reordered by one
        ([0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7]),  # joined
        ([0, 1, 2, 50, 51], [0, 1, 2, 50, 51]),  # a pause
        ([0, 1, 2, 1e5, 1e5 + 1], [0, 1, 2, 3, 4]),  # joined, in a format whose timestamps jump
    ],
)
def test_the_clock(timestamps, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        scaled = [None if t is None else t * PERIOD for t in timestamps]
        np.testing.assert_allclose(times_of(scaled, max_jump=10.0), np.array(expected) * PERIOD, atol=1e-9)


def test_a_long_pause_of_a_film_is_no_join():
    assert times_of([0, PERIOD, 100.0]) == [0, PERIOD, 100.0]


def test_incomplete_is_told_from_joined():
    assert issubclass(IncompleteVideo, UserWarning)
    with pytest.raises(ValueError, match="period must be a number of seconds greater than 0"):
        FrameClock(0)


@pytest.mark.slow
def test_times_of_any_timestamps_rise_by_half_to_twice_a_period():
    """Outside of true gaps; a step ahead of more than twice the typical period is one."""
    hypothesis = pytest.importorskip("hypothesis")
    strategies = hypothesis.strategies
    timestamp = strategies.one_of(
        strategies.none(),
        strategies.integers(-50, 500).map(lambda half: half * PERIOD / 2),
        strategies.floats(-1e3, 1e3),
        strategies.floats(),  # damaged ones, too
    )
    steps = strategies.lists(
        strategies.sampled_from([0, 0.1, 0.3, 0.5, 1, 1, 1, 2, 3, -1, -3, 40, -40]), max_size=60
    )
    stamps = strategies.one_of(
        strategies.lists(timestamp, max_size=60),
        steps.map(lambda walk: [PERIOD * step for step in itertools.accumulate(walk)]),
    )

    @hypothesis.settings(max_examples=600, deadline=None, derandomize=True, database=None)
    @hypothesis.given(
        stamps, strategies.sampled_from([None, 10.0]), strategies.sampled_from([PERIOD, 0.5 * PERIOD])
    )
    def check(timestamps, max_jump, shortest):
        clock, times, typical = FrameClock(PERIOD, max_jump=max_jump, shortest=shortest), [], []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for timestamp in timestamps:
                typical.append(clock.period)
                times.append(clock(timestamp))
        assert times[:1] in ([], [0.0])
        known = None  # the last timestamp
        for (before, after), period, previous, stamp in zip(
            itertools.pairwise(times), typical[1:], timestamps, timestamps[1:], strict=False
        ):
            known = previous if previous is not None and math.isfinite(previous) else known
            assert after - before >= 0.5 * shortest - 1e-9
            if after - before > 2 * period + 1e-9:  # a true gap: the timestamps step ahead as far, or farther
                assert stamp is not None
                assert after - before <= stamp - known + 1e-6

    check()


@pytest.mark.slow
def test_regular_timestamps_are_kept_to_the_last_digit():
    hypothesis = pytest.importorskip("hypothesis")
    strategies = hypothesis.strategies

    @hypothesis.settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @hypothesis.given(
        strategies.lists(strategies.floats(0.5 * PERIOD, 5), max_size=40), strategies.floats(0, 1e4)
    )
    def check(steps, start):
        stamps = list(itertools.accumulate([start, *(step + 1e-6 for step in steps)]))
        np.testing.assert_allclose(times_of(stamps), np.array(stamps) - start, atol=1e-9)

    check()


@pytest.mark.slow
def test_an_animated_webp_has_its_own_times(tmp_path):
    pictures = [Image.new("RGB", (32, 24), (shade, 0, 0)) for shade in (0, 120, 250)]
    path = tmp_path / "a.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 300, 100], lossless=True)
    video = open_video(path)
    frames = list(video)
    assert video.count == len(frames) == 3
    np.testing.assert_allclose([frame.time for frame in frames], [0, 0.1, 0.4])
    assert [int(frame.image.pixels[0, 0, 0]) for frame in frames] == [0, 120, 250]
    assert [frame.time for frame in open_video(path, fps=10)] == [0, 0.1, 0.2]


def test_a_gif_without_durations_has_all_its_frames(tmp_path):
    """As Pillow writes it if no duration is given; in FFmpeg all of its frames are one packet."""
    path = tmp_path / "a.gif"
    pictures = [Image.new("RGB", (32, 24), (shade, 0, 0)) for shade in (0, 120, 250)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    assert path.read_bytes().startswith(b"GIF87a")  # else this shows nothing
    video = open_video(path)
    frames = list(video)
    assert (video.fps, video.count) == (10, 3)
    np.testing.assert_allclose([frame.time for frame in frames], [0, 0.1, 0.2])
    np.testing.assert_allclose([int(f.image.pixels[0, 0, 0]) for f in frames], [0, 120, 250], atol=3)


@pytest.mark.slow
def test_a_joined_file_of_variable_rate_goes_on_by_a_frame_period(tmp_path):
    """The first part drops frames, the second has another rate; steps at the seam are those of its sides."""
    steps = [1] * 9 + [3] * 5
    stamps = np.concatenate([[0], np.cumsum(steps), np.arange(10) * 3]) * PERIOD
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = np.diff(times_of(stamps.tolist(), max_jump=10.0)) / PERIOD
    np.testing.assert_allclose(found[:14], steps)
    assert 1 <= found[14] <= 3
    np.testing.assert_allclose(found[15:], 3)


@pytest.mark.parametrize("start", [-5.0, -PERIOD, 95443.7])
def test_time_begins_with_the_first_frame_whatever_its_timestamp(start):
    stamps = [start + k * PERIOD for k in range(5)]
    np.testing.assert_allclose(times_of(stamps, max_jump=10.0), np.arange(5) * PERIOD, atol=1e-9)


def write_at(path: Path, milliseconds: list[int]) -> Path:
    """A film whose pictures have these timestamps."""
    from fractions import Fraction

    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("times", [[10_000 + 40 * i for i in range(10)], [5000]])
def test_films_that_do_not_start_at_zero_are_whole(tmp_path: Path, suffix: str, times: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "is damaged or cut short"
        frames = list(open_video(write_at(tmp_path / f"late{suffix}", times)).frames())
    np.testing.assert_allclose([f.time for f in frames], [(t - times[0]) / 1000 for t in times], atol=2e-3)


def test_an_animation_whose_last_picture_stays_is_whole(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 24), (60 * i, 0, 0)) for i in range(4)]
    frames[0].save(
        tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[100, 100, 100, 3000]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        times = [frame.time for frame in open_video(tmp_path / "a.gif").frames()]
    np.testing.assert_allclose(times, [0, 0.1, 0.2, 0.3], atol=1e-3)


def test_the_rate_of_a_film_with_long_pauses_is_that_between_them(tmp_path: Path) -> None:
    video = open_video(write_at(tmp_path / "gaps.mp4", [0, 40, 80, 5080, 5120, 65120]))
    assert video.fps == 25
    np.testing.assert_allclose(
        [f.time for f in video.frames()], [0, 0.04, 0.08, 5.08, 5.12, 65.12], atol=1e-3
    )
