"""What drawing people over a picture costs: five of them at 1280x720 on one core, milliseconds.

    python scripts/measure_overlay.py [--rounds 25]

Processor time, which other programs on the machine disturb little; medians and least of all rounds, in which
the cases take turns. Shading, normals and everything else is made anew in each round.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import roma
import torch

from multihmr.bodies.base import Body
from multihmr.bodies.loading import load_body
from multihmr.humans import Humans
from multihmr.video.tracks import with_meshes, without_faces
from multihmr.visualization.draw import draw

# where five heads are, in metres, and how far each person is turned about the vertical, in radians
GROUPS = {
    "4 m away": [(-1.8, -0.6, 4.2), (-0.9, -0.55, 3.8), (0, -0.6, 4.5), (0.9, -0.6, 3.9), (1.8, -0.6, 4.3)],
    "2.5 m away": [(-1.3, -0.5, 2.6), (-0.7, -0.45, 2.3), (0, -0.5, 2.8), (0.7, -0.5, 2.4), (1.3, -0.6, 2.7)],
    "10 m away": [(-4, -0.6, 9), (-2, -0.6, 8), (0, -0.6, 11), (2, -0.6, 10), (4, -0.6, 12)],
}
TURNS = (0.4, -0.7, 0.1, 1.6, 3.0)


def people(
    body: Body,
    heads: Sequence[Sequence[float]],
    turns: Sequence[float],
    *,
    K: np.ndarray,
    size: tuple[int, int],
) -> Humans:
    """Mean people with their heads there, turned about the vertical, before a camera K of (height, width)."""
    count = len(heads)
    pose = body.mean_pose_R33.repeat(count, 1, 1, 1)
    pose[:, 0] = roma.rotvec_to_rotmat(torch.tensor([[0.0, turn, 0.0] for turn in turns])) @ pose[:, 0]
    empty = Humans.empty(
        topology=without_faces(body.topology), K=K, K_source="given", image_size=size, body=body.name
    )
    arrays = {
        field.name: np.zeros((count, *value.shape[1:]))
        for field in dataclasses.fields(empty)
        if isinstance(value := getattr(empty, field.name), np.ndarray) and field.name != "K"
    }
    arrays |= {"pose": pose.numpy(), "shape": body.mean_shape_S.repeat(count, 1).numpy()}
    arrays["translation"] = np.array(heads, np.float32)
    return with_meshes(dataclasses.replace(empty, **arrays), body)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    body, size = load_body("anny"), (720, 1280)
    K = np.array([[1100, 0, 640], [0, 1100, 360], [0, 0, 1]], np.float32)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    groups = {name: people(body, heads, TURNS, K=K, size=size) for name, heads in GROUPS.items()}
    cases = [(name, views) for name in groups for views in (False, True)]
    times: dict[tuple[str, bool], list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for name, views in cases:
            fresh = dataclasses.replace(groups[name])  # without the normals of the round before
            start = time.process_time()
            draw(fresh, image, side_views=views)
            times[name, views].append(1e3 * (time.process_time() - start))
    for (name, views), took in times.items():
        title = f"{name}, {'overlay and both views' if views else 'overlay alone'}"
        print(f"{title:40} median {np.median(took):6.1f} ms   least {min(took):6.1f} ms")


if __name__ == "__main__":
    main()
