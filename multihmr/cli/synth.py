"""multihmr synth: pictures to learn from, into shards."""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the shards")
    parser.add_argument("--n", type=int, required=True, help="how many pictures")
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed, other pictures; default: %(default)s"
    )
    parser.add_argument("--size", type=int, default=448, help="their side in pixels; default: %(default)s")
    parser.add_argument("--per-shard", type=int, default=500, help="pictures a file; default: %(default)s")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes; default: all cores"
    )
    parser.add_argument(
        "--split",
        choices=("train", "test", "all"),
        default="train",
        help="whose clothes, skins, hair and motions; default: %(default)s",
    )
    parser.add_argument(
        "--closeup", action="store_true", help="only people about 2.5 m away, hands to be seen"
    )
    parser.add_argument("--device", default="cpu", help="cpu, one thread a process, or cuda:0")
    parser.add_argument(
        "--assets", type=Path, metavar="DIR", help="MakeHuman's clothes, skins, hair and poses"
    )
    parser.add_argument("--backgrounds", type=Path, metavar="DIR", help="folder of pictures to stand before")


def run(args: argparse.Namespace) -> int:
    """Render pictures with exact truth into shards."""
    from PIL import Image

    from ..data.synthetic.dataset import find_assets
    from ..data.synthetic.generate import Recipe, contact_sheet, write_shards
    from ..data.webdataset import Shards

    recipe = Recipe(
        args.seed,
        args.size,
        split=args.split,
        closeups=1.0 if args.closeup else None,
        assets=args.assets,
        backgrounds=args.backgrounds,
        device=args.device,
    )
    if find_assets(args.assets) is None:
        print("no folder of clothes and poses (--assets): people wear painted clothes, see the README")
    shards = write_shards(
        args.out, args.n, recipe, per_shard=args.per_shard, workers=args.workers, progress=True
    )
    sheet = args.out / "contact_sheet.jpg"
    Image.fromarray(contact_sheet(itertools.islice(Shards(args.out), 48))).save(sheet, quality=90)
    print(f"{len(shards)} shards in {args.out}; look at {sheet}")
    return 0
