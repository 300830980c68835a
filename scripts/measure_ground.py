"""How well are gravity, the floor and heights told? On rendered pictures, whose camera is known.

    multihmr generate --out data/test --count 400 --seed 20000000 --split test
    python scripts/measure_ground.py data/test --count 200 [--model multihmr-anny-hybrid]

First from the true bodies, then from those that the model predicts with the true field of view, then from
these on one floor (`Humans.on_one_floor`, with the ground of `in_world`), also where the true vertical is
given, or that and the true height of the camera. Gravity:
angle between the estimated and the true vertical [degrees]. Floor: how far the estimated floor is from the
true one under the people, at 3 m from the camera (error / distance of the people * 3 m) [m]. Height: of
people found, by the nearest head in the image [m]. "told" is in how many of the pictures with people the
estimate was given. Distance: of heads of people found, relative.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from multihmr import load_model
from multihmr.bodies.base import posed
from multihmr.data.sample import Sample
from multihmr.data.webdataset import Shards
from multihmr.humans import Humans
from multihmr.model import Model
from multihmr.postprocessing.to_humans import to_humans
from multihmr.world import Ground, estimate_ground, heights
from multihmr.world.one_floor import fit_one_floor
from multihmr.world.standing import Stances, roll_and_pitch

NEAR = 0.25  # [m] across the view, at its distance, of two heads that are one person's
AT = 3.0  # [m] from the camera, for errors of the floor


def true_humans(sample: Sample, model: Model) -> Humans:
    """The people of a sample as Humans."""
    vertices, joints = posed(model.body, sample.pose, sample.shape, sample.expression, sample.translation)
    people = {name: getattr(sample, name) for name in ("pose", "shape", "expression", "translation")}
    people |= {"scores": np.ones(len(sample), np.float32), "vertices": vertices, "joints": joints}
    K = torch.from_numpy(sample.K)
    return to_humans(people, model.body, K=K, K_source="given", image_size=sample.image.shape[:2])


def pairs(found: Humans, true: Humans) -> list[tuple[int, int]]:
    """(i, j) of people found and true ones who are the same."""
    result: list[tuple[int, int]] = []
    for i in range(len(found)):
        rays = (
            found.translation[i, :2] / found.translation[i, 2]
            - true.translation[:, :2] / true.translation[:, 2:]
        )
        gaps = np.linalg.norm(rays, axis=1) * found.translation[i, 2]
        if len(gaps) and gaps.min() < NEAR and gaps.argmin() not in [j for _, j in result]:
            result.append((i, int(gaps.argmin())))
    return result


class Errors:
    """Errors over pictures, by what was estimated."""

    def __init__(self) -> None:
        self.pictures = 0
        self.gravity: list[float] = []
        self.alone: list[float] = []
        self.floor: list[float] = []
        self.height: list[float] = []
        self.standing: list[float] = []
        self.distance: list[float] = []

    def add(
        self,
        humans: Humans,
        true: Humans,
        world_to_camera: np.ndarray,
        body: object,
        ground: Ground | None = None,
    ) -> None:
        up = world_to_camera[:, 2].astype(float)
        camera_height = float(-(world_to_camera[:, :3].T @ world_to_camera[:, 3])[2])
        self.pictures += len(true) > 0
        tall, truly = heights(humans, body=body), heights(true, body=body)
        shows_feet = Stances.of(humans).shows_feet if len(humans) else []
        for i, j in pairs(humans, true):
            self.height.append(float(abs(tall[i] - truly[j])))
            self.standing += [self.height[-1]] if shows_feet[i] else []
            self.distance.append(float(abs(humans.distances[i] / true.distances[j] - 1)))
        ground = ground or estimate_ground(humans)
        if ground.up is None:
            return
        error = float(np.degrees(np.arccos(np.clip(ground.up @ up, -1, 1))))
        self.gravity.append(error)
        if ground.people == 1:
            self.alone.append(error)
        if ground.known and len(humans):
            middle = humans.translation.mean(0)
            off = abs(ground.heights(middle) - (middle @ up + camera_height))
            self.floor.append(float(off / np.linalg.norm(middle) * AT))

    def report(self, name: str) -> None:
        for what, unit, values in (
            ("gravity", "degrees", self.gravity),
            ("gravity, one person stands", "degrees", self.alone),
            ("floor at 3 m", "m", self.floor),
            ("height", "m", self.height),
            ("height of who stands", "m", self.standing),
            ("distance", "", self.distance),
        ):
            about_people = what.startswith(("height", "distance"))
            told = f"{len(values)} people" if about_people else f"told in {len(values)} of {self.pictures}"
            if values:
                median, most = np.median(values), np.percentile(values, 80)
                print(f"{name:10} {what:27} median {median:6.3f}  80 % below {most:6.3f} {unit:8} ({told})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="shards of `multihmr generate`")
    parser.add_argument("--count", type=int, default=200, help="pictures (default: %(default)s)")
    parser.add_argument("--model", help="default: the bundled model")
    args = parser.parse_args()
    model = load_model(args.model, device="cpu")
    samples, bodies, predictions, fitted = Shards(args.folder), Errors(), Errors(), Errors()
    upright, grounded = Errors(), Errors()
    for i in range(min(args.count, len(samples))):
        sample = samples[i]
        assert sample.world_to_camera is not None
        true = true_humans(sample, model)
        bodies.add(true, true, sample.world_to_camera, model.body)
        found = model.predict(sample.image, sample.K)
        predictions.add(found, true, sample.world_to_camera, model.body)
        people, ground = fit_one_floor(found, None, (None, None, None), None, model.body)
        fitted.add(people, true, sample.world_to_camera, model.body, ground)
        roll, pitch = np.degrees(roll_and_pitch(sample.world_to_camera[:, 2].astype(float)))
        rotation, shift = sample.world_to_camera[:, :3], sample.world_to_camera[:, 3]
        height = float(-(rotation.T @ shift)[2])
        for errors, floor in ((upright, None), (grounded, height if height > 0 else None)):
            people, ground = fit_one_floor(found, None, (pitch, roll, floor), None, model.body)
            errors.add(people, true, sample.world_to_camera, model.body, ground)
    bodies.report("true")
    predictions.report("predicted")
    fitted.report("one floor")
    upright.report("vertical")
    grounded.report("ground")


if __name__ == "__main__":
    main()
