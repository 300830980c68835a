"""multihmr data list | check: data sets, and whether one is complete."""

from __future__ import annotations

import argparse
from pathlib import Path

from .main import clean, fail


def add_flags(parser: argparse.ArgumentParser) -> None:
    from ..data import DATASETS

    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="the data sets that are known by name, and where to register for them")
    check = verbs.add_parser("check", help="say what is missing of a data set, else draw some of its samples")
    check.add_argument("name", metavar="NAME", help=f"one of {', '.join(sorted(DATASETS))}")
    check.add_argument("root", type=Path, metavar="ROOT", help="the folder with its files")
    check.add_argument("--split", help="default: the data set's first")
    check.add_argument("--count", type=int, default=10, help="samples to draw; default: %(default)s")
    check.add_argument("--out", type=Path, metavar="DIR", help="for the pictures; default: NAME-check")
    check.add_argument("--cache", type=Path, metavar="DIR", help="for the index; default: ROOT/.multihmr")
    check.add_argument("--bodies", type=Path, metavar="DIR", help="with your SMPL-X and SMPL files")


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

    reader = kind(args.root, args.split, cache=args.cache)  # its warnings say what was left out
    print(f"{args.name} {reader.split}: {len(reader)} samples, {reader.records.people} people")
    if not len(reader):
        return fail(f"{args.name} has no sample that can be used")
    bodies = Bodies(args.bodies or args.root, args.root, cache_folder())
    out = args.out or Path(f"{args.name}-check")
    drawn = save_truth(reader, out, bodies, args.count)
    print(f"{len(drawn)} pictures with their truth in {out}; look at them")
    for body, reason in bodies.lacking.items():
        print(clean(f"  without the mesh of {body}: {reason}"))
    return 0
