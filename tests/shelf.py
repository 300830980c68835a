"""A local web server whose files misbehave as they are told."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """What a GET of one path gives."""

    data: bytes = b""
    status: int = 200
    kind: str = "application/octet-stream"
    etag: str = '"1"'
    date: str = ""
    ranges: bool = True  # or always the whole
    if_range: bool = True  # or a part of whatever is there now
    send: list[int] = field(default_factory=list)  # bytes before the 1st, 2nd ... answer breaks off
    to: str = ""  # redirect
    pause_s: float = 0.0  # between headers and body


class Shelf(ThreadingHTTPServer):
    """files: path -> Served; asked: (path, Range header) of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def put(self, name: str, data: bytes = b"", **fields: Any) -> str:
        self.files[name] = Served(data, **fields)
        return self.url(name)

    @property
    def ranges(self) -> list[str]:
        return [asked_range for _, asked_range in self.asked]


class _Handler(BaseHTTPRequestHandler):
    server: Shelf

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append((self.path, wanted))
        served = self.server.files.get(self.path[1:], Served(status=404))
        if served.to:
            self.send_response(302)
            self.send_header("Location", served.to)
            self.end_headers()
            return
        start = int(re.findall(r"\d+", wanted)[0]) if wanted and served.ranges else 0
        if served.if_range and self.headers.get("If-Range", "") not in (served.etag, served.date):
            start = 0
        if start and start >= len(served.data):
            self.send_error(416)
            return
        if served.status >= 400:
            self.send_error(served.status)
            return
        body = served.data[start:]
        self.send_response(206 if start else served.status)
        for name, value in {"ETag": served.etag, "Last-Modified": served.date}.items():
            if value:
                self.send_header(name, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(served.data) - 1}/{len(served.data)}")
        self.send_header("Content-Type", served.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        time.sleep(served.pause_s)
        self.wfile.write(body[: served.send.pop(0)] if served.send else body)


@contextmanager
def open_shelf() -> Iterator[Shelf]:
    with Shelf() as shelf:
        thread = threading.Thread(target=shelf.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield shelf
        shelf.shutdown()
        thread.join()
