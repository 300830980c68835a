"""How well do masks and body measurements agree with rendered pictures, whose people are known?

    multihmr generate --out data/test --count 400 --seed 20000000 --split test
    python scripts/measure_shapes.py data/test --count 100 [--model multihmr-anny-hybrid]

Masks: intersection over union of `Humans.masks` with the pixels that show the person, clothes and hair
included, of the true bodies and of those that the model predicts with the true camera; of people of whom at
least a tenth can be seen. Measurements: how far those of predicted people are from those of the true ones
[cm], without the sign and with it (median), and with the true height of each person given.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import defaultdict
from pathlib import Path

import numpy as np
from measure_ground import pairs, true_humans

from multihmr import load_model
from multihmr.data.webdataset import Shards
from multihmr.humans import Humans

LEAST_VISIBLE = 0.1


def overlap(humans: Humans, row: int, wanted: np.ndarray) -> float:
    """Intersection over union of a person's mask and the wanted one."""
    mask = humans.masks()[row]
    return float((mask & wanted).sum() / max((mask | wanted).sum(), 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="shards of `multihmr generate`")
    parser.add_argument("--count", type=int, default=100, help="pictures (default: %(default)s)")
    parser.add_argument("--model", help="default: the bundled model")
    args = parser.parse_args()
    model, samples = load_model(args.model, device="cpu"), Shards(args.folder, planes=True)
    bodies: list[float] = []
    predictions: list[float] = []
    errors: dict[str, list[float]] = defaultdict(list)
    scaled: dict[str, list[float]] = defaultdict(list)
    for i in range(min(args.count, len(samples))):
        sample = samples[i]
        assert sample.mask is not None
        true, found = true_humans(sample, model), model.predict(sample.image, sample.K)
        seen = [j for j in range(len(true)) if sample.visibility[j] >= LEAST_VISIBLE]
        bodies += [overlap(true, j, sample.mask == j + 1) for j in seen]
        both = pairs(found, true)
        if not both:
            continue
        predictions += [overlap(found, i, sample.mask == j + 1) for i, j in both if j in seen]
        rows, columns = (np.array(numbers) for numbers in zip(*both, strict=True))
        theirs = true.measurements(body=model.body)
        ours = found[rows].measurements(body=model.body)
        known = found[rows].measurements(height=theirs.height[columns], body=model.body)
        for name in (field.name for field in dataclasses.fields(theirs)):
            wanted = getattr(theirs, name)[columns]
            errors[name] += (100 * (getattr(ours, name) - wanted)).tolist()
            if name != "height":
                scaled[name] += (100 * (getattr(known, name) - wanted)).tolist()
    for name, values in (("true bodies", bodies), ("predicted", predictions)):
        print(
            f"masks, {name:12} IoU mean {np.mean(values):.3f}, median {np.median(values):.3f} ({len(values)})"
        )
    for name, signed in errors.items():
        known_height = f"{np.median(np.abs(scaled[name])):5.1f} cm" if name in scaled else "-"
        print(
            f"{name:10} off by {np.median(np.abs(signed)):5.1f} cm (median), {np.median(signed):+5.1f} with "
            f"the sign; {known_height} with the true height given ({len(signed)} people)"
        )


if __name__ == "__main__":
    main()
