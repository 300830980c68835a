"""multihmr convert: an official checkpoint into one of ours."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("official", type=Path, metavar="OFFICIAL.pt", help="a checkpoint of naver/multi-hmr")
    parser.add_argument("out", type=Path, metavar="OUT.safetensors", help="what load_model reads")


def run(args: argparse.Namespace) -> int:
    """Turn an official checkpoint into ours; its body is not needed for that."""
    from ..hub.checkpoint import write_checkpoint
    from ..hub.official_converter import read_official

    checkpoint = read_official(args.official)
    source = f"converted from {args.official.name}"
    print(f"{checkpoint.family}, body {checkpoint.body}, {checkpoint.licence}")
    print(f"weights in {write_checkpoint(checkpoint, args.out, source=source)}")
    return 0
