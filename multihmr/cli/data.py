"""multihmr data list | check: known data sets, and whether a copy of one is complete."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import file_path, positive
from .main import clean, fail, people_text, plural


def add_flags(parser: argparse.ArgumentParser) -> None:
    from ..data import DATASETS

    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="list the known data sets, and where to register for them")
    check = verbs.add_parser(
        "check", help="list what is missing of a data set, or else draw some of its samples"
    )
    check.add_argument("name", metavar="NAME", help=f"one of {', '.join(sorted(DATASETS))}")
    check.add_argument("root", type=file_path, metavar="ROOT", help="folder with its files")
    check.add_argument("--split", help="split (default: the first of the data set)")
    check.add_argument(
        "--count", type=positive, default=10, help="number of samples to draw (default: %(default)s)"
    )
    check.add_argument("--out", type=file_path, metavar="DIR", help="output folder (default: NAME-check)")
    check.add_argument(
        "--cache", type=file_path, metavar="DIR", help="folder of the index (default: ROOT/.multihmr)"
    )
    check.add_argument(
        "--bodies", type=file_path, metavar="DIR", help="folder with SMPL-X and SMPL files (default: ROOT)"
    )


def run(args: argparse.Namespace) -> int:
    """List the data sets, or check one."""
    from ..data import DATASETS, dataset_class

    if args.verb == "list":
        for name in sorted(DATASETS):
            about = dataset_class(name).about
            print(f"{name}  {about.title}, {about.licence}, {about.size}: {about.register}")
        return 0
    kind = dataset_class(args.name)
    missing = kind.missing(args.root, args.split)
    if missing:
        print(clean(kind.about.how_to_get()))
        return fail("\n  ".join([f"{args.name} is not complete:", *missing]))
    from ..evaluation.visualize_ground_truth import Bodies, save_truth
    from ..storage.paths import cache_folder

    reader = kind(args.root, args.split, cache=args.cache)  # warns of what was left out
    counts = f"{plural(len(reader), 'sample')}, {people_text(reader.records.people)}"
    print(f"{args.name} {reader.split}: {counts}")
    if not len(reader):
        return fail(f"{args.name} has no usable sample")
    bodies = Bodies(args.bodies or args.root, args.root, cache_folder())
    out = args.out or Path(f"{args.name}-check")
    drawn = save_truth(reader, out, bodies, args.count)
    print(clean(f"{plural(len(drawn), 'picture')} with ground truth in {out}"))
    for body, reason in bodies.lacking.items():
        print(clean(f"  without the mesh of {body}: {reason}"))
    return 0
