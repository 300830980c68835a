"""multihmr convert: convert an official checkpoint into a file that load_model reads."""

from __future__ import annotations

import argparse

from .arguments import file_path


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "official", type=file_path, metavar="OFFICIAL.pt", help="a checkpoint of naver/multi-hmr"
    )
    parser.add_argument(
        "out", type=file_path, metavar="OUT.safetensors", help="the file to write, which load_model reads"
    )


def run(args: argparse.Namespace) -> int:
    """Convert an official checkpoint; its body model is not needed for that."""
    from ..hub.checkpoint import write_checkpoint
    from ..hub.official_converter import read_official

    checkpoint = read_official(args.official)
    source = f"converted from {args.official.name}"
    print(f"{checkpoint.family}, body {checkpoint.body}, {checkpoint.licence}")
    print(f"weights in {write_checkpoint(checkpoint, args.out, source=source)}")
    return 0
