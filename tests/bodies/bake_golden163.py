"""Bake anny163_golden.npz: what the PyPI package `anny` 0.3.1 makes of 60 random people. Needs the package.

    PYTHONPATH=/tmp/anny031 python tests/bodies/bake_golden163.py        # see scripts/bake_anny163.py

Kept like anny_golden.npz of bake_golden.py: rounded parameters, 40 of 19,158 vertices, 12 joints.
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch

sys.path.insert(0, str(Path(__file__).parent))
from bake_golden import kept, random_people

GOLDEN163 = Path(__file__).with_name("anny163_golden.npz")
PEOPLE = 60
BONES = 163


def package_model() -> Any:
    """As the official code makes it, in float64; it prints and warns while it fills its cache."""
    import anny

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return anny.create_fullbody_model(
            remove_unattached_vertices=False, all_phenotypes=True, skinning_method="lbs"
        )


def package_output(model: Any, rotvecs: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, 19158, 3) vertices and (P, 163, 3) joints from the package's model, in float64, 10 at a time."""
    transforms = torch.eye(4, dtype=torch.float64).repeat(len(rotvecs), BONES, 1, 1)
    transforms[..., :3, :3] = roma.rotvec_to_rotmat(torch.from_numpy(rotvecs.astype(np.float64)))
    columns = dict(
        zip(model.phenotype_labels[:6], torch.from_numpy(shapes.astype(np.float64)).T, strict=True)
    )
    vertices, joints = [], []
    for some in torch.arange(len(rotvecs)).split(10):
        out = model(transforms[some], {name: column[some] for name, column in columns.items()})
        vertices.append(out["vertices"].numpy())
        joints.append(out["bone_poses"][..., :3, 3].numpy())
    return np.concatenate(vertices), np.concatenate(joints)


def main() -> None:
    rotvecs, shapes, _ = random_people(PEOPLE, seed=0, bones=BONES)
    vertices, joints = package_output(package_model(), rotvecs, shapes)
    which_vertices, which_joints = kept(PEOPLE, vertices.shape[1], BONES)
    np.savez_compressed(
        GOLDEN163,
        rotvecs=rotvecs,
        shapes=shapes,
        vertices=np.take_along_axis(vertices, which_vertices[..., None], 1).astype(np.float32),
        joints=np.take_along_axis(joints, which_joints[..., None], 1).astype(np.float32),
    )


if __name__ == "__main__":
    main()
