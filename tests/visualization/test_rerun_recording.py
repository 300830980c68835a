"""Rerun recordings: what was logged is read back from the .rrd; what is missing is one sentence."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import StandIn, picture, write_film
from PIL import Image

from multihmr.cli.main import run

pytest.importorskip("rerun")


def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Entity -> its rows: component -> value, and the frame and the time [s]; from the .rrd."""
    from rerun.chunk import RrdReader

    rows = defaultdict(list)
    for chunk in RrdReader(path).stream():
        for row in chunk.to_record_batch().to_pylist():
            if row.get("time") is not None:
                row["time"] = row["time"].total_seconds()
            rows[chunk.entity_path].append({k.partition(":")[2] or k: v for k, v in row.items()})
    return {entity: sorted(found, key=lambda row: row.get("frame") or 0) for entity, found in rows.items()}


def values(rows: list[dict[str, Any]], component: str) -> list[Any]:
    return [row[component] for row in rows if row.get(component) is not None]


def test_camera_picture_meshes_and_keypoints_are_read_back(make_humans, tmp_path):
    humans = make_humans((0.0, 0.1, 3.0), (1.0, 0.0, 5.0))
    image = picture((120, 160))
    recording = humans.to_rerun(image, frame=4, time=0.25)
    recording.save(tmp_path / "people.rrd")
    recording.disconnect()
    found = read(tmp_path / "people.rrd")
    camera = found["/world/camera"][0]
    assert np.allclose(np.reshape(camera["image_from_camera"], (3, 3)).T, humans.K)  # stored by columns
    assert camera["resolution"] == [[160, 120]]
    assert (camera["frame"], camera["time"]) == (4, 0.25)
    jpeg = bytes(found["/world/camera/image"][0]["blob"][0])
    stored = np.asarray(Image.open(io.BytesIO(jpeg)), int)
    assert stored.shape == image.shape
    assert np.abs(stored - image).mean() < 4
    for number, person in enumerate(humans, start=1):
        rows = found[f"/world/people/person_{number}"]
        assert np.array_equal(values(rows, "vertex_positions")[0], person.vertices[0])
        assert np.array_equal(values(rows, "triangle_indices")[0], humans.topology.faces)
        red, green, blue = humans.colors[number - 1].tolist()
        assert values(rows, "albedo_factor")[0] == [red << 24 | green << 16 | blue << 8 | 255]
        points = found[f"/world/people/person_{number}/keypoints"]
        assert np.allclose(values(points, "positions")[0], person.keypoints("coco17").xyz[0])
        distance = values(found[f"/distance_m/person_{number}"], "scalars")[0]
        assert distance == pytest.approx(person.distances)


def test_pixels_of_a_large_image_agree_with_its_smaller_camera(make_humans, tmp_path):
    humans = make_humans(
        (0.2, 0.1, 3.0), image_size=(1280, 2560), K=np.array([[1600, 0, 1280], [0, 1600, 640], [0, 0, 1]])
    )
    recording = humans.to_rerun(np.zeros((1280, 2560, 3), np.uint8))
    recording.save(tmp_path / "people.rrd")
    recording.disconnect()
    found = read(tmp_path / "people.rrd")
    camera = found["/world/camera"][0]
    assert camera["resolution"] == [[1280, 640]]
    K = np.reshape(camera["image_from_camera"], (3, 3)).T
    assert np.allclose(K, [[800, 0, 640], [0, 800, 320], [0, 0, 1]])
    half = np.reshape(values(found["/world/camera/boxes"], "half_sizes"), (-1, 2))
    assert np.allclose(half * 4, humans.boxes[:, 2:] - humans.boxes[:, :2])


def test_a_person_who_left_is_cleared_and_tracks_follow_the_pelvis(make_humans, tmp_path):
    from multihmr.visualization.rerun_recording import record

    with record(tmp_path / "film.rrd") as recording:
        for frame in range(3):
            there = [(0.1 * frame, 0.0, 3.0), (1.0, 0.0, 5.0)][: 1 + (frame < 2)]
            humans = make_humans(*there, track_ids=np.array([7, 9])[: len(there)])
            humans.to_rerun(recording=recording, frame=frame, time=frame / 10)
    found = read(tmp_path / "film.rrd")
    assert [row["frame"] for row in found["/world/people/person_9"] if row.get("is_recursive")] == [2]
    rows = found["/world/people/person_7"]
    assert [row["frame"] for row in rows if row.get("vertex_positions")] == [0, 1, 2]
    assert len(values(rows, "triangle_indices")) == 1  # static, once
    line = values(found["/world/tracks/person_7"], "strips")[-1][0]
    assert np.allclose([x for x, _, _ in line], [0, 0.1, 0.2], atol=1e-6)


def test_the_active_recording_is_used(make_humans):
    import rerun

    active = rerun.RecordingStream("host")
    with active:
        assert make_humans((0, 0, 3)).to_rerun().get_recording_id() == active.get_recording_id()
    assert make_humans((0, 0, 3)).to_rerun().get_recording_id() != active.get_recording_id()


def test_another_image_is_refused(make_humans):
    with pytest.raises(ValueError, match="image is 64x48 but these humans were found in 160x120"):
        make_humans((0, 0, 3)).to_rerun(picture((48, 64)))


def test_without_rerun_a_sentence_says_what_to_install(make_humans, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ImportError, match=r"pip install 'multihmr\[rerun\]'"):
        make_humans((0, 0, 3)).to_rerun()


@pytest.mark.slow
def test_commands_write_recordings(tmp_path, monkeypatch, capsys):
    pytest.importorskip("av")
    film = write_film(tmp_path / "film.mp4", [picture()] * 6)
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: StandIn())
    out = tmp_path / "out"
    assert run(["video", str(film), "--out", str(out), "--fov", "60", "--format", "mot", "--rerun"]) == 0
    found = read(out / "people.rrd")
    assert [row["frame"] for row in found["/world/camera"]] == list(range(6))
    times = [row["time"] for row in found["/world/camera/image"]]
    assert np.allclose(np.diff(times), times[1])
    assert times[1] > 0
    assert "/world/tracks/person_1" in found
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert run(["video", str(film), "--out", str(out), "--rerun"]) == 1  # before any work
    assert "pip install 'multihmr[rerun]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_viewer_that_is_open_is_used_and_one_that_cannot_start_is_said(make_humans, tmp_path, monkeypatch):
    """A server of Rerun takes the place of the window, which needs a display."""
    import rerun

    from multihmr.visualization import rerun_recording

    monkeypatch.setattr(rerun_recording, "settings_folder", lambda: tmp_path)
    (tmp_path / "rerun").mkdir()  # as if chosen before: nothing is switched off
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    saved = tmp_path / "received.rrd"
    command = [
        sys.executable,
        "-m",
        "rerun",
        "--save",
        str(saved),
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    env = os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    server = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A shell's background job ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        for _ in range(100):
            if rerun_recording._is_open(port):
                break
            time.sleep(0.1)
        with rerun_recording.record(viewer=rerun_recording.Viewer(port)) as recording:
            make_humans((0, 0, 3)).to_rerun(recording=recording, frame=0)
        time.sleep(1)
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(timeout=20)
        finally:
            server.kill()
            server.wait()
    assert saved.stat().st_size > 1000
    assert isinstance(recording, rerun.RecordingStream)


def test_without_a_display_one_sentence(monkeypatch):
    from multihmr.visualization import rerun_recording

    monkeypatch.setattr(rerun_recording, "_disable_analytics", lambda: None)
    monkeypatch.setattr(rerun_recording, "_is_open", lambda port: False)
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(OSError, match="is there a display"):
        rerun_recording.Viewer()


@pytest.mark.slow
def test_the_viewer_reports_nothing_unless_the_user_chose_so(tmp_path, monkeypatch):
    from multihmr.visualization.rerun_recording import _disable_analytics

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    _disable_analytics()
    settings = tmp_path / ".config/rerun/analytics.json"
    assert json.loads(settings.read_text(encoding="utf-8"))["analytics_enabled"] is False
    settings.write_text("{}", encoding="utf-8")
    _disable_analytics()
    assert settings.read_text(encoding="utf-8") == "{}"


def test_people_and_images_of_a_lens_are_shown_as_a_camera_without_distortion_sees_them(make_humans):
    import dataclasses

    from multihmr.humans import Distortion
    from multihmr.preprocessing.distortion import undistort_image
    from multihmr.preprocessing.image import LoadedImage
    from multihmr.visualization.rerun_recording import without_distortion

    lens = Distortion.of([-0.25, 0.06, 0, 0])
    humans = dataclasses.replace(make_humans((0.3, -0.5, 4)), distortion=lens)
    height, width = humans.image_size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    straight, pixels = without_distortion(humans, image)
    expected, K = undistort_image(LoadedImage(image), humans.K, lens)
    np.testing.assert_array_equal(pixels, expected.pixels)
    rays = humans.joints[..., :2] / humans.joints[..., 2:]
    np.testing.assert_allclose(straight.joints_2d, rays @ K[:2, :2].T + K[:2, 2], atol=0.01)
    assert straight.distortion is None
    assert without_distortion(straight, image) == (straight, image)
