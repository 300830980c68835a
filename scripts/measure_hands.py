"""What does predict(hands_and_faces=True) gain? On rendered pictures with the true camera.

    multihmr generate --out data/test --count 400 --seed 20000000 --split test
    python scripts/measure_hands.py data/test --every 4      # the close-ups

Of the hands of people found, by what the network for hands says: PA-PVE over the vertices of a hand [mm], and
how far the palm is turned from the true one [degrees, median], without the option and with it. CPU seconds:
of prediction, and of what the option adds for each hand whose crops it reads.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch
from measure_ground import pairs, true_humans

from multihmr import Humans, load_model
from multihmr.bodies.body_parts import vertex_parts
from multihmr.data.webdataset import Shards
from multihmr.evaluation.metrics import pa_mpjpe
from multihmr.model.hand_pose import SIDES, HandBody
from multihmr.model.hands_and_faces import Arms, HandRefinement, find_hands, first_crops, with_hands
from multihmr.preprocessing.image import load_image


def palm_angle(first: Humans, second: Humans, rows: tuple[int, int], body: HandBody, side: int) -> float:
    """Between the palms of two people [degrees], from the wrist and the first joints of the fingers."""
    turned = []
    for humans, row in zip((first, second), rows, strict=True):
        points = Arms.of(humans[[row]], body).hands[0, side]
        along, across = points[9] - points[0], points[17] - points[5]
        normal = np.cross(along, across)
        axes = np.stack([along, normal, np.cross(normal, along)])
        turned.append(axes / np.linalg.norm(axes, axis=1, keepdims=True))
    return float(np.degrees(np.arccos(np.clip((np.trace(turned[0] @ turned[1].T) - 1) / 2, -1, 1))))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="shards of `multihmr generate`")
    parser.add_argument("--count", type=int, default=400, help="pictures (default: %(default)s)")
    parser.add_argument("--every", type=int, default=1, help="only every N-th picture (default: all)")
    parser.add_argument("--model", help="default: the bundled model")
    args = parser.parse_args()
    model, samples = load_model(args.model, device="cpu"), Shards(args.folder)
    refine = HandRefinement(model)
    parts = vertex_parts(model.body.topology)
    errors: dict[str, list[tuple[float, ...]]] = {"found": [], "read, not found": [], "not read": []}
    predicting = refining = 0.0
    pictures = range(0, min(args.count, len(samples)), args.every)
    for i in pictures:
        sample = samples[i]
        true, image = true_humans(sample, model), load_image(sample.image)
        start = time.process_time()
        plain = model.predict(image, sample.K)
        predicting += time.process_time() - start
        start = time.process_time()
        found = find_hands(image, plain, refine.hands, refine.networks.hand)
        moved = with_hands(model, image, plain, refine.hands, found)
        refining += time.process_time() - start
        arms = Arms.of(plain, refine.hands)
        for one, other in pairs(plain, true):
            for side, name in enumerate(SIDES):
                kind = "read, not found" if first_crops(arms, one, side, plain.image_size) else "not read"
                if any((hand.person, hand.side) == (one, side) for hand in found):
                    kind = "found"
                row: tuple[float, ...] = ()
                for humans in (plain, moved):
                    ours, theirs = (torch.tensor(h.vertices[k][parts[f"{name}_hand"]])[None] for h, k in
                                    ((humans, one), (true, other)))  # fmt: skip
                    row += (float(pa_mpjpe(ours, theirs)),)
                    row += (palm_angle(humans, true, (one, other), refine.hands, side),)
                errors[kind].append(row)
    for kind, rows in [*errors.items(), ("all", list(itertools.chain(*errors.values())))]:
        if rows:
            before, turned, after, turned_after = np.array(rows).T
            print(
                f"{kind:16} {len(rows):4} hands  PA-PVE {before.mean():.1f} -> {after.mean():.1f} mm  "
                f"palm {np.median(turned):.0f} -> {np.median(turned_after):.0f} degrees"
            )
    read = len(errors["found"]) + len(errors["read, not found"])
    added = refining / max(read, 1)
    print(f"{predicting / len(pictures):.2f} CPU s a picture; the option adds {added:.3f} a hand")


if __name__ == "__main__":
    main()
