"""Streams at addresses, by a server on this machine, and sources that are faster than their reader."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from clips import RED, StandIn, picture, write_film
from PIL import Image

from multihmr.cli.main import run
from multihmr.video import live
from multihmr.video.frame import Video
from multihmr.video.live import latest_frames
from multihmr.video.predict import predict_video
from multihmr.video.reader import open_video

pytest.importorskip("av")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """Serves /film.ts and /film.mkv, as files, and /camera, five pictures as an MJPEG camera sends them."""
    folder: Path = tmp_path_factory.mktemp("films")
    for name in ("film.ts", "film.mkv"):
        write_film(folder / name, [picture()] * 10)
    jpeg = io.BytesIO()
    Image.fromarray(picture()).save(jpeg, "JPEG", quality=95)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/camera":
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for _ in range(5):
                    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg.getvalue())}"
                    self.wfile.write(f"--frame\r\n{head}\r\n\r\n".encode() + jpeg.getvalue() + b"\r\n")
                return
            file = folder / self.path.lstrip("/")
            self.send_response(200 if file.is_file() else 404)
            content = file.read_bytes() if file.is_file() else b"nothing"
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


@pytest.mark.parametrize("name", ["film.ts", "film.mkv"])
def test_a_film_on_a_web_server(server, name):
    video = open_video(f"{server}/{name}")
    assert video.name == f"{server}/{name}"  # no slash is lost
    for _ in range(2):
        frames = list(video)
        np.testing.assert_allclose([frame.time for frame in frames], np.arange(10) / 10, atol=2e-3)
    np.testing.assert_allclose(frames[3].image.pixels[10, 10], RED, atol=8)


def test_a_network_camera_is_live(server):
    video = open_video(f"{server}/camera")
    assert (video.live, video.count) == (True, None)
    result = []
    with pytest.raises(OSError, match="camera broke off after 5 frames"):  # what came is given first
        result.extend(predict_video(StandIn(), video))
    assert len(result) == 5
    assert result[0].track_ids.tolist() == [1, 2]


def test_the_command_reads_addresses(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: StandIn())
    words = ["--out", str(tmp_path / "out"), "--fov", "60", "--format", "mot,overlay"]
    assert run(["video", f"{server}/film.ts", *words]) == 0
    assert len((tmp_path / "out" / "tracks.txt").read_text(encoding="utf-8").splitlines()) == 20
    assert f"{server}/film.ts: 10 frames, 2 people" in capsys.readouterr().out


def test_what_cannot_be_reached_says_so(server, monkeypatch):
    monkeypatch.setattr(live, "OPEN_SECONDS", 1.0)
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9/film\.mp4 cannot be read: .*refused"):
        open_video("http://user:secret@127.0.0.1:9/film.mp4")
    with pytest.raises(OSError, match=r"nothing\.mp4 cannot be read: Server returned 404"):
        open_video(f"{server}/nothing.mp4")


def test_passwords_are_not_in_names():
    assert live.without_password("rtsp://me:secret@cam:554/a?b=1") == "rtsp://cam:554/a?b=1"


@pytest.mark.slow
def test_frames_are_dropped_rather_than_delayed():
    made = []

    def frames() -> Iterator:
        for frame in open_video([picture()] * 40):
            made.append(frame.number)
            yield frame
            time.sleep(0.01)

    source = Video("fast", 100.0, None, True, frames)
    numbers = []
    for frame in latest_frames(source):
        assert made[-1] - frame.number <= 1  # the newest there was
        numbers.append(frame.number)
        time.sleep(0.08)
    assert numbers == sorted(set(numbers))
    assert len(numbers) < 20
    assert numbers[-1] == 39


def test_errors_of_a_live_source_reach_its_reader():
    def frames() -> Iterator:
        yield from open_video([picture()] * 2)
        raise OSError("unplugged")

    seen = []
    with pytest.raises(OSError, match="unplugged"):
        seen.extend(latest_frames(Video("bad", 30.0, None, True, frames)))
    assert seen
