"""multihmr bench: how fast a model is."""

from __future__ import annotations

import argparse

from .flags import ints, model_flags


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--people", type=ints, default="1,10", help="numbers of people; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=20, help="how often each; default: %(default)s")
    parser.add_argument("--image", metavar="PATH", help="default: noise of 640x480")
    parser.add_argument("--no-vit", action="store_true", help="leave out Multi-HMR on DINOv2 ViT-S/14")
    model_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Time a model and print the table."""
    from ..evaluation import speed

    timings = speed.run(
        args.model,
        people=args.people,
        rounds=args.rounds,
        device=args.device,
        image=args.image,
        vit=not args.no_vit,
    )
    print(speed.table(timings))
    return 0
