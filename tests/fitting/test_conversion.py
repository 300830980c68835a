"""People of one body as parameters of another, on body files that are generated from Anny."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("smplx", reason="the smplx package is not installed: pip install 'multihmr[smplx]'")

from generated_body import smpl_arrays, smplx_arrays, source
from toys import ToyBody, random_humans

from multihmr.bodies.base import posed
from multihmr.bodies.body_parts import BODY_JOINTS
from multihmr.bodies.smpl import SMPL
from multihmr.bodies.smplx import SMPLX
from multihmr.cli.main import run
from multihmr.fitting.body_solver import BodySolver
from multihmr.fitting.conversion import match_surfaces, priors_of
from multihmr.fitting.prior import load_prior
from multihmr.fitting.skeleton import rotation_matrix
from multihmr.fitting.surface_match import limb_of_joints, named_joints
from multihmr.fitting.track_conversion import track_to_body
from multihmr.humans import Humans, project
from multihmr.io.save import load
from multihmr.video.tracks import Track, collect

pytestmark = pytest.mark.slow

K = np.array([[1100.0, 0, 640], [0, 1100, 360], [0, 0, 1]])


@pytest.fixture(scope="module")
def smplx_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generated") / "SMPLX_NEUTRAL.npz"
    np.savez_compressed(path, **smplx_arrays())
    return path


@pytest.fixture(scope="module")
def smplx_body(smplx_path: Path) -> SMPLX:
    return SMPLX(smplx_path)


@pytest.fixture(scope="module")
def smpl_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generated") / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps(smpl_arrays()))
    return path


def humans_of(body: Any, pose: Any, shape: np.ndarray, expression: np.ndarray, **fields: Any) -> Humans:
    count = len(pose)
    place = np.tile(np.float32([0.1, -0.5, 4.0]), (count, 1))
    vertices, joints = posed(body, np.asarray(pose), shape, expression, place)
    return Humans(
        scores=np.linspace(0.9, 0.5, count), vertices=vertices, joints=joints, joints_2d=project(joints, K),
        boxes=np.zeros((count, 4)), translation=joints[:, body.center_joint],
        pelvis=joints[:, body.pelvis_joint], pose=pose, shape=shape, expression=expression, K=K,
        K_source="given", image_size=(720, 1280), body=body.name, topology=body.topology, **fields,
    )  # fmt: skip


@pytest.fixture(scope="module")
def people() -> Humans:
    """Four Anny people in captured poses, with bent fingers and moved faces."""
    body, rng, prior = source(), np.random.default_rng(0), load_prior()
    names = list(body.topology.pose_names)
    rows = rng.choice(len(prior.exemplars), 4, replace=False)
    pose = body.mean_pose_R33.repeat(4, 1, 1, 1)
    vectors = torch.from_numpy(prior.rotation_vectors(prior.exemplars[rows]))
    pose[:, [names.index(bone) for bone in prior.bones]] = rotation_matrix(vectors).float()
    for side in "LR":
        bones, mean, basis = prior.hand(side)
        fingers = torch.from_numpy((mean + rng.normal(0, 1, (4, len(basis))) @ basis).reshape(4, -1, 3))
        pose[:, [names.index(bone) for bone in bones]] = rotation_matrix(fingers).float()
    shape = rng.uniform(0.25, 0.75, (4, 6)).astype(np.float32)
    shape[:, 1] = 0.7
    expression = np.zeros((4, body.expression_count), np.float32)
    expression[:, ::5] = rng.uniform(0, 0.6, (4, 11))
    return humans_of(body, pose.numpy(), shape, expression, track_ids=np.array([4, 7, 1, 9]))


@pytest.fixture(scope="module")
def converted(people: Humans, smplx_body: SMPLX) -> Any:
    return people.to_body(smplx_body, source=source())


def test_anny_as_smplx(people: Humans, converted: Any, smplx_body: SMPLX) -> None:
    assert converted.body == "smplx"
    assert converted.converted_from == "anny"
    assert converted.errors_mm.shape == (4,)
    assert converted.errors_mm.max() < 5
    np.testing.assert_allclose(np.nanmean(converted.vertex_errors_mm, 1), converted.errors_mm, rtol=1e-5)
    assert np.isfinite(converted.vertex_errors_mm).mean() > 0.95
    names = [list(t.joint_names) for t in (people.topology, converted.topology)]
    for anny, smplx in zip(BODY_JOINTS["anny"], BODY_JOINTS["smplx"], strict=True):
        apart = converted.joints[:, names[1].index(smplx)] - people.joints[:, names[0].index(anny)]
        assert np.linalg.norm(apart, axis=1).max() < 0.03, smplx
    vertices, joints = posed(
        smplx_body, converted.pose, converted.shape, converted.expression, converted.translation
    )
    np.testing.assert_allclose(vertices, converted.vertices, atol=2e-5)
    np.testing.assert_allclose(joints, converted.joints, atol=2e-5)
    np.testing.assert_allclose(converted.joints_2d, project(joints, K), atol=0.05)
    np.testing.assert_allclose(np.linalg.det(converted.pose), 1, atol=1e-4)
    assert converted.track_ids.tolist() == [4, 7, 1, 9]
    assert converted.unpredicted == ()


def test_the_error_is_that_of_true_counterparts(people: Humans, converted: Any, smplx_body: SMPLX) -> None:
    """The generated body's vertices are some of Anny's, so the true distance of each is known."""
    true = match_surfaces(source(), smplx_body)
    nearest = true.corners[np.arange(len(true.corners)), true.weights.argmax(1)]
    apart = 1000 * np.linalg.norm(people.vertices[:, nearest] - converted.vertices[:, true.vertices], axis=-1)
    assert np.abs(apart.mean(1) - converted.errors_mm).max() < 4  # within triangles of a few millimetres


@pytest.fixture(scope="module")
def track(people: Humans) -> Track:
    """One person in four frames, who moves and grimaces."""
    shape = np.tile(people.shape[:1], (4, 1))
    frames = humans_of(source(), people.pose, shape, people.expression, track_ids=np.full(4, 7))
    return collect((frames[i] for i in range(4)), 10.0)[0]


def test_a_track_has_one_shape_and_follows_every_frame(track: Track, smplx_body: SMPLX) -> None:
    done: list[int] = []
    converted = track_to_body(track, smplx_body, source=source(), progress=done.append)
    assert (converted.id, converted.body, converted.converted_from) == (7, "smplx", "anny")
    assert sum(done) == len(converted) == 4
    assert converted.shape.shape == (10,)
    assert converted.errors_mm.shape == (4,)
    assert converted.errors_mm.max() < 6
    frames = list(converted.humans(smplx_body))
    names = [list(t.joint_names) for t in (track.topology, converted.topology)]
    for before, after in zip(track.humans(source()), frames, strict=True):
        for anny, smplx in zip(BODY_JOINTS["anny"], BODY_JOINTS["smplx"], strict=True):
            apart = after.joints[0, names[1].index(smplx)] - before.joints[0, names[0].index(anny)]
            assert np.linalg.norm(apart) < 0.035, smplx
    assert converted[1:3].errors_mm.tolist() == converted.errors_mm[1:3].tolist()
    assert track_to_body(track, "anny", source=source()).errors_mm.max() == 0
    with pytest.raises(ValueError, match="without frames"):
        track_to_body(track[:0], smplx_body, source=source())


def test_and_back(people: Humans, converted: Any, smplx_body: SMPLX) -> None:
    back = converted.to_body(source(), source=smplx_body)
    distance = 1000 * np.linalg.norm(back.vertices - people.vertices, axis=-1)
    assert distance.mean(1).max() < 8  # measured: 1.7 to 4.3
    assert (back.shape >= 0).all()
    assert (back.shape <= 1).all()
    assert {"eye.L", "metacarpal1.L"} <= set(back.unpredicted)
    assert not set(BODY_JOINTS["anny"]) & set(back.unpredicted)


def test_anny_as_smpl(people: Humans, smpl_path: Path, tmp_path: Path) -> None:
    found = people.to_body("smpl", file=smpl_path)
    assert found.errors_mm.max() < 12  # measured: 4.8 to 9.2; SMPL has no fingers
    assert found.unpredicted == ("left_hand", "right_hand")
    with np.load(found.save(tmp_path / "people.npz")) as stored:
        assert stored["body_pose"].shape == (4, 69)
        np.testing.assert_allclose(stored["errors_mm"], found.errors_mm)
        trans, betas, orient = stored["transl"], stored["betas"], stored["global_orient"]
    body = SMPL(smpl_path)
    rest = np.concatenate([np.ones((4, 1)), betas], 1) @ body.topology.rest_pelvis
    np.testing.assert_allclose(trans + rest, found.pelvis, atol=1e-5)
    assert orient.shape == (4, 3)


def test_true_smplx_people_come_back(smplx_body: SMPLX) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(0, 0.2, (3, 53, 3))
    pose = rotation_matrix(torch.from_numpy(vectors)).float()
    pose[:, 0] = pose[:, 0] @ smplx_body.mean_pose_R33[0]
    shape, face = (rng.normal(0, 0.7, (3, 10)).astype(np.float32) for _ in range(2))
    truth = humans_of(smplx_body, pose.numpy(), shape, face)
    anny = truth.to_body(source(), source=smplx_body)
    again = anny.to_body(smplx_body, source=source())
    distance = 1000 * np.linalg.norm(again.vertices - truth.vertices, axis=-1).mean(1)
    assert anny.errors_mm.max() < 12
    assert distance.max() < 14


def test_files_have_the_names_of_the_package_and_are_read_back(
    converted: Any, smplx_path: Path, smplx_body: SMPLX, tmp_path: Path
) -> None:
    import smplx

    path = converted.save(tmp_path / "people.npz")
    names = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "leye_pose")
    names += ("reye_pose", "betas", "expression", "transl")
    with np.load(path) as stored:
        given = {name: torch.from_numpy(stored[name].astype(np.float32)) for name in names}
        assert str(stored["converted_from"]) == "anny"
    model = smplx.create(
        str(smplx_path), model_type="smplx", batch_size=4, use_pca=False, flat_hand_mean=True
    )
    output = model(**given)
    np.testing.assert_allclose(output.vertices.detach(), converted.vertices, atol=2e-5)
    assert np.allclose(load(path, smplx_body).vertices, converted.vertices, atol=1e-5)
    text = converted.save(tmp_path / "people.json").read_text(encoding="utf-8")
    assert '"from": "anny"' in text


def test_what_the_people_do_not_tell_is_unknown(people: Humans, smplx_body: SMPLX) -> None:
    fingers = tuple(n for n in people.topology.joint_names if n.startswith("finger"))
    still = dataclasses.replace(people, unpredicted=(*fingers, *people.topology.expression_names))[:1]
    found = still.to_body(smplx_body, source=source())
    assert {"left_index1", "right_thumb3", "jaw", "expression_0"} <= set(found.unpredicted)
    assert "left_elbow" not in found.unpredicted
    np.testing.assert_array_equal(found.expression, 0)
    left = found.topology.pose_names.index("left_index1")
    np.testing.assert_array_equal(found.pose[0, left], np.eye(3))


def test_nobody_rows_and_the_same_body(people: Humans, converted: Any, smplx_body: SMPLX) -> None:
    nobody = people[[]].to_body(smplx_body, source=source())
    assert len(nobody) == 0
    assert nobody.body == "smplx"
    assert nobody.errors_mm.shape == (0,)
    assert nobody.pose.shape == (0, 53, 3, 3)
    assert converted[2].errors_mm[0] == converted.errors_mm[2]
    same = people.to_body("anny")
    np.testing.assert_array_equal(same.vertices, people.vertices)
    assert same.errors_mm.tolist() == [0, 0, 0, 0]


def test_people_side_by_side_are_as_alone(people: Humans, converted: Any, smplx_body: SMPLX) -> None:
    alone = people[1].to_body(smplx_body, source=source())
    assert np.abs(alone.vertices - converted[1].vertices).max() < 5e-3


def test_converted_people_need_their_file_once(
    people: Humans, smplx_path: Path, smpl_path: Path, tmp_path: Path
) -> None:
    """Heights, files that are read back, and the way to a third body know which file the process used."""
    shutil.copy(smplx_path, tmp_path)  # a file that no other test has used
    one = people[:1]
    smplx = one.to_body("smplx", file=tmp_path / "SMPLX_NEUTRAL.npz")
    smpl = one.to_body("smpl", file=smpl_path)
    for converted in (smplx, smpl):
        assert converted.height_m == pytest.approx(one.height_m, abs=0.03)
        again = load(converted.save(tmp_path / f"{converted.body}.npz"))
        np.testing.assert_allclose(again.vertices, converted.vertices, atol=1e-4)
    third = smpl.to_body("smplx", file=tmp_path / "SMPLX_NEUTRAL.npz")
    assert third.errors_mm.max() < 15
    assert smplx.to_body("anny").errors_mm.max() < 8


def test_what_cannot_be_converted_is_refused(people: Humans, smplx_body: SMPLX, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no body 'mano' to convert people to; known are smplx, smpl, anny"):
        people.to_body("mano")
    with pytest.raises(FileNotFoundError, match=r"humans.to_body\('smpl', file="):
        people.to_body("smpl")
    with pytest.raises(FileNotFoundError, match="SMPL-X is licensed"):
        people.to_body("smplx", file=tmp_path / "none.npz")
    with pytest.raises(ValueError, match="the people are of body 'anny', got source 'smplx'"):
        people.to_body("anny", source=smplx_body)
    with pytest.raises(ValueError, match="share 0 named joints"):
        random_humans(ToyBody(), 1).to_body(smplx_body, source=ToyBody())


def test_left_is_left_and_fingers_are_told_apart(smplx_body: SMPLX) -> None:
    for topology in (source().topology, smplx_body.topology):
        limbs, joints = limb_of_joints(topology), named_joints(topology)
        assert len(joints) == 22 + 30
        found = {name: limbs[joint] for name, joint in joints.items()}
        assert found["left_elbow"] == "left_arm"
        assert found["right_ring2"] == "right_ring"
        assert found["head"] == "head"
        assert found["neck"] == found["left_collar"] == "torso"
        assert found["left_knee"] == "left_leg"
        assert found["right_foot"] == "right_foot"


def test_gradients_are_those_of_the_energy(smplx_body: SMPLX) -> None:
    vertices = np.arange(0, 10475, 200)
    solver = BodySolver(smplx_body, vertices, (), priors_of(smplx_body, named_joints(smplx_body.topology)))
    rng = np.random.default_rng(0)
    start = solver.start(1)
    goals = solver.points(start)[0] + torch.from_numpy(rng.normal(0, 0.02, (1, len(vertices), 3))).float()
    sigma = torch.full((len(vertices),), 0.01)
    count = solver._unknowns(True)
    state = solver._moved(start, torch.from_numpy(rng.normal(0, 0.1, (1, count))), True)
    _, gradient = solver._gradient(state, goals, sigma, True)
    direction = torch.from_numpy(rng.normal(0, 1, (1, count)))
    step = 3e-3
    ends = [
        solver._energy(solver._moved(state, sign * step * direction, True), goals, sigma, True)
        for sign in (1, -1)
    ]
    slope = float(ends[0] - ends[1]) / (2 * step)
    assert slope == pytest.approx(2 * float((gradient * direction).sum()), rel=0.02)


def test_the_command_writes_smplx(
    people: Humans, smplx_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from PIL import Image

    class Stub:
        config, threshold, body = None, 0.3, source()

        def predict(self, image: Any, K: Any = None, **_: Any) -> Humans:
            return people[:1]

    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: Stub())
    Image.new("RGB", (1280, 720)).save(tmp_path / "a.png")
    words = ["predict", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--format", "npz,json"]
    assert run([*words, "--body-out", "smplx", "--smplx", str(smplx_path)]) == 0
    assert "as smplx within" in capsys.readouterr().out
    with np.load(tmp_path / "out" / "a.npz") as stored:
        assert str(stored["body"]) == "smplx"
        assert stored["body_pose"].shape == (1, 63)
    assert run([*words, "--body-out", "smplx", "--smplx", str(tmp_path / "none.npz")]) == 1
    assert "SMPL-X is licensed" in capsys.readouterr().err
    assert run([*words, "--smpl", "x.pkl"]) == 1


def test_the_video_command_writes_smplx(
    people: Humans, smplx_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from PIL import Image

    class Stub:
        config, threshold, body = None, 0.3, source()

        def predict_batch(self, images: list[Any], Ks: Any = None, **_: Any) -> list[Humans]:
            return [dataclasses.replace(people[:1], track_ids=None) for _ in images]

    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: Stub())
    (tmp_path / "film").mkdir()
    for number in range(4):
        Image.new("RGB", (1280, 720)).save(tmp_path / "film" / f"{number}.png")
    words = ["video", str(tmp_path / "film"), "--out", str(tmp_path / "out"), "--format", "npz,bvh,glb"]
    assert run([*words, "--body-out", "smplx", "--smplx", str(smplx_path)]) == 0
    assert "person 1 as smplx within" in capsys.readouterr().out
    with np.load(tmp_path / "out" / "person_001.npz") as stored:
        assert str(stored["body"]) == str(stored["surface_model_type"]) == "smplx"
        assert stored["poses"].shape == (4, 165)
        assert stored["betas"].shape == (10,)
    assert (tmp_path / "out" / "person_001.bvh").read_text(encoding="utf-8").startswith("HIERARCHY")
    assert run([*words, "--smpl", "x.pkl"]) == 1
    assert "--body-out smpl" in capsys.readouterr().err
