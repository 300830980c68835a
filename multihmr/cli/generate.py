"""multihmr generate: render synthetic pictures with exact ground truth into shards."""

from __future__ import annotations

import argparse
import itertools

from ..runtime.machine_load import usable_cores
from .arguments import file_path, positive
from .main import clean, fail, plural

RENAMED_FLAGS = {"--n": "--count"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=file_path, required=True, metavar="DIR", help="output folder for the shards (required)")
    add("--count", type=positive, required=True, metavar="N", help="number of pictures (required)")
    add(
        "--seed",
        type=int,
        default=0,
        help="random seed; another seed gives other pictures (default: %(default)s)",
    )
    add("--size", type=positive, default=448, help="side of a picture in pixels (default: %(default)s)")
    add("--per-shard", type=positive, default=500, help="pictures per shard (default: %(default)s)")
    add(
        "--workers",
        type=positive,
        default=usable_cores(),
        help="number of processes (default: as many as cores may be used, also in a container)",
    )
    add(
        "--split",
        choices=("train", "test", "all"),
        default="train",
        help="split of the clothes, skins, hair and motions (default: %(default)s)",
    )
    add(
        "--closeup",
        action="store_true",
        help="only people about 2.5 m away, with visible hands (default: a third; split test a quarter)",
    )
    add("--device", default="cpu", help="cpu, one thread per process, or cuda:0 (default: %(default)s)")
    add(
        "--assets",
        type=file_path,
        metavar="DIR",
        help="MakeHuman clothes, skins, hair and poses (default: shared/assets beside the checkout, if it is "
        "there; what is used is printed)",
    )
    add("--backgrounds", type=file_path, metavar="DIR", help="folder of background pictures (default: none)")


def run(args: argparse.Namespace) -> int:
    """Render the pictures, and a contact sheet of the first 48."""
    from PIL import Image

    from ..data.synthetic.dataset import about_assets, find_assets
    from ..data.synthetic.generate import GenerationConfig, contact_sheet, write_shards
    from ..data.webdataset import Shards

    config = GenerationConfig(
        args.seed,
        args.size,
        split=args.split,
        closeups=1.0 if args.closeup else None,
        assets=args.assets,
        backgrounds=args.backgrounds,
        device=args.device,
    )
    assets = find_assets(args.assets)
    if assets is None:
        fail(f"warning: {about_assets(None)}; --assets DIR names one")
    else:
        print(clean(f"assets: {about_assets(assets)}"))
    shards = write_shards(
        args.out, args.count, config, per_shard=args.per_shard, workers=args.workers, progress=True
    )
    sheet = args.out / "contact_sheet.jpg"
    Image.fromarray(contact_sheet(itertools.islice(Shards(args.out), 48))).save(sheet, quality=90)
    count = f"{plural(args.count, 'picture')} in {plural(len(shards), 'shard')}"
    print(clean(f"{count} in {args.out}; a contact sheet is in {sheet}"))
    return 0
