"""multihmr live: the people of a camera or stream as they move, in the browser and sent to other programs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import (
    camera_flags,
    check_distortion,
    distortion_flag,
    file_path,
    hands_and_faces_flag,
    limbs_flag,
    load_chosen,
    loading_flags,
    port,
    positive,
    tiles_flag,
)
from .main import fail, people_text, progress_bar

if TYPE_CHECKING:
    from ..live.run import LiveStatistics
    from ..model import Model

PORT = 7870  # of the page


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        nargs="?",
        default="0",
        metavar="SOURCE",
        help="index of a webcam, an address (rtsp://, http://, ...), or a video or folder of pictures, "
        "which is played at its own speed (default: webcam %(default)s)",
    )
    _output_flags(parser)
    parser.add_argument(
        "--seconds", type=float, help="end after so many seconds (default: with the source, or by Ctrl-C)"
    )
    camera_flags(parser, "of the source")
    distortion_flag(parser)
    parser.add_argument(
        "--threshold", type=float, help="least score of a new person, 0 to 1 (default: that of the model)"
    )
    tiles_flag(parser)
    hands_and_faces_flag(parser)
    limbs_flag(parser)
    parser.add_argument(
        "--no-smoothing", action="store_true", help="keep the motion as predicted (default: smooth)"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print errors only (default: progress and a summary)"
    )
    loading_flags(parser)


def _output_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-page", action="store_true", help="serve no page for the browser (default: serve one)"
    )
    parser.add_argument("--port", type=port, default=PORT, help="of the page (default: %(default)s)")
    parser.add_argument(
        "--jsonl",
        metavar="FILE",
        help="write a line of JSON per frame; - for standard output (default: none)",
    )
    parser.add_argument(
        "--websocket",
        type=port,
        metavar="PORT",
        help="serve the same lines to WebSocket clients on this machine (default: none)",
    )
    parser.add_argument(
        "--osc", type=host_port, metavar="HOST:PORT", help="send keypoints by OSC (default: none)"
    )
    parser.add_argument(
        "--vmc",
        type=host_port,
        metavar="HOST:PORT",
        help="send an avatar's motion by VMC; receivers listen on port 39539 or 39540 (default: none)",
    )
    parser.add_argument(
        "--vmc-people",
        type=positive,
        default=1,
        metavar="N",
        help="people to send by VMC, to as many ports from PORT on (default: %(default)s)",
    )
    parser.add_argument(
        "--rerun", type=file_path, metavar="FILE", help="write an .rrd, which grows with time (default: none)"
    )
    parser.add_argument(
        "--rerun-viewer",
        action="store_true",
        help="show the people in the window of the Rerun viewer (default: not)",
    )


def host_port(text: str) -> tuple[str, int]:
    """HOST:PORT, or PORT alone for this machine."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected HOST:PORT, as 127.0.0.1:39539")
    return host.strip("[]") or "127.0.0.1", int(port)


def run(args: argparse.Namespace) -> int:
    """Predict until the source, the time or Ctrl-C ends it, and print counts and latency."""
    from ..live.run import predict_live, run_live
    from ..preprocessing.options import check_options
    from ..video.one_euro import Smoothing
    from ..video.reader import open_video
    from ..video.tracker import LIVE, Tracking

    check_options(args.fov, args.threshold, None, args.tiles)
    check_distortion(args)
    if args.seconds is not None and not args.seconds > 0:
        raise ValueError(f"--seconds must be greater than 0, got {args.seconds:g}")
    is_webcam = args.source.isascii() and args.source.isdecimal() and not Path(args.source).exists()
    video = open_video(int(args.source) if is_webcam else args.source)
    with contextlib.ExitStack() as stack:
        early = _open_outputs(args, stack)
        model = load_chosen(args)
        outputs = early + _body_outputs(args, stack, model)
        smoothing = None if args.no_smoothing else Smoothing()
        tracking = Tracking(lookahead=LIVE.lookahead, fill=LIVE.fill, smoothing=smoothing)
        names = ("K", "fov", "threshold", "tiles", "distortion", "hands_and_faces")
        options = {name: getattr(args, name) for name in names} | {"limbs": not args.no_limbs}
        results = predict_live(model, video, tracking=tracking, **options)
        bar = stack.enter_context(progress_bar(args, unit="frame", desc="live"))

        def progress(statistics: LiveStatistics) -> None:
            bar.set_postfix_str(
                f"{statistics.latency():.2f} s behind, {statistics.dropped} dropped", refresh=False
            )
            bar.update()

        statistics = run_live(results, outputs, seconds=args.seconds, progress=progress)
    if not args.quiet:
        out = sys.stderr if args.jsonl == "-" else sys.stdout
        print(f"{video.name}: {statistics}; {people_text(len(statistics.people))}", file=out)
    return 0 if statistics.problem is None else fail(str(statistics.problem))


def _open_outputs(args: argparse.Namespace, stack: contextlib.ExitStack) -> list[Any]:
    """The outputs that need no model, so that what is missing or taken is said at once."""
    outputs: list[Any] = []

    def add(output: Any) -> Any:
        stack.callback(output.close)
        outputs.append(output)
        return output

    told = sys.stderr if args.jsonl == "-" else sys.stdout
    if args.jsonl:
        from ..live.records import JsonLines

        add(JsonLines(args.jsonl))
    if args.websocket is not None:
        from ..live.records import WebSocketOutput

        print(f"WebSocket: {add(WebSocketOutput(args.websocket)).address}", file=told, flush=True)
    if args.osc:
        from ..live.osc import OscOutput

        add(OscOutput(*args.osc))
    if args.rerun or args.rerun_viewer:
        from ..live.rerun_output import RerunOutput
        from ..visualization.rerun_recording import Viewer

        add(RerunOutput(args.rerun, Viewer() if args.rerun_viewer else None))
    if not args.no_page:
        from ..live.page import LivePage

        print(f"page: {add(LivePage(args.port)).address}", file=told, flush=True)
    return outputs


def _body_outputs(args: argparse.Namespace, stack: contextlib.ExitStack, model: Model) -> list[Any]:
    if not args.vmc:
        return []
    from ..live.osc import VmcOutput

    output = VmcOutput(model.body, *args.vmc, people=args.vmc_people)
    stack.callback(output.close)
    return [output]
