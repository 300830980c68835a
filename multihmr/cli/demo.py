"""multihmr demo: serve the web demo."""

from __future__ import annotations

import argparse
import ipaddress
import signal
import threading
from typing import Any

from .arguments import load_options, loading_flags, port


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 for the whole network (default: %(default)s, this machine only)",
    )
    parser.add_argument("--port", type=port, help="port (default: the first free one from 7860)")
    parser.add_argument(
        "--max-upload",
        type=int,
        default=100,
        metavar="MB",
        help="size limit of an upload (default: %(default)s)",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser (default: open one)")
    loading_flags(parser)
    parser.add_argument("--share", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    if args.share:
        raise ValueError(
            "--share would send every picture through servers of Gradio, and this page keeps them on the "
            "machine; use --host 0.0.0.0 in a trusted network, or your own tunnel"
        )
    if args.max_upload < 1:
        raise ValueError(f"--max-upload must be at least 1 MB, got {args.max_upload}")
    try:
        from ..demo.server import running
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ImportError("the demo needs gradio: pip install 'multihmr[demo]'") from None
    from ..demo.sessions import Models

    signal.signal(signal.SIGTERM, _stop)  # so that uploads are deleted
    models = Models(args.model, **load_options(args))
    with running(models, host=args.host, port=args.port, largest=args.max_upload) as url:
        print(f"{url}  (Ctrl-C ends it and deletes all pictures)", flush=True)
        if not _is_loopback(args.host):
            print("Anyone who can reach this machine can use the page: there is no password.", flush=True)
        if not args.no_browser:
            import webbrowser

            webbrowser.open(url)
        threading.Event().wait()
    return 0


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
