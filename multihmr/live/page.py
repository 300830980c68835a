"""A page for the browser that shows the newest picture with its people, as motion JPEG."""

from __future__ import annotations

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from ..visualization.annotate import annotate
from ..visualization.draw import draw
from .ports import listening_error
from .run import LiveFrame

SIDE = 960  # pixels of the longer side of the picture, at most
QUALITY = 80  # of its JPEG
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_HTML = """<!doctype html><html lang="en"><meta charset="utf-8"><title>multihmr live</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{margin:0;background:#16181d;color:#e8e8e6;font:16px system-ui,sans-serif}
img{display:block;max-width:100vw;max-height:calc(100vh - 3rem);margin:auto}
p{margin:.75rem;text-align:center}</style>
<img src="stream.mjpg" alt="the newest picture with the people found in it">
<p id="state" role="status">waiting</p>
<script>
async function refresh() {
  try {
    const state = await (await fetch("state.json")).json();
    document.getElementById("state").textContent = state.frame === null ? "waiting for the first picture" :
      `frame ${state.frame}: ${state.people} ${state.people === 1 ? "person" : "people"}, ` +
      `${state.latency.toFixed(2)} s behind`;
  } catch { document.getElementById("state").textContent = "ended"; clearInterval(timer); }
}
const timer = setInterval(refresh, 500);
</script></html>"""


class LivePage:
    """Serves the page to browsers on this machine; pictures are drawn only while one looks."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self._new = threading.Condition()
        self._result: LiveFrame | None = None
        self._number, self._ended = 0, False
        self._drawn: tuple[int, bytes] = (0, b"")
        self._drawing = threading.Lock()
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(self))
        except OSError as error:
            raise listening_error("page", port, error) from error
        self._server.daemon_threads = True
        self.address = f"http://{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="live page")
        self._thread.start()

    def send(self, result: LiveFrame) -> None:
        """Offer the frame to the browsers that are ready for one."""
        with self._new:
            self._result, self._number = result, self._number + 1
            self._new.notify_all()

    def picture_after(self, number: int) -> tuple[int, bytes]:
        """(number, JPEG) of a picture newer than `number`, when there is one; empty at the end."""
        with self._new:
            self._new.wait_for(lambda: self._ended or self._number > number)
            if self._ended or self._result is None:
                return 0, b""
            wanted, result = self._number, self._result
        with self._drawing:  # once for all browsers
            if self._drawn[0] < wanted:
                self._drawn = (wanted, _jpeg(result))
            return self._drawn

    def state(self) -> dict[str, Any]:
        """Number of the newest frame, people and latency, for the line below the picture."""
        result = self._result
        if result is None:
            return {"frame": None}
        return {"frame": result.frame.number, "people": len(result.humans), "latency": result.latency}

    def close(self) -> None:
        """End the page."""
        with self._new:
            self._ended = True
            self._new.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def _jpeg(result: LiveFrame) -> bytes:
    picture = draw(result.humans, result.frame.image, side_views=False, max_side=SIDE)
    buffer = io.BytesIO()
    Image.fromarray(annotate(picture, result.humans, ids=True)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _handler(page: LivePage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers with the page, its state, or pictures without end."""

        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
            if host not in _LOCAL:  # a page elsewhere whose name was made to lead here
                self.send_error(403)
            elif self.path == "/":
                self._reply("text/html; charset=utf-8", _HTML.encode())
            elif self.path == "/state.json":
                self._reply("application/json", json.dumps(page.state()).encode())
            elif self.path == "/stream.mjpg":
                self._stream()
            else:
                self.send_error(404)

        def _reply(self, kind: str, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            number = 0
            try:
                while True:
                    number, picture = page.picture_after(number)
                    if not picture:
                        return
                    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}"
                    self.wfile.write(f"--frame\r\n{head}\r\n\r\n".encode() + picture + b"\r\n")
            except (BrokenPipeError, ConnectionError):
                return

        def log_message(self, *_: object) -> None:
            """No line per request."""

    return Handler
