"""Rerun the ablation table of Multi-HMR on synthetic data, at small scale.

    multihmr synth --out data/train --n 12000 --size 384
    multihmr synth --out data/closeups --n 4000 --size 384 --closeup --seed 7
    multihmr synth --out data/test --n 500 --seed 20000000 --split test
    python scripts/ablations.py --data data/train --closeups data/closeups --test data/test --out runs/abl

The table is in OUT/table.md, and grows with each variant; the same command goes on where it was stopped.
`--only reference,iterative` trains some variants alone; what they are stands in training/ablations.py. Those
that start from ImageNet's or DINOv2's weights fetch them from the Hugging Face Hub, but for the hybrid's.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from multihmr.training import ablations
from multihmr.training.ablation_plan import AblationPlan

HELP = {
    "data": "folders of shards to learn from, with commas",
    "test": "folder of shards to measure on",
    "out": "for the table, and a folder a variant",
    "closeups": "folder of shards of close-ups",
    "init": "model to start from, as `multihmr train` takes it",
    "network": "settings that all variants have, as `multihmr train` takes them",
    "vertices": "of the body, how many the losses look at",
    "count": "pictures to measure on",
    "seeds": "each variant is trained once with each",
    "device": "cpu, cuda, cuda:1, mps",
    "workers": "processes that read pictures",
}


def main(plan: type[AblationPlan], run: Callable[[Any], Path], description: str | None) -> int:
    """A flag for each field of the plan; trains, and prints the table."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in fields(plan):
        required = field.default is MISSING
        several = isinstance(field.default, tuple)
        says = f"some of {','.join(plan.known)}" if field.name == "only" else HELP.get(field.name, "")
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            required=required,
            default=",".join(map(str, field.default)) if several else None if required else field.default,
            type=str if several or required else type(field.default),
            help=says + ("" if required else " (default: %(default)s)"),
        )
    values = vars(parser.parse_args())
    values["seeds"] = tuple(int(seed) for seed in values["seeds"].split(","))
    values["only"] = tuple(name for name in values["only"].split(",") if name)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("multihmr").setLevel(logging.INFO)
    try:
        path = run(plan(**values))
    except (ValueError, OSError, KeyboardInterrupt) as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 1
    print(path.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main(ablations.Plan, ablations.run, __doc__))
