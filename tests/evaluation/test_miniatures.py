"""The benchmarks from end to end on miniatures of the data sets: files, reader, protocol, figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from data.miniatures import write_agora, write_bedlam, write_ehf, write_ubody
from data.miniatures_joints import Camera, Scene, write_h36m, write_mupots, write_panoptic, write_threedpw

from multihmr.bodies.body_parts import BODY_JOINTS, vertex_parts
from multihmr.bodies.keypoint_sets import keypoint_sets
from multihmr.bodies.topology import Topology
from multihmr.data import dataset_class
from multihmr.data.sample import Sample
from multihmr.evaluation import benchmarks as protocols
from multihmr.evaluation.benchmarks import BENCHMARKS
from multihmr.evaluation.correspondence import PANOPTIC_SHIFT
from multihmr.evaluation.ground_truth import true_people
from multihmr.evaluation.runner import Plan, measure
from multihmr.humans import Humans, project

NAMES = (*BODY_JOINTS["smplx"], "left_middle1", "right_middle1", "head_top", "nose")
NAMES += ("left_eye", "right_eye", "left_ear", "right_ear")
POINTS = Topology("points", np.zeros((0, 3)), NAMES, (-1,) * len(NAMES), keypoint_sets(NAMES), (), ())
MEAN_HANDS = 0.3 * np.random.default_rng(0).normal(size=(30, 3))
SCENES, CAMERA = [Scene.random(4), Scene.random(5)], Camera.at((0.5, 1, 4))


class Oracle:
    """Says of each picture of a data set what it was told."""

    def __init__(self, body: Any, samples: Any, answer: Callable[[int, Sample], Humans]) -> None:
        self.body = body
        self._answers = {s.image.tobytes(): answer(i, s) for i, s in enumerate(samples)}

    def predict_batch(self, images: list, Ks: Any = None, **_: Any) -> list[Humans]:
        return [self._answers[image.tobytes()] for image in images]


def humans(
    topology: Topology, vertices: np.ndarray, joints: np.ndarray, K: np.ndarray, size: tuple[int, int]
) -> Humans:
    nothing = {
        "pose": np.zeros((0, 3, 3)),
        "shape": np.zeros(len(topology.shape_names)),
        "boxes": np.zeros(4),
    }
    nothing["expression"] = np.zeros(len(topology.expression_names))
    return Humans(
        scores=np.ones(len(joints)), vertices=vertices, joints=joints, joints_2d=project(joints, K),
        translation=joints[:, 15], pelvis=joints[:, 0], K=K, K_source="given", image_size=size,
        body=topology.name, topology=topology,
        **{name: np.repeat(x[None], len(joints), 0) for name, x in nothing.items()},
    )  # fmt: skip


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """split(name, split): measures a benchmark on another split, the one that a miniature has."""

    def change(name: str, other: str) -> None:
        monkeypatch.setitem(BENCHMARKS, name, replace(BENCHMARKS[name], split=other))

    return change


# --- joints ------------------------------------------------------------------------------------------------


def measured_points(name: str, root: Path, scene_of: Callable[[int], Scene], **moved: Any) -> Any:
    """The score of who says where the puppets are; `moved` joints are elsewhere by these metres."""
    benchmark = BENCHMARKS[name]
    samples = dataset_class(benchmark.dataset)(root, benchmark.split)
    body = SimpleNamespace(name="points", topology=POINTS, mean_shape_S=torch.zeros(1))

    def answer(index: int, sample: Sample) -> Humans:
        people = []
        for person in scene_of(index).puppets()[: len(sample)]:
            known = dict(zip((*NAMES[:24],), person.joints, strict=True)) | person.points
            people.append([CAMERA.sees(known[joint]) + moved.get(joint, 0) for joint in NAMES])
        joints = np.array(people)
        return humans(POINTS, joints[:, :1], joints, CAMERA.K, sample.image.shape[:2])

    return measure(Oracle(body, samples, answer), Plan(name, root))  # type: ignore[arg-type]


def test_mupots(tmp_path: Path) -> None:
    write_mupots(tmp_path, SCENES, CAMERA)
    score = measured_points("mupots", tmp_path, lambda i: SCENES[i])
    assert score.figures["all_pck"] == score.figures["recall"] == 1
    assert score.figures["mpjpe"] > 10  # the universal people are smaller
    off = measured_points("mupots", tmp_path, lambda i: SCENES[i], right_wrist=np.array([9, 0, 0]))
    assert off.figures["all_pck"] == pytest.approx(13 / 14)


def test_3dpw_without_the_files_of_smpl(tmp_path: Path) -> None:
    write_threedpw(tmp_path, SCENES, [CAMERA, CAMERA])
    score = measured_points("3dpw-test", tmp_path, lambda i: SCENES[i])
    assert score.counts.found == 4
    assert score.figures["mpjpe"] < 0.1
    assert any("SMPL_FEMALE (from https://smpl.is.tue.mpg.de" in note for note in score.notes)
    off = measured_points("3dpw-test", tmp_path, lambda i: SCENES[i], left_wrist=np.array([0.24, 0, 0]))
    assert off.figures["mpjpe"] == pytest.approx(10, abs=0.1)  # one of 24


def test_panoptic(tmp_path: Path, split: Callable[[str, str], None]) -> None:
    write_panoptic(tmp_path, SCENES[:1], {"00_16": CAMERA, "00_30": CAMERA})
    split("panoptic", "pizza")
    score = measured_points("panoptic", tmp_path, lambda i: SCENES[0])
    shift = 1000 * float(np.linalg.norm(PANOPTIC_SHIFT))
    assert score.figures["mpjpe"] == pytest.approx(13 / 14 * shift, rel=1e-3)
    assert score.figures["recall"] == 1


def test_h36m(tmp_path: Path) -> None:
    for subject in (9, 11):
        write_h36m(tmp_path, SCENES[0], CAMERA, subject=subject)
    score = measured_points("h36m", tmp_path, lambda i: SCENES[0])
    assert score.figures["mpjpe"] < 0.1
    assert score.figures["f1"] == 1


# --- meshes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bodies(fake_smplx_file: Path) -> dict[int, Any]:
    """SMPL-X from the made-up file, by its number of betas."""
    pytest.importorskip("smplx", reason="the smplx package is not installed: pip install 'multihmr[smplx]'")
    from multihmr.bodies.smplx import SMPLX

    return {count: SMPLX(fake_smplx_file, shape_count=count) for count in (10, 11)}


@pytest.fixture
def fed_back(
    bodies: dict[int, Any], fake_smplx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """fed_back(name, root, true vertices of each picture): the figures of who says just these, but for a
    shift of the left hand [m]."""
    from multihmr.bodies.smplx_reader import read_smplx

    regressor = read_smplx(fake_smplx_file, 10).regressor
    monkeypatch.setattr(protocols, "_smplx_regressor", lambda files: regressor)
    monkeypatch.setattr(protocols, "_load", lambda sample, gender, files: bodies[sample.shape.shape[1]])
    topology = bodies[10].topology
    hand = vertex_parts(topology)["left_hand"]

    def run(name: str, root: Path, truth: list, shift: tuple[float, float, float] = (0, 0, 0)) -> Any:
        samples = dataset_class(BENCHMARKS[name].dataset)(root, BENCHMARKS[name].split)

        def answer(index: int, sample: Sample) -> Humans:
            vertices = truth[index].astype(np.float32)
            joints = np.repeat(vertices[:, :1], 127, axis=1)
            if sample.pose.shape[1]:
                joints = true_people(bodies[sample.shape.shape[1]], sample).outline.numpy()
            vertices[:, hand] += np.float32(shift)
            return humans(topology, vertices, joints, sample.K, sample.image.shape[:2])

        oracle: Any = Oracle(bodies[10], samples, answer)
        return measure(oracle, Plan(name, root))

    return run


@pytest.mark.slow
def test_ehf(fed_back: Any, bodies: dict[int, Any], tmp_path: Path) -> None:
    truth = write_ehf(tmp_path, bodies[11])
    figures = fed_back("ehf", tmp_path, truth).figures
    for name in ("pve", "pa_pve", "hand_pve", "face_pve"):
        assert figures[name] < 0.1
    figures = fed_back("ehf", tmp_path, truth, (0, 0, 0.01)).figures
    share = len(vertex_parts(bodies[10].topology)["left_hand"]) / 10475
    assert figures["pve"] == pytest.approx(10 * share, abs=0.1)
    assert figures["hand_pa_pve"] < 0.1


@pytest.mark.slow
def test_bedlam(fed_back: Any, bodies: dict[int, Any], tmp_path: Path, split: Any) -> None:
    truth = write_bedlam(tmp_path, bodies[11])
    split("bedlam-val", "training")
    score = fed_back("bedlam-val", tmp_path, truth)
    assert (score.counts.found, score.figures["f1"]) == (5, 1)
    assert score.figures["camera_pve"] < 0.5
    off = fed_back("bedlam-val", tmp_path, truth, (0, 0.01, 0)).figures
    assert off["left_hand_pve"] == pytest.approx(10, abs=0.2)
    assert off["right_hand_pve"] < 0.2


@pytest.mark.slow
def test_agora(fed_back: Any, bodies: dict[int, Any], tmp_path: Path, split: Any) -> None:
    truth = write_agora(tmp_path, bodies[11], MEAN_HANDS)
    split("agora-val", "train")
    score = fed_back("agora-val", tmp_path, truth)
    assert score.figures["f1"] == 1
    assert score.figures["nmve"] == score.figures["pve"] < 0.5
    assert (
        np.isnan(score.table[:, score.columns.index("mpjpe")]).sum() == 1
    )  # a child counts as found; her shape is not SMPL-X's


@pytest.mark.slow
def test_ubody(fed_back: Any, bodies: dict[int, Any], tmp_path: Path) -> None:
    truth = write_ubody(tmp_path, bodies[11], MEAN_HANDS)
    score = fed_back("ubody", tmp_path, truth)
    row = dict(zip(score.columns, score.table[0], strict=True))
    assert np.isnan(row["right_hand_pve"])  # was not seen
    # Unlike the real one, the made-up body bends everywhere with a hand whose pose is not known.
    assert row["hand_pve"] == row["left_hand_pve"] < 10
