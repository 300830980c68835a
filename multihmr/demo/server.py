"""Serve the web demo on an address of this machine; needs the extra `demo`.

Nothing leaves the machine. Uploads are in a temporary folder that only this user can read, with a folder per
visitor; they are deleted when the browser tab closes, after an hour without use, and when the server ends.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr

from .app import Page
from .sessions import Models, Sessions
from .video import SUFFIXES as VIDEO_SUFFIXES

LARGEST = 100  # [MiB] of one upload
_HERE = Path(__file__)


def example_files() -> list[Path]:
    """Example pictures and videos in a checkout; none in an installed package."""
    folder = _HERE.resolve().parents[2] / "examples" / "images"
    shown = (".jpg", ".png", *VIDEO_SUFFIXES)
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in shown)


@contextmanager
def running(
    models: Models, *, host: str = "127.0.0.1", port: int | None = None, largest: int = LARGEST
) -> Iterator[str]:
    """Context that serves the page and yields its address; files of visitors are deleted at its end.

    Args:
        models: offered models; the first is loaded before the page opens.
        host: "127.0.0.1" for this machine only, "0.0.0.0" for every machine that can reach it.
        port: None takes a free one from 7860 on.
        largest: size limit of an upload [MiB].

    Raises:
        OSError: the port is taken, or the host is not an address of this machine.
        Errors of `load_model`.
    """
    _check_address(host, port)
    with TemporaryDirectory(prefix="multihmr-") as folder, _gradio_keeps_files_in(folder):
        page = Page(models, Path(folder), example_files())
        over = threading.Event()
        try:
            _launch(page.blocks, host, port, largest)
            threading.Thread(target=_end_idle_sessions, args=(page.sessions, over), daemon=True).start()
            yield str(page.blocks.local_url)
        finally:
            over.set()
            page.blocks.close(verbose=False)


def _end_idle_sessions(sessions: Sessions, over: threading.Event) -> None:
    while not over.wait(60):
        sessions.end_idle()


def _launch(blocks: gr.Blocks, host: str, port: int | None, largest: int) -> None:
    theme = gr.themes.Base(
        primary_hue="slate",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],  # none that would be fetched
        font_mono=["ui-monospace", "monospace"],
    ).set(  # contrast of secondary text at least 4.5:1 (WCAG AA); gradio's slate-400 has 2.6:1
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
    )
    blocks.launch(
        server_name=host,
        server_port=port,
        max_file_size=largest * 2**20,
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        theme=theme,
        css_paths=_HERE.with_name("app.css"),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )


def _check_address(host: str, port: int | None) -> None:
    """Raise OSError if the address cannot be used; gradio would try a hundred ports first."""
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port or 0))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        where = f"{host}, port {port}" if port else host
        raise OSError(f"the page cannot be served at {where}: {reason}; give another port or host") from None


@contextmanager
def _gradio_keeps_files_in(folder: str) -> Iterator[None]:
    """Context in which gradio stores uploads in a folder, which only its environment variable sets."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before
