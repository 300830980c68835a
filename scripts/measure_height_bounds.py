"""How well could heights be told from one picture at best? On bodies drawn as for renders, without pictures.

    python scripts/measure_height_bounds.py [--people 20000]

A picture shows a body only up to its size. So the height is regressed from what does not depend on it: from
some phenotypes, exactly known, and from the proportions of the body in one pose (joints and some vertices,
divided by their size), exactly or with noise. Printed is the median error [m] on people who were not learned
from, beside that of one height for all. `scripts/measure_ground.py` measures what the model reaches.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor, nn

from multihmr.bodies.base import Body
from multihmr.bodies.loading import load_body
from multihmr.data.synthetic.scenes import random_shape
from multihmr.world.heights import heights_of_shapes

PHENOTYPES = ("gender", "age", "muscle", "weight", "height", "proportions")
NOISES = (0.0, 0.01, 0.03, 0.1)  # standard deviation, of the root mean square distance from the middle
EVERY = 97  # of the vertices
TESTED = 0.1  # part of the people
CHUNK, BATCH, EPOCHS = 500, 256, 12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=20000, help="default: %(default)s")
    people = parser.parse_args().people
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    body = load_body("anny")
    shapes = np.stack([random_shape(rng, adult=False) for _ in range(people)])
    heights = heights_of_shapes(body, shapes)
    tested = int(TESTED * people)
    one = float(np.median(np.abs(heights[:tested] - np.median(heights[tested:]))))
    print(f"one height for all: {one:.3f}")
    for names in (("age",), ("age", "gender"), tuple(name for name in PHENOTYPES if name != "height")):
        columns = [PHENOTYPES.index(name) for name in names]
        print(f"{', '.join(names)}: {error(shapes[:, columns], heights, tested):.3f}")
    points = proportions(body, shapes)
    for noise in NOISES:
        seen = points + rng.normal(0, noise, points.shape)
        print(f"proportions, noise {noise:g}: {error(seen, heights, tested):.3f}")


@torch.no_grad()
def proportions(body: Body, shapes: np.ndarray) -> np.ndarray:
    """(N, 3 P) points of bodies in the rest pose, around their middle, of size 1."""
    parts = []
    for start in range(0, len(shapes), CHUNK):
        shape = torch.from_numpy(shapes[start : start + CHUNK])
        count = len(shape)
        pose = torch.eye(3).repeat(count, len(body.topology.joint_names), 1, 1)
        expression = torch.zeros(count, len(body.topology.expression_names))
        posed = body(pose, shape, expression)
        points = torch.cat([posed.joints_PJ3, posed.vertices_PV3[:, ::EVERY]], 1)
        points = points - points.mean(1, keepdim=True)
        parts.append(points / points.square().sum(2).mean(1).sqrt()[:, None, None])
    return torch.cat(parts).flatten(1).numpy()


def error(known: np.ndarray, heights: np.ndarray, tested: int) -> float:
    """Median error [m] on the first people of a regression of heights (N,) learned from the others."""
    x = torch.from_numpy((known - known.mean(0)) / (known.std(0) + 1e-6)).float()
    y = torch.from_numpy(heights).float()
    network = nn.Sequential(
        nn.Linear(x.shape[1], 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 1)
    )
    steps = EPOCHS * ((len(x) - tested) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    middle = y[tested:].median()

    def missed(rows: Tensor) -> Tensor:
        return (network(x[rows])[:, 0] + middle - y[rows]).abs()

    for _ in range(EPOCHS):
        order = tested + torch.randperm(len(x) - tested)
        for rows in order.split(BATCH):
            if len(rows) == BATCH:
                optimizer.zero_grad()
                missed(rows).mean().backward()
                optimizer.step()
                schedule.step()
    with torch.no_grad():
        return float(missed(torch.arange(tested)).median())


if __name__ == "__main__":
    main()
