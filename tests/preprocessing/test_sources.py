from __future__ import annotations

import base64
import contextlib
import io
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multihmr.preprocessing import sources
from multihmr.preprocessing.image import load_image, read_image
from multihmr.preprocessing.sources import as_url, is_public, read_list, read_stdin, read_url

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    return file.getvalue()


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/a.png":
            return self.answer(png())
        if path == "/moved":
            return self.answer(b"", 302, {"Location": "/a.png"})
        if path == "/to-file":
            return self.answer(b"", 302, {"Location": "file:///etc/passwd"})
        if path == "/to-ftp":
            return self.answer(b"", 302, {"Location": "ftp://127.0.0.1/a.png"})
        if path == "/round":
            return self.answer(b"", 302, {"Location": "/round"})
        if path == "/short":
            return self.answer(png()[:50], 200, {"Content-Length": "5000"})
        if path == "/slow":
            self.answer(b"", 200, {"Content-Length": "100000"})
            for _ in range(40):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
            return None
        if path == "/endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(64):
                self.wfile.write(bytes(1 << 16))
            return None
        return self.answer(b"nothing", 404)

    def answer(self, body: bytes, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the reader goes away, as it should
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_addresses_are_read_as_files_are(site: str) -> None:
    for form in (f"{site}/a.png", Path(f"{site}/a.png"), f"{site}/moved", f"{site}/a.png?size=1#top"):
        np.testing.assert_array_equal(read_image(form), PIXELS)
    assert load_image(f"{site}/a.png?x=1").name == "a.png"
    assert as_url(Path("https://host/a.jpg")) == "https://host/a.jpg"
    assert as_url("https:/host/a.jpg") == "https://host/a.jpg"
    assert as_url("pictures/a.jpg") is as_url("http") is None


def test_addresses_that_cannot_be_read_are_told_in_a_sentence(site: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"/nothing\.png cannot be read: the server answers 404"):
        load_image(f"{site}/nothing.png")
    with pytest.raises(ConnectionError, match=r"cannot be read: .*broke off after 50 of 5000 bytes"):
        load_image(f"{site}/short")
    with pytest.raises(ConnectionError, match=r"infinite loop|redirect"):
        load_image(f"{site}/round")
    with pytest.raises(ConnectionError, match="is not allowed"):
        load_image(f"{site}/to-file")
    with pytest.raises(ValueError, match="no web address"):
        load_image(f"{site}/to-ftp")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionError, match=r"cannot be read: .*refused"):
            load_image(f"http://127.0.0.1:{unused.getsockname()[1]}/a.png")


def test_downloads_have_limits_of_size_and_time(site: str) -> None:
    with pytest.raises(ValueError, match=r"has more than 0\.5 MB"):
        read_url(f"{site}/endless", max_bytes=1 << 19)
    with pytest.raises(ValueError, match="has more than"):
        read_url(f"{site}/a.png", max_bytes=100)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"takes longer than 0\.3 s"):
        read_url(f"{site}/slow", timeout=0.3)
    assert time.monotonic() - start < 2


def test_addresses_of_the_local_network_are_refused_where_asked(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_url(f"{site}/a.png") == png()
    for url in (f"{site}/a.png", site.replace("127.0.0.1", "localhost") + "/a.png"):
        with pytest.raises(ValueError, match=r"refused: .* of this machine or of a local network"):
            read_url(url, public_only=True)
    # a name that leads to a public and a private address, and a public server that redirects to a private one
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (ip, 80)) for ip in ("8.8.8.8", "10.0.0.1")]
    )
    with pytest.raises(ValueError, match="refused"):
        read_url("http://example.com/a.png", public_only=True)
    monkeypatch.undo()
    monkeypatch.setattr(sources, "is_public", lambda address: calls.append(address) or len(calls) == 1)
    calls: list[str] = []
    with pytest.raises(ValueError, match="refused"):
        read_url(f"{site}/moved", public_only=True)
    assert calls == ["127.0.0.1", "127.0.0.1"]  # asked again after the redirection


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *[(a, False) for a in ("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.9.9", "169.254.169.254")],
        *[(a, False) for a in ("0.0.0.0", "100.64.0.1", "224.0.0.1", "::1", "fe80::1%eth0", "fd00::1")],
        *[(a, False) for a in ("::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "::")],
        *[(a, True) for a in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")],
    ],
)
def test_what_is_a_public_address(address: str, public: bool) -> None:
    assert is_public(address) == public


def test_data_uris_and_base64_text() -> None:
    text = base64.b64encode(png()).decode()
    wrapped = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    safe = base64.urlsafe_b64encode(png()).decode().rstrip("=")
    for form in (text, wrapped, safe, f"data:image/png;base64,{text}", f"DATA:;base64,{safe}"):
        np.testing.assert_array_equal(read_image(form), PIXELS)
    percent = "data:image/png," + "".join(f"%{byte:02x}" for byte in png())
    np.testing.assert_array_equal(read_image(percent), PIXELS)
    for form, reason in (
        ("data:image/png;base64", "no comma"),
        ("data:image/png;base64,???", "base64 is damaged"),
        (base64.b64encode(b"no picture at all" * 500).decode(), "no picture of a known format"),
        ("not base64! " * 400, "neither a path nor the base64 text|does not exist"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=reason) as error:
            read_image(form)
        assert len(str(error.value)) < 250


def test_a_file_whose_name_could_be_base64_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a" * 100
    Path(name).write_bytes(png())
    np.testing.assert_array_equal(read_image(name), PIXELS)
    for missing in ("b" * 100, "pictures/" * 10 + "ab"):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            read_image(missing)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Piped:
        def __init__(self, data: bytes) -> None:
            self.buffer = io.BytesIO(data)

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stdin", Piped(png()))
    np.testing.assert_array_equal(read_image(read_stdin()), PIXELS)
    with pytest.raises(ValueError, match="empty"):
        read_stdin()
    monkeypatch.setattr("sys.stdin", Piped(bytes(200)))
    with pytest.raises(ValueError, match="more than"):
        read_stdin(max_bytes=100)


def test_lists_of_images(tmp_path: Path) -> None:
    (tmp_path / "é.png").write_bytes(png())
    content = "# pictures\n\né.png\nhttps://host/a.jpg\n/elsewhere/b.jpg\n"
    (tmp_path / "list.txt").write_text(content, encoding="utf-8-sig")
    expected = [str(tmp_path / "é.png"), "https://host/a.jpg", "/elsewhere/b.jpg"]
    assert read_list(tmp_path / "list.txt") == expected
    (tmp_path / "list.txt").write_bytes(png())
    with pytest.raises(ValueError, match="no list of images"):
        read_list(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("# none\n", encoding="utf-8")
    with pytest.raises(ValueError, match="names no images"):
        read_list(tmp_path / "list.txt")
