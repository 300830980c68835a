"""Measures `Humans.to_body` on bodies generated from Anny in the formats of SMPL-X and SMPL.

    python scripts/measure_conversion.py
    python scripts/measure_conversion.py --smplx SMPLX_NEUTRAL.npz          # with a true body file
    python scripts/measure_conversion.py --people 4 --draw conversions.png

Anny people stand in captured poses with random fingers and faces. Seconds are CPU time.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from multihmr.bodies.base import Body, posed
from multihmr.bodies.loading import load_body
from multihmr.bodies.smpl import SMPL
from multihmr.bodies.smplx import SMPLX
from multihmr.fitting.conversion import ConvertedHumans
from multihmr.fitting.prior import load_prior
from multihmr.fitting.skeleton import rotation_matrix
from multihmr.humans import Humans, project

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # where the bodies are generated

K = np.array([[1100.0, 0, 640], [0, 1100, 360], [0, 0, 1]])


def people_of(body: Body, pose: torch.Tensor, shape: np.ndarray, expression: np.ndarray) -> Humans:
    """People of these parameters, side by side 4 m before a camera."""
    count = len(pose)
    place = np.float32([[-1.5 + 3 * (i + 0.5) / count, -0.5, 4.0] for i in range(count)])
    vertices, joints = posed(body, pose.numpy(), shape, expression, place)
    return Humans(
        scores=np.ones(count), vertices=vertices, joints=joints, joints_2d=project(joints, K),
        boxes=np.zeros((count, 4)), translation=joints[:, body.center_joint],
        pelvis=joints[:, body.pelvis_joint], pose=pose.numpy(), shape=shape, expression=expression, K=K,
        K_source="given", image_size=(720, 1280), body=body.name, topology=body.topology,
    )  # fmt: skip


def anny_people(body: Body, count: int, seed: int = 0) -> Humans:
    """Captured poses, random adults, fingers and faces."""
    rng, prior, names = np.random.default_rng(seed), load_prior(), list(body.topology.pose_names)
    rows = rng.choice(len(prior.exemplars), count, replace=False)
    pose = body.mean_pose_R33.repeat(count, 1, 1, 1)
    vectors = torch.from_numpy(prior.rotation_vectors(prior.exemplars[rows]))
    pose[:, [names.index(bone) for bone in prior.bones]] = rotation_matrix(vectors).float()
    for side in "LR":
        bones, mean, basis = prior.hand(side)
        fingers = torch.from_numpy(mean + rng.normal(0, 1, (count, len(basis))) @ basis)
        turns = rotation_matrix(fingers.unflatten(1, (-1, 3))).float()
        pose[:, [names.index(bone) for bone in bones]] = turns
    shape = rng.uniform(0.25, 0.75, (count, 6)).astype(np.float32)
    shape[:, 1] = rng.uniform(0.6, 0.9, count)
    moved = rng.uniform(0, 1, (2, count, body.expression_count))
    return people_of(body, pose, shape, (moved[0] * (moved[1] < 0.1)).astype(np.float32))


def smplx_people(body: Body, count: int, seed: int = 1) -> Humans:
    """Every joint turned at random, by 0.35 rad about each axis (fingers half of it); betas from N(0, 1)."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0, 0.35, (count, 53, 3))
    vectors[:, 0] = rng.normal(0, 0.5, (count, 3))
    vectors[:, 22:52] *= 0.5
    pose = rotation_matrix(torch.from_numpy(vectors)).float()
    pose[:, 0] = pose[:, 0] @ body.mean_pose_R33[0]
    shape, face = rng.normal(0, 1, (count, 10)), rng.normal(0, 0.5, (count, 10))
    return people_of(body, pose, shape.astype(np.float32), face.astype(np.float32))


def convert(name: str, people: Humans, target: Body, source: Body) -> ConvertedHumans:
    """The people as `target`, with one line on how near they are."""
    people[:1].to_body(target, source=source)  # finds the correspondences of the two bodies
    start = time.process_time()
    found = people.to_body(target, source=source)
    seconds = (time.process_time() - start) / len(people)
    errors = found.errors_mm
    assert errors is not None
    print(
        f"{name}: mean {errors.mean():.2f} mm, worst person {errors.max():.2f} mm, {seconds:.2f} s a person"
    )
    return found


def overlap(a: Humans, b: Humans) -> float:
    """Mean intersection over union of the two persons' pixels."""
    mine, theirs = a.masks(occluded=True), b.masks(occluded=True)
    both = (mine & theirs).sum((1, 2)) / np.maximum((mine | theirs).sum((1, 2)), 1)
    return float(both.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--people", type=int, default=8, help="how many (default: %(default)s)")
    parser.add_argument("--smplx", type=Path, help="a true SMPLX_NEUTRAL.npz (default: a generated one)")
    parser.add_argument("--draw", type=Path, help="picture of both bodies (default: none)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    anny = load_body("anny")
    with tempfile.TemporaryDirectory() as folder:
        smplx, smpl = bodies(Path(folder), args.smplx)
    truth: Any = anny_people(anny, args.people)
    found = convert("Anny as SMPL-X", truth, smplx, anny)
    print(f"pixels of both, intersection over union: {overlap(truth, found):.3f}")
    if args.draw:
        views = [humans.draw(side_views=False) for humans in (truth, found)]
        Image.fromarray(np.concatenate(views)).save(args.draw)
        return
    convert("and back to Anny", found, anny, smplx)
    convert("Anny as SMPL", truth, smpl, anny)
    convert("SMPL-X as Anny", smplx_people(smplx, args.people), anny, smplx)


def bodies(folder: Path, smplx: Path | None) -> tuple[Body, Body]:
    """SMPL-X and SMPL, generated unless a file is given."""
    from generated_body import smpl_arrays, smplx_arrays

    if smplx is None:
        smplx = folder / "SMPLX_NEUTRAL.npz"
        np.savez(smplx, **smplx_arrays())
    (folder / "SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps(smpl_arrays()))
    return SMPLX(smplx), SMPL(folder / "SMPL_NEUTRAL.pkl")


if __name__ == "__main__":
    main()
