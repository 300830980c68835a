"""Are the predictions of the bundled models the same, bit for bit, before and after a change of the code?

    git stash; python scripts/compare_predictions.py save before.npz PICTURE...
    git stash pop; python scripts/compare_predictions.py check before.npz PICTURE...

Every per-person array of `Humans` of both bundled models, for every picture and for tiles=2 of the first, is
compared exactly; exit code 1 names what differs. It needs `load_model` and `predict` alone, so that it runs
on any commit.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from multihmr import load_model

MODELS = ("multihmr-anny-hybrid", "glnet-anny-hybrid")
FIELDS = ("scores", "vertices", "joints", "joints_2d", "boxes", "translation", "pelvis", "pose", "shape")


def predictions(pictures: list[Path]) -> dict[str, np.ndarray]:
    """ "model/picture/field" -> array, for both models."""
    arrays = {}
    for name in MODELS:
        model = load_model(name, device="cpu")
        for picture in pictures:
            humans = model.predict(picture)
            for field in (*FIELDS, "K"):
                arrays[f"{name}/{picture.name}/{field}"] = np.asarray(getattr(humans, field))
        if name == MODELS[0]:
            humans = model.predict(pictures[0], tiles=2)
            arrays[f"{name}/tiles/vertices"] = humans.vertices
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("save", "check"))
    parser.add_argument("file", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order
    found = predictions(args.pictures)
    if args.what == "save":
        np.savez(args.file, **found)
        print(f"{len(found)} arrays in {args.file}")
        return
    stored = np.load(args.file)
    different = [key for key in sorted({*stored, *found}) if key not in stored or key not in found]
    different += [key for key in stored if key in found and not np.array_equal(stored[key], found[key])]
    people = sum(len(array) for key, array in found.items() if key.endswith("scores"))
    print(f"{len(found)} arrays, {people} people, {len(different)} arrays differ", *different, sep="\n")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
