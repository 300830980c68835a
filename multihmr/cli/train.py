"""multihmr train: train a model, or resume a run."""

from __future__ import annotations

import argparse
import dataclasses
import logging

from ..training.config import RENAMED
from .arguments import add_fields, flag_of

RENAMED_FLAGS = {flag_of(old): flag_of(new) for old, new in RENAMED.items()}


def add_flags(parser: argparse.ArgumentParser) -> None:
    from ..training.config import TrainConfig

    add_fields(parser, TrainConfig)


def run(args: argparse.Namespace) -> int:
    """Train; resumes from the checkpoint in the output folder if there is one."""
    from ..training.config import TrainConfig
    from ..training.trainer import train

    logging.basicConfig(format="%(message)s")
    logging.getLogger("multihmr").setLevel(logging.INFO)
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(TrainConfig)}
    print(f"weights in {train(TrainConfig(**values))}")
    return 0
