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

from multihmr.training.ablations import VARIANTS, Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folders of shards to learn from, with commas")
    parser.add_argument("--test", required=True, help="folder of shards to measure on")
    parser.add_argument("--out", required=True, help="for the table, and a folder a variant")
    parser.add_argument("--closeups", default="", help="folder of shards of close-ups")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--count", type=int, default=500, help="pictures to measure on")
    parser.add_argument("--seeds", default="0,1", help="each variant is trained once with each")
    parser.add_argument("--only", default="", help=f"some of {','.join(VARIANTS)}")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1, mps")
    parser.add_argument("--workers", type=int, default=1, help="processes that read pictures")
    values = vars(parser.parse_args())
    values["seeds"] = tuple(int(seed) for seed in values["seeds"].split(","))
    values["only"] = tuple(name for name in values["only"].split(",") if name)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("multihmr").setLevel(logging.INFO)
    try:
        path = run(Plan(**values))
    except (ValueError, OSError, KeyboardInterrupt) as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 1
    print(path.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
