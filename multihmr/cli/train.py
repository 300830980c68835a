"""multihmr train: weights from pictures."""

from __future__ import annotations

import argparse
import dataclasses
import logging

from .arguments import add_fields


def add_flags(parser: argparse.ArgumentParser) -> None:
    from ..training.config import TrainConfig

    add_fields(parser, TrainConfig)


def run(args: argparse.Namespace) -> int:
    """Train, or go on where the folder's checkpoint stopped."""
    from ..training.config import TrainConfig
    from ..training.trainer import train as learn

    logging.basicConfig(format="%(message)s")
    logging.getLogger("multihmr").setLevel(logging.INFO)
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(TrainConfig)}
    print(f"weights in {learn(TrainConfig(**values))}")
    return 0
