"""Rerun the ablations of GLNet's poster on crops of synthetic people, at small scale.

    multihmr synth --out data/train --n 12000 --size 384
    multihmr synth --out data/test --n 500 --seed 20000000 --split test
    python scripts/glnet_ablations.py --data data/train --test data/test --out runs/glnet

The table is in OUT/table.md, and grows with each variant; the same command goes on where it was stopped.
`--only baseline,local,matching,both` trains the rows of table 2 alone; what the variants are stands in
training/glnet_ablations.py. `--network decomposed=yes` gives all of them that.
"""

from __future__ import annotations

import sys

from ablations import main  # scripts/ablations.py: python puts a script's folder first

from multihmr.training.glnet_ablations import Plan, run

if __name__ == "__main__":
    sys.exit(main(Plan, run, __doc__))
