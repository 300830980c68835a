from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from bodies.test_smpl import fake_smpl

from multihmr.bodies.base import Body
from multihmr.evaluation.benchmarks import BENCHMARKS
from multihmr.evaluation.correspondence import named_joints, smpl_people, true_meshes
from multihmr.evaluation.ground_truth import by_gender, true_people
from multihmr.evaluation.protocol_files import ProtocolFiles
from multihmr.evaluation.published import FIGURES, METHODS, PUBLISHED, published

from .conftest import people, scene

NO_FILES = ProtocolFiles()


def test_people_stand_by_their_head_or_their_pelvis(body: Body) -> None:
    sample = scene(0, [(0, 0, 3), (1, 0, 5)])
    by_head = true_people(body, sample)
    pelvis = by_head.joints[:, 0].numpy()
    by_pelvis = true_people(body, replace(sample, anchor="pelvis", translation=pelvis))
    torch.testing.assert_close(by_head.vertices, by_pelvis.vertices)
    torch.testing.assert_close(by_head.joints[:, body.center_joint], torch.from_numpy(sample.translation))


def test_everybody_is_posed_by_the_body_of_their_gender(body: Body) -> None:
    sample = scene(0, [(0, 0, 3), (1, 0, 5), (2, 0, 4)])
    mixed = replace(sample, gender=np.array(["male", "female", "male"]))
    asked: list[str] = []

    def bodies(gender: str) -> Body:
        asked.append(gender)
        return body

    posed, alike = by_gender(bodies, mixed), true_people(body, sample)
    assert asked == ["female", "male"]
    torch.testing.assert_close(posed.vertices, alike.vertices)  # each in their own row


def test_two_bodies_are_compared_by_their_joints_and_it_is_said(body: Body) -> None:
    class Other(type(body)):  # type: ignore[misc]
        name = "other"

    other = Other()
    other.topology = replace(body.topology, name="other")
    comparison = named_joints(body, lambda gender: other)
    sample = scene(0, [(0, 0, 3)])
    truth = comparison.truth(sample)
    said = comparison.prediction(people(body, sample.pose, sample.shape, sample.translation))
    torch.testing.assert_close(said.joints, truth.joints)
    assert truth.vertices is None
    assert "the truth is body 'other', the model's is 'toy'" in comparison.notes[0]


def test_vertices_as_truth_take_their_joints_from_the_regressor(body: Body) -> None:
    rng = np.random.default_rng(0)
    vertices = rng.normal(size=(1, 20, 3)).astype(np.float32)
    sample = replace(scene(0, [(0, 0, 3)]), keypoints_3d=vertices, keypoint_set="smplx-vertices")
    regressor = rng.uniform(size=(55, 20)).astype(np.float32)
    truth = true_meshes(body, regressor, NO_FILES).truth(sample)
    np.testing.assert_allclose(truth.joints[0], regressor[:22] @ vertices[0], atol=1e-5)
    sample.keypoints_3d[0, 3] = np.nan
    assert true_meshes(body, regressor, NO_FILES).truth(sample).joints.isnan().all()


# --- files of the user -------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> ProtocolFiles:
    """SMPL of two genders, the joints of Human3.6M and a way from SMPL-X to SMPL, all made up."""
    sparse = pytest.importorskip("scipy.sparse")
    (tmp_path / "smpl").mkdir()
    for seed, gender in enumerate(("FEMALE", "MALE")):
        np.savez(tmp_path / f"smpl/SMPL_{gender}.npz", **fake_smpl(seed))
    rng = np.random.default_rng(2)
    np.save(tmp_path / "J_regressor_h36m.npy", rng.dirichlet(np.ones(6890), 17))
    matrix = sparse.csc_matrix((np.ones(6890, np.float32), (np.arange(6890), np.arange(6890))), (6890, 10475))
    (tmp_path / "smplx2smpl.pkl").write_bytes(pickle.dumps({"matrix": matrix}))
    return ProtocolFiles(tmp_path)


@pytest.mark.slow
def test_3dpw_compares_smpl_of_each_gender_with_what_becomes_of_smplx(files: ProtocolFiles) -> None:
    from multihmr.bodies.smpl import SMPL

    body: Any = SimpleNamespace(name="smplx", mean_shape_S=torch.zeros(10))
    comparison = smpl_people(body, files)
    assert comparison.notes == ()
    generator = np.random.default_rng(0)
    sample = replace(
        scene(0, [(0, 0, 3), (1, 0, 4)]),
        pose=np.tile(np.eye(3, dtype=np.float32), (2, 24, 1, 1)),
        shape=generator.normal(size=(2, 10)).astype(np.float32),
        expression=np.zeros((2, 0), np.float32),
        body="smpl", anchor="pelvis", gender=np.array(["male", "female"]),
    )  # fmt: skip
    truth = comparison.truth(sample)
    male = SMPL(files.find("SMPL_MALE"))  # type: ignore[arg-type]
    alone = male(*(torch.from_numpy(x[:1]) for x in (sample.pose, sample.shape, sample.expression)))
    torch.testing.assert_close(truth.vertices[:1], alone.vertices_PV3 + torch.tensor([0, 0, 3.0]))
    smplx = torch.cat([truth.vertices, torch.zeros(2, 10475 - 6890, 3)], 1).numpy()
    said = comparison.prediction(SimpleNamespace(vertices=smplx, pelvis=truth.mesh_root.numpy()))  # type: ignore[arg-type]
    torch.testing.assert_close(said.joints, truth.joints, atol=1e-4, rtol=0)
    torch.testing.assert_close(said.vertices, truth.vertices)


def test_what_is_missing_is_said_with_its_address(files: ProtocolFiles) -> None:
    (files.folders[0] / "smpl/SMPL_MALE.npz").unlink()
    note = files.missing("SMPL_MALE", "SMPL_FEMALE")
    assert note.startswith("SMPL_MALE (from https://smpl.is.tue.mpg.de")
    assert "FEMALE" not in note
    assert files.missing("SMPL_FEMALE", "J_regressor_h36m.npy", "smplx2smpl.pkl") == ""


def test_parts_of_smplx_come_from_their_lists(tmp_path: Path) -> None:
    hands = {"left_hand": np.arange(5), "right_hand": np.arange(5, 10)}
    (tmp_path / "MANO_SMPLX_vertex_ids.pkl").write_bytes(pickle.dumps(hands))
    assert ProtocolFiles(tmp_path).part_vertices() is None
    np.save(tmp_path / "SMPL-X__FLAME_vertex_ids.npy", np.arange(10, 30))
    left, right, face = ProtocolFiles(tmp_path).part_vertices()  # type: ignore[misc]
    assert (left.tolist(), right.tolist(), face[-1]) == ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9], 29)
    np.save(tmp_path / "SMPL-X__FLAME_vertex_ids.npy", np.array([0.5]))
    with pytest.raises(ValueError, match="must list vertices of SMPL-X"):
        ProtocolFiles(tmp_path).part_vertices()


def test_a_wrong_matrix_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "J_regressor_h36m.npy", np.zeros((17, 10475)))
    with pytest.raises(ValueError, match=r"must be \(17, 6890\), got \(17, 10475\); get it from"):
        _ = ProtocolFiles(tmp_path).h36m_regressor


# --- published figures -------------------------------------------------------------------------------------


def test_every_published_figure_has_a_place_and_a_source() -> None:
    for entry in PUBLISHED:
        assert entry.method in METHODS
        assert entry.figure in FIGURES
        assert "papers/" in entry.source or "parity/" in entry.source or "design/" in entry.source
        assert entry.benchmark in BENCHMARKS
    shown = {(name, figure) for name, b in BENCHMARKS.items() for figure in b.figures}
    assert {(entry.benchmark, entry.figure) for entry in PUBLISHED} <= shown
    assert published("3dpw-test", "pa_mpjpe", "GLNet").value == 39.7  # type: ignore[union-attr]
    assert published("ehf", "pve", "GLNet") is None
