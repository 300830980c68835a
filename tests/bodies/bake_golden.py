"""Bake anny_golden.npz: what the PyPI package `anny` 0.6.2 makes of 200 random people. Needs the package.

    python tests/bodies/bake_golden.py

Poses, shapes and expressions are rounded to float16, then taken as exact. Of each person 40 vertices of the
19,158 and 12 joints are kept, others for each person.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import roma
import torch

GOLDEN = Path(__file__).with_name("anny_golden.npz")
PEOPLE = 200


def random_people(people: int, seed: int, bones: int = 104) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rotvecs (P, bones, 3), shapes (P, 6), expressions (P, 52) as float16: a third at corners, all ages."""
    rng = np.random.default_rng(seed)
    rotvecs = rng.normal(0, 0.5, (people, bones, 3))
    rotvecs[:, 0] = rng.uniform(-2, 2, (people, 3))
    shapes = rng.uniform(0, 1, (people, 6))
    shapes[::3] = shapes[::3].round()
    shapes[:, 1] = np.linspace(-1 / 3, 1, people)
    expressions = rng.uniform(0, 1, (people, 52)) * (rng.uniform(0, 1, (people, 52)) < 0.3)
    return rotvecs.astype(np.float16), shapes.astype(np.float16), expressions.astype(np.float16)


def kept(people: int, vertices: int, joints: int = 104) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (P, 40) and joints (P, 12) of each person that are compared."""
    person = np.arange(people)[:, None]
    return (person * 97 + np.arange(40) * 479) % vertices, (person + np.arange(12) * 9) % joints


def package_output(
    model: torch.nn.Module, rotvecs: np.ndarray, shapes: np.ndarray, expressions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All vertices and joints from the package's model, in float64."""
    transforms = torch.eye(4, dtype=torch.float64).repeat(len(rotvecs), 104, 1, 1)
    transforms[..., :3, :3] = roma.rotvec_to_rotmat(torch.from_numpy(rotvecs.astype(np.float64)))
    shapes, expressions = (torch.from_numpy(a.astype(np.float64)) for a in (shapes, expressions))
    out = model(pose_parameters=transforms, phenotype_kwargs=shapes, facial_actions=expressions)
    return out["vertices"].numpy(), out["bone_poses"][..., :3, 3].numpy()


def main() -> None:
    import anny

    people = random_people(PEOPLE, seed=0)
    model = anny.Anny(topology="anny-full", facial_actions="all")
    vertices, joints = package_output(model, *people)
    which_vertices, which_joints = kept(PEOPLE, vertices.shape[1])
    np.savez_compressed(
        GOLDEN,
        **dict(zip(("rotvecs", "shapes", "expressions"), people, strict=True)),
        vertices=np.take_along_axis(vertices, which_vertices[..., None], 1).astype(np.float32),
        joints=np.take_along_axis(joints, which_joints[..., None], 1).astype(np.float32),
    )


if __name__ == "__main__":
    main()
