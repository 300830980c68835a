"""`multihmr predict` on images that are no files."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toys import tiny_anny_model

from multihmr.cli import main as cli
from multihmr.cli import predict


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def site() -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.partition("?")[0] == "/people%20at%20work.png"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(png() if found else b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_addresses_lists_and_standard_input(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Piped:
        buffer = io.BytesIO(png())

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: tiny_anny_model())
    monkeypatch.setattr("sys.stdin", Piped())
    (tmp_path / "a.png").write_bytes(png())
    uri = "data:image/png;base64," + base64.b64encode(png()).decode()
    (tmp_path / "list.txt").write_text(f"# some\na.png\n{uri}\n", encoding="utf-8")
    sources = [f"{site}/people%20at%20work.png?size=large", str(tmp_path / "list.txt"), "-", f"{site}/b.png"]
    out = tmp_path / "out"
    assert cli.run(["predict", *sources, "--out", str(out), "--format", "npz", "--threshold", "0"]) == 1
    written = sorted(path.name for path in out.glob("*.npz"))
    assert written == ["a.npz", "image.npz", "people at work.npz", "stdin.npz"]
    shown = capsys.readouterr()
    assert "4 of 5 done" in shown.err
    assert f"{site}/b.png cannot be read: the server answers 404" in shown.err
    assert max(map(len, shown.out.splitlines())) < 300  # the data URI is not printed in full


def test_a_list_that_is_none_is_told(tmp_path: Path) -> None:
    images, bad = predict.find_images([str(tmp_path / "no.txt")])
    assert not images
    assert len(bad) == 1
    assert "no.txt" in bad[0][1]


def test_a_link_in_a_circle_and_a_name_too_long_spoil_no_others(tmp_path: Path) -> None:
    circle, good = tmp_path / "circle.jpg", tmp_path / "good.jpg"
    circle.symlink_to(circle)
    good.write_bytes(b"content")
    long = "x" * 300 + ".jpg"
    images, bad = predict.find_images([str(circle), long, str(good)])
    assert good in images
    assert "too long" in dict(bad)[long]
