"""People of a frame as one line of JSON, written to a file or to clients of a WebSocket.

    {"format": "multihmr-live-1", "frame": 12, "time": 0.4, "latency": 0.05, "dropped": 1,
     "image": {"width": 640, "height": 480}, "K": [[...], ...], "body": "anny", "people": [...]}

People are as in the .json files of pictures (`humans_to_json`); metres, camera frame.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from ..io.records import person_record
from .ports import listening_error
from .run import LiveFrame

FORMAT = "multihmr-live-1"
_LOCAL_PAGES = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")


def live_record(result: LiveFrame) -> dict[str, Any]:
    """What is known of a frame, of plain numbers and text."""
    humans, frame = result.humans, result.frame
    height, width = humans.image_size
    return {
        "format": FORMAT,
        "frame": frame.number,
        "time": round(frame.time, 4),
        "latency": round(result.latency, 4),
        "dropped": result.dropped,
        "image": {"width": width, "height": height},
        "K": humans.K.astype(float).round(3).tolist(),
        **({} if humans.distortion is None else {"distortion": humans.distortion.to_json()}),
        "body": humans.body,
        "people": [person_record(person) for person in humans],
    }


def live_line(result: LiveFrame) -> str:
    """The record as JSON on one line, without its end."""
    return json.dumps(live_record(result), allow_nan=False, separators=(",", ":"))


class JsonLines:
    """Writes a line per frame to a file, or to standard output if the path is "-"."""

    def __init__(self, path: Path | str) -> None:
        self._file: TextIO = sys.stdout if str(path) == "-" else Path(path).open("w", encoding="utf-8")  # noqa: SIM115

    def send(self, result: LiveFrame) -> None:
        """Write the line at once, so that readers of the file are not behind."""
        self._file.write(live_line(result) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not sys.stdout:
            self._file.close()


class WebSocketOutput:
    """A WebSocket server whose clients get each frame's record as a text message; slow ones miss frames.

    It listens on this machine, and takes programs and pages of this machine as clients: any other page in a
    browser could read along otherwise.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        try:
            from websockets.sync.server import serve
        except ImportError as error:
            raise ImportError("--websocket needs websockets: pip install 'multihmr[live]'") from error
        self._new = threading.Condition()
        self._line, self._number, self._ended = "", 0, False
        try:
            self._server = serve(self._serve_client, host, port, origins=[None, _LOCAL_PAGES])
        except OSError as error:
            raise listening_error("WebSocket", port, error) from error
        self.port: int = self._server.socket.getsockname()[1]
        self.address = f"ws://{host}:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True, name="websocket").start()

    def _serve_client(self, client: Any) -> None:
        from websockets.exceptions import ConnectionClosed
        from websockets.protocol import State

        sent = self._number
        with contextlib.suppress(ConnectionClosed, OSError):
            while True:
                with self._new:
                    while self._number == sent and not self._ended:
                        if not self._new.wait(timeout=1) and client.state is not State.OPEN:
                            return
                    if self._ended:
                        return
                    line, sent = self._line, self._number
                client.send(line)

    def send(self, result: LiveFrame) -> None:
        """Offer the record to the clients that are ready for one."""
        line = live_line(result)
        with self._new:
            self._line, self._number = line, self._number + 1
            self._new.notify_all()

    def close(self) -> None:
        """Disconnect all clients and stop listening."""
        with self._new:
            self._ended = True
            self._new.notify_all()
        self._server.shutdown()
