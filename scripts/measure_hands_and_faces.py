"""What does predict(hands_and_faces=True) gain? On rendered pictures with the true camera.

    multihmr generate --out data/test --count 400 --seed 20000000 --split test
    python scripts/measure_hands_and_faces.py data/test --every 4      # the close-ups

Of the hands of people found, by what the network for hands says: PA-PVE over the vertices of a hand [mm], and
how far the palm is turned from the true one [degrees, median], without the option and with it. Of the faces
that are found: how far the head is turned from the true one [degrees], by 68 points of the face, and the
correlation of some facial actions with the true ones. CPU seconds: of prediction, and of what the option adds
for each hand whose crops it reads, and for each face that it finds.
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
from multihmr.model.faces import FaceBody, find_faces
from multihmr.model.hand_pose import SIDES, HandBody
from multihmr.model.hands_and_faces import (
    Arms,
    DetailRefinement,
    find_hands,
    first_crops,
    with_faces,
    with_hands,
)
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


class FaceErrors:
    """Turns of heads and facial actions of faces that were found."""

    ACTIONS = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft", "eyeBlinkRight")

    def __init__(self) -> None:
        self.turned: list[tuple[float, float]] = []
        self.acted: list[list[np.ndarray]] = []
        self.seconds = 0.0

    def add(self, rows: tuple[int, int], plain: Humans, moved: Humans, true: Humans, body: FaceBody) -> None:
        one, other = rows
        aim = body.points(true.vertices[[other]])[0]
        angles = [_angle(body.points(humans.vertices[[one]])[0], aim) for humans in (plain, moved)]
        self.turned.append((angles[0], angles[1]))
        self.acted.append([humans.expression[row] for humans, row in ((moved, one), (true, other))])

    def report(self, names: tuple[str, ...]) -> None:
        if not self.turned:
            return
        before, after = np.array(self.turned).T
        median, most = ([f(angles) for angles in (before, after)] for f in (np.median, _ninety))
        print(
            f"{len(before)} faces found: head turned by {median[0]:.1f} -> {median[1]:.1f} degrees (median), "
            f"{most[0]:.1f} -> {most[1]:.1f} (90 % below); {self.seconds / len(before):.3f} CPU s each"
        )
        moved, true = (np.array([row[k] for row in self.acted]) for k in (0, 1))
        for name in self.ACTIONS:
            k = names.index(name)
            print(
                f"    {name}: correlation with the true one {np.corrcoef(moved[:, k], true[:, k])[0, 1]:.2f}"
            )


def _ninety(values: np.ndarray) -> float:
    return float(np.percentile(values, 90))


def _angle(points: np.ndarray, aim: np.ndarray) -> float:
    """Of the rotation that brings points (M, 3) about their middle to where others are [degrees]."""
    U, _, Vt = np.linalg.svd((points - points.mean(0)).T @ (aim - aim.mean(0)))
    turn = Vt.T @ np.diag([1, 1, np.sign(np.linalg.det(Vt.T @ U.T))]) @ U.T
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))


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
    refine = DetailRefinement(model)
    faces = FaceErrors()
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
        start = time.process_time()
        seen = find_faces(image, plain, refine.faces, refine.networks)
        acting = with_faces(model, image, plain, refine.faces, seen, refine.networks)
        faces.seconds += time.process_time() - start
        arms = Arms.of(plain, refine.hands)
        for one, other in pairs(plain, true):
            if any(face.person == one for face in seen):
                faces.add((one, other), plain, acting, true, refine.faces)
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
    faces.report(tuple(model.body.topology.expression_names))


if __name__ == "__main__":
    main()
