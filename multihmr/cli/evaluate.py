"""multihmr evaluate: measure a model on benchmarks."""

from __future__ import annotations

import argparse
import sys

from .arguments import (
    any_rotation_flag,
    chosen_load_options,
    closeups_flag,
    file_path,
    flip_test_flag,
    hands_and_faces_flag,
    limbs_flag,
    loading_flags,
    positive,
    tiles_flag,
    words,
)
from .main import EXPECTED, clean, fail, format_error


def add_flags(parser: argparse.ArgumentParser) -> None:
    from ..evaluation.benchmarks import BENCHMARKS, SYNTH_TEST

    parser.add_argument(
        "--data",
        type=words,
        default=SYNTH_TEST,
        help=f"some of {', '.join((*BENCHMARKS, SYNTH_TEST))}, folders of shards, or "
        "coco@FOLDER or coco@FILE.json: photographs with people labelled in COCO's format "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--root",
        type=file_path,
        metavar="DIR",
        help="folder of the data sets, each in DIR/NAME (default: none)",
    )
    parser.add_argument(
        "--assets",
        type=file_path,
        metavar="DIR",
        help="MakeHuman's assets and captured poses that synth-test is rendered from (default: shared/assets "
        "beside the checkout, if it is there)",
    )
    parser.add_argument(
        "--count", type=positive, metavar="N", help="only the first N images of each (default: all)"
    )
    parser.add_argument(
        "--every", type=positive, default=1, metavar="N", help="only every N-th image (default: all)"
    )
    parser.add_argument(
        "--out",
        type=file_path,
        metavar="DIR",
        help="for tables, people and the worst images; an interrupted run resumes there (default: none)",
    )
    parser.add_argument("--threshold", type=float, help="least score of a person (default: the model's own)")
    tiles_flag(parser)
    flip_test_flag(parser)
    closeups_flag(parser)
    limbs_flag(parser)
    any_rotation_flag(parser)
    hands_and_faces_flag(parser)
    parser.add_argument(
        "--predict-camera",
        action="store_true",
        help="let the model predict the camera, too (default: it is given the true one)",
    )
    loading_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Measure a model on each benchmark and print the table; those that cannot be are listed at the end."""
    from ..evaluation.photographs.run import data_name, measure_data
    from ..evaluation.results import in_encoding, save_all, table
    from ..evaluation.runner import Plan, Protocol, devices_of
    from ..preprocessing.options import check_options

    check_options(None, args.threshold, None, args.tiles)
    protocol = Protocol(
        given_camera=not args.predict_camera,
        threshold=args.threshold,
        tiles=args.tiles,
        flip_test=args.flip_test,
        hands_and_faces=args.hands_and_faces,
        any_rotation=args.any_rotation,
        closeups=not args.no_closeups,
        limbs=not args.no_limbs,
    )
    loading = chosen_load_options(args)
    results, failed = [], []
    for data in args.data:
        plan = Plan(data, args.root, args.count, args.every, protocol, args.assets, loading)
        out = args.out and args.out / data_name(data)
        devices = devices_of(args.device)
        try:
            results.append(
                measure_data(args.model, plan, out=out, devices=devices, progress=sys.stderr.isatty())
            )
        except EXPECTED as error:
            if len(args.data) == 1:
                raise
            failed.append(f"{data}: {format_error(error)}")
    if results:
        print(in_encoding(table(results), sys.stdout.encoding))
        if args.out:
            save_all(results, args.out)
    if failed:
        fail(f"{len(results)} of {len(args.data)} measured; these were not:")
        for line in failed:
            print(clean(f"  {line}"), file=sys.stderr)
    return 1 if failed else 0
