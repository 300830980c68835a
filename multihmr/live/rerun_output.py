"""People of a live source in Rerun: in its viewer, or in an .rrd."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..visualization.rerun_recording import Viewer, record
from .run import LiveFrame


class RerunOutput:
    """Logs each frame to a recording that is written to `path`, shown in a viewer, or both."""

    def __init__(self, path: Path | None = None, viewer: Viewer | None = None) -> None:
        self._stack = contextlib.ExitStack()
        self._recording = self._stack.enter_context(record(path, viewer))

    def send(self, result: LiveFrame) -> None:
        """Log the frame."""
        frame = result.frame
        result.humans.to_rerun(frame.image, recording=self._recording, frame=frame.number, time=frame.time)

    def close(self) -> None:
        """End the recording."""
        self._stack.close()
