"""multihmr bench: measure the speed of a model."""

from __future__ import annotations

import argparse
import sys

from .arguments import ints, model_flags, positive, words


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--people",
        type=people,
        default="1,10",
        help="numbers of people to force; 'found': as many as the model finds (default: %(default)s)",
    )
    parser.add_argument("--batch", type=ints, default="1", help="images at once (default: %(default)s)")
    parser.add_argument(
        "--size", type=ints, help="sides of the square input in pixels (default: the model's own)"
    )
    parser.add_argument(
        "--dtype", type=words, help="float32, float16, bfloat16 (default: float16 on a GPU, else float32)"
    )
    parser.add_argument(
        "--backend", type=words, default="eager", help="as load_model takes it (default: %(default)s)"
    )
    parser.add_argument(
        "--padding",
        type=words,
        default="whole",
        help="whole, thin, as load_model takes it (default: %(default)s)",
    )
    parser.add_argument(
        "--calibrate", metavar="FOLDER", help="of images, for --backend openvino-int8 (default: none)"
    )
    parser.add_argument(
        "--rounds", type=positive, default=20, help="how often each is timed (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, help="of torch (default: as torch chooses)")
    parser.add_argument("--image", metavar="PATH", help="image to predict (default: noise of 640x480)")
    parser.add_argument(
        "--vit",
        type=vits,
        default="dinov2_vits14@448",
        metavar="BACKBONE@SIZE",
        help="Multi-HMR with random weights to time, too, joined by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--no-vit",
        action="store_const",
        const=[],
        dest="vit",
        help="time no model with random weights (default: time them)",
    )
    parser.add_argument("--no-draw", action="store_true", help="do not time drawing (default: time it)")
    parser.add_argument(
        "--no-memory", action="store_true", help="do not measure memory (default: measure it)"
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the result as JSON, of the rounds so far after each (default: none)",
    )
    parser.add_argument(
        "--compare", metavar="FILE", help="compare with the result of an earlier --json (default: none)"
    )
    model_flags(parser)


def people(text: str) -> list[int | None]:
    """ "found,1,10" as [None, 1, 10]."""
    return [None if word == "found" else ints(word)[0] for word in words(text)]


def vits(text: str) -> list[tuple[str, int]]:
    """ "dinov2_vits14@448,dinov2_vitl14@896" as pairs."""
    found = []
    for word in words(text):
        backbone, at, size = word.partition("@")
        if not at:
            raise argparse.ArgumentTypeError(f"{word!r} must be BACKBONE@SIZE, as dinov2_vits14@448")
        found += [(backbone, side) for side in ints(size)]
    return found


def run(args: argparse.Namespace) -> int:
    """Time a model and print the tables; of the rounds so far if Ctrl-C ends it."""
    from ..evaluation.speed import benchmark as speed
    from ..evaluation.speed import models as speed_models
    from ..evaluation.speed import report as speed_report
    from ..evaluation.speed.machine import threads

    before = speed_report.Speed.load(args.compare) if args.compare else None  # before an hour of measuring
    plan = speed_models.Plan(
        people=tuple(args.people),
        batches=tuple(args.batch),
        sizes=tuple(args.size or [None]),
        dtypes=tuple(args.dtype or ()),
        backends=tuple(args.backend),
        paddings=tuple(args.padding),
        calibrate=args.calibrate,
        rounds=args.rounds,
        draw=not args.no_draw,
        memory=not args.no_memory,
    )
    so_far: list[speed_report.Speed] = []

    def keep(measured: speed_report.Speed) -> None:
        so_far[:] = [measured]
        if args.json:
            measured.save(args.json)

    progress = speed.Progress(lambda line: print(line, file=sys.stderr, flush=True), keep)
    try:
        with threads(args.threads):
            measured = speed.run(
                args.model, plan, device=args.device, image=args.image, vits=args.vit, progress=progress
            )
    except KeyboardInterrupt:
        if so_far:
            print(speed_report.table(so_far[0]))
        raise
    print(speed_report.table(measured))
    if before:
        print(f"\nSince {args.compare}:\n")
        print(speed_report.compared(before, measured))
    return 0
