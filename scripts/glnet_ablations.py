"""Rerun the ablations of GLNet's poster on crops of synthetic people, at small scale.

    multihmr synth --out data/train --n 12000 --size 384
    multihmr synth --out data/test --n 500 --seed 20000000 --split test
    python scripts/glnet_ablations.py --data data/train --test data/test --out runs/glnet

The table is in OUT/table.md, and grows with each variant; the same command goes on where it was stopped.
`--only baseline,local,matching,both` trains the rows of table 2 alone; what the variants are stands in
training/glnet_ablations.py. `--network decomposed=yes` gives all of them that.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import fields

from multihmr.training.glnet_ablations import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in fields(Plan):
        required = field.name in ("data", "test", "out")
        default = None if required else field.default
        text = isinstance(default, tuple) or required
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            required=required,
            default=",".join(map(str, default)) if isinstance(default, tuple) else default,
            type=str if text else type(default),
        )
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
