"""SMPL against the `smplx` package on a made-up file in the format of the licensed one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roma
import torch

from multihmr.bodies.smpl import SMPL, VERTICES

PARENTS = (0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)


def fake_smpl(seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of the right shapes: a cloud of points of a person's size, with few weights each."""
    rng = np.random.default_rng(seed)
    template = rng.uniform(-1, 1, (VERTICES, 3)) * (0.3, 0.9, 0.2)
    weights = np.zeros((VERTICES, 24))
    np.put_along_axis(weights, rng.integers(0, 24, (VERTICES, 4)), 0.25, axis=1)
    regressor = np.zeros((24, VERTICES))
    np.put_along_axis(regressor, rng.integers(0, VERTICES, (24, 5)), 0.2, axis=1)
    return {
        "v_template": template,
        "shapedirs": rng.normal(0, 0.01, (VERTICES, 3, 10)),
        "posedirs": rng.normal(0, 0.001, (VERTICES, 3, 207)).astype(np.float32),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([PARENTS, range(24)]).astype(np.int64),
        "f": rng.integers(0, VERTICES, (500, 3)),
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("smpl") / "SMPL_MALE.pkl"
    path.write_bytes(pickle.dumps(fake_smpl()))
    return path


@pytest.mark.slow
def test_it_is_the_package_turned_about_the_pelvis(path: Path) -> None:
    smplx = pytest.importorskip("smplx")
    body, theirs = SMPL(path), smplx.SMPL(str(path), gender="male")
    generator = torch.Generator().manual_seed(0)
    pose = torch.randn(2, 24, 3, generator=generator) * 0.5
    betas = torch.randn(2, 10, generator=generator)
    ours = body(roma.rotvec_to_rotmat(pose), betas, torch.zeros(2, 0))
    output = theirs(betas=betas, body_pose=pose[:, 1:].flatten(1), global_orient=pose[:, 0])
    pelvis = output.joints[:, :1]  # theirs stays where the rest shape has it
    torch.testing.assert_close(ours.vertices_PV3, output.vertices - pelvis, atol=2e-6, rtol=0)
    torch.testing.assert_close(ours.joints_PJ3, output.joints[:, :24] - pelvis, atol=2e-6, rtol=0)
    rest = torch.cat([torch.ones(2, 1), betas], 1) @ torch.from_numpy(body.topology.rest_pelvis)
    torch.testing.assert_close(rest, pelvis[:, 0], atol=1e-6, rtol=0)


@pytest.mark.slow
def test_npz_and_pickles_of_chumpy_and_scipy_are_alike(path: Path, tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    arrays: dict[str, Any] = fake_smpl()
    np.savez(tmp_path / "SMPL_MALE.npz", **arrays)
    with_sparse = arrays | {"J_regressor": sparse.csc_matrix(arrays["J_regressor"]), "bs_type": "lrotmin"}
    (tmp_path / "sparse.pkl").write_bytes(pickle.dumps(with_sparse))
    rest = SMPL(path)._rest_joints_J3
    for name in ("SMPL_MALE.npz", "sparse.pkl"):
        body = SMPL(tmp_path / name)
        assert not body.state_dict()  # licensed arrays are in no checkpoint
        torch.testing.assert_close(body._rest_joints_J3, rest)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weights": None}, "it lacks weights"),
        ({"posedirs": np.zeros((6890, 3, 2))}, "its posedirs has the shape"),
        ({"v_template": np.full((6890, 3), np.nan)}, "not finite"),
        ({"f": np.array([[0, 1, 6890]])}, "no triangles"),
        ({"kintree_table": np.full((2, 24), 23)}, "before their parents"),
    ],
)
def test_other_files_are_refused(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    arrays = {key: array for key, array in (fake_smpl() | change).items() if array is not None}
    path = tmp_path / "SMPL_MALE.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=f"{sentence}.*smpl.is.tue.mpg.de"):
        SMPL(path)


def test_a_pickle_that_runs_something_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "SMPL_MALE.pkl"
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="system"):
        SMPL(path)
    with pytest.raises(FileNotFoundError, match="register"):
        SMPL(tmp_path / "SMPL_FEMALE.pkl")
