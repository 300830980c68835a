"""The page on an address of this machine, for as long as a block runs; needs the extra `demo`.

Nothing leaves the machine. Uploads lie in a temporary folder that only this user can read, each visitor's
apart; they go when the browser tab closes, after an hour without use, and all of them in the end.
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
from .sessions import Models, Visits
from .video import SUFFIXES as VIDEO_SUFFIXES

LARGEST = 100  # megabytes (2**20 bytes) of one upload
_HERE = Path(__file__)


def example_files() -> list[Path]:
    """Pictures and videos that lie in a checkout beside the package; none in an installed one."""
    folder = _HERE.resolve().parents[2] / "examples" / "images"
    shown = (".jpg", ".png", *VIDEO_SUFFIXES)
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in shown)


@contextmanager
def running(
    models: Models, *, host: str = "127.0.0.1", port: int | None = None, largest: int = LARGEST
) -> Iterator[str]:
    """Serve the page until the block ends; gives its address. All files of visitors are deleted then.

    Args:
        models: what it offers; the first is loaded before the page opens.
        host: who may open it: "127.0.0.1" this machine alone, "0.0.0.0" whoever can reach it.
        port: None takes a free one from 7860 on.
        largest: megabytes of one upload.

    Raises OSError if the port is taken or the host is none of this machine's, and what `load_model` raises.
    """
    _check_address(host, port)
    with TemporaryDirectory(prefix="multihmr-") as folder, _gradio_keeps_files_in(folder):
        page = Page(models, Path(folder), example_files())
        over = threading.Event()
        try:
            _launch(page.blocks, host, port, largest)
            threading.Thread(target=_end_idle_visits, args=(page.visits, over), daemon=True).start()
            yield str(page.blocks.local_url)
        finally:
            over.set()
            page.blocks.close(verbose=False)


def _end_idle_visits(visits: Visits, over: threading.Event) -> None:
    while not over.wait(60):
        visits.end_idle()


def _launch(blocks: gr.Blocks, host: str, port: int | None, largest: int) -> None:
    theme = gr.themes.Base(
        primary_hue="slate",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],  # none that would be fetched
        font_mono=["ui-monospace", "monospace"],
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
    """OSError if nothing can listen there; gradio would try a hundred ports first, and loudly."""
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
    """Uploads go there; gradio can be told by the environment alone."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before
