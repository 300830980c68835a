from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multihmr.bodies.anny import Anny
from multihmr.bodies.base import Body
from multihmr.bodies.body_parts import body_joints
from multihmr.evaluation.correspondence import mesh_parts
from multihmr.evaluation.protocol_files import ProtocolFiles
from multihmr.evaluation.report import Result, table
from multihmr.evaluation.runner import Protocol, evaluate
from multihmr.humans import Humans

from .conftest import ToyModel, people, scene

SCENES = [
    scene(0, [(0, 0, 3), (1.5, 0, 5)]),
    scene(1, []),
    scene(2, [(-1, 0, 2.5)]),
    scene(3, [(-2, 0, 6), (0, 0, 7), (2.5, 0, 9)]),
]


def oracle(body: Body) -> Any:
    return lambda s: people(body, s.pose, s.shape, s.translation)


def evaluated(body: Body, answer: Any, samples: list = SCENES, **options: Any) -> Result:
    return evaluate(ToyModel(body, samples, answer), samples, Protocol(batch_size=3, **options))


@pytest.mark.slow
def test_a_perfect_model_gets_full_marks(body: Body) -> None:
    result = evaluated(body, oracle(body))
    assert (result.precision, result.recall, result.f1) == (1, 1, 1)
    assert (result.images, result.figures.people, result.counts.found) == (4, 6, 6)
    figures = result.figures
    for error in (figures.mpjpe, figures.pa_mpjpe, figures.pve, figures.pa_pve, figures.hand_pa_pve):
        assert error < 0.01
    assert figures.head_m < 1e-5
    assert figures.head_percent < 1e-3


@pytest.mark.slow
def test_the_mean_pose_baseline_reproduces_itself(body: Body) -> None:
    def mean_pose(s: Any) -> Humans:
        n = len(s.pose)
        pose = body.mean_pose_R33.numpy()[None].repeat(n, axis=0)
        return people(body, pose, body.mean_shape_S.numpy()[None].repeat(n, axis=0), s.translation)

    result = evaluated(body, mean_pose, iou_threshold=0)
    assert result.recall == 1
    # Somebody may be matched with a neighbour in such poor guesses, so compare where that cannot be.
    one = evaluated(body, mean_pose, SCENES[2:3], iou_threshold=0)
    np.testing.assert_allclose(one.people.errors, one.people.baseline, rtol=1e-3, atol=1e-3)
    assert one.baseline.mpjpe > 50


@pytest.mark.slow
def test_the_baseline_is_measured_on_the_people_who_were_found_and_on_all(body: Body) -> None:
    result = evaluated(body, lambda s: oracle(body)(s)[:1])
    assert result.counts.missed == 3
    assert result.baseline.people == result.figures.people == 3
    assert result.baseline_all.people == 6
    np.testing.assert_allclose(result.baseline.mpjpe, result.people.baseline[result.people.found, 0].mean())
    np.testing.assert_allclose(result.baseline_all.mpjpe, result.people.baseline[:, 0].mean())


def test_errors_are_what_was_put_in(body: Body) -> None:
    def farther(s: Any) -> Humans:
        return people(body, s.pose, s.shape * 1.1, s.translation * 1.02)

    result = evaluated(body, farther)
    assert result.f1 == 1
    assert result.figures.head_percent == pytest.approx(2, abs=1e-3)
    assert result.figures.head_m == pytest.approx(0.02 * np.median(result.people.distance), rel=1e-3)
    assert result.figures.mpjpe > 10
    assert result.figures.pa_mpjpe < 0.01  # scale is what Procrustes takes out


def test_a_turned_hand_is_no_error_of_the_hand(body: Body) -> None:
    def turned(s: Any) -> Humans:
        pose = s.pose.copy()
        pose[:, 1] = pose[:, 1] @ np.diag([-1.0, -1, 1])
        return people(body, pose, s.shape, s.translation)

    figures = evaluated(body, turned).figures
    assert figures.mpjpe < 0.01
    assert figures.pa_pve > 10
    assert figures.hand_pa_pve < 0.01


def test_nobody_found_gives_no_errors_but_a_baseline(body: Body) -> None:
    result = evaluated(body, lambda s: oracle(body)(s)[:0])
    assert (result.recall, result.f1, result.figures.people) == (0, 0, 0)
    assert np.isnan(result.precision)
    assert np.isnan(result.figures.mpjpe)
    assert result.baseline_all.mpjpe > 50
    assert "| 0 | – |" in table(result)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["figures"]["mpjpe"] is None


def test_two_predictions_of_one_person_are_one_too_many(body: Body) -> None:
    result = evaluated(body, lambda s: oracle(body)(s)[[0, 0]], SCENES[2:3])
    assert (result.counts.found, result.counts.false, result.precision) == (1, 1, 0.5)


def test_an_empty_picture_needs_no_trailing_shapes(body: Body) -> None:
    nothing = np.zeros((0, 0))
    empty = replace(scene(1, []), pose=np.zeros((0, 0, 3, 3)), shape=nothing, expression=nothing)
    result = evaluated(body, lambda s: oracle(body)(SCENES[2]), [empty])
    assert (result.counts.false, result.counts.missed, result.baseline_all.people) == (1, 0, 0)


def test_who_is_hidden_may_be_found_or_missed(body: Body) -> None:
    hidden = scene(3, [(-2, 0, 6), (0, 0, 7), (2.5, 0, 9)])
    hidden.visibility[1] = 0.05
    for rows in ([0, 1, 2], [0, 2]):
        result = evaluated(body, lambda s, rows=rows: oracle(body)(s)[rows], [hidden])
        assert (result.f1, result.figures.people, result.counts.ignored) == (1, 2, 1)
    assert evaluated(body, lambda s: oracle(body)(s)[[0, 2]], [hidden], min_visibility=0).recall == 2 / 3


@pytest.mark.slow
def test_the_camera_is_given_or_left_to_the_model(body: Body) -> None:
    for given in (True, False):
        model = ToyModel(body, SCENES, oracle(body))
        evaluate(model, SCENES, Protocol(given_camera=given))
        assert all((Ks is not None) == given for Ks in model.Ks)


@pytest.mark.slow
def test_groups_add_up(body: Body) -> None:
    result = evaluated(body, lambda s: oracle(body)(s)[:1])
    assert {"distance", "visible share", "head", "people in the picture", "age"} == set(result.groups)
    for groups in result.groups.values():
        assert sum(group.people for group in groups) == 6
        assert sum(group.model.people for group in groups) == 3


@pytest.mark.slow
def test_the_watcher_is_told_how_bad_each_prediction_was(body: Body) -> None:
    model = ToyModel(body, SCENES, lambda s: oracle(body)(s)[:1])
    badness: dict[str, float] = {}
    evaluate(model, SCENES, watch=lambda sample, _, bad: badness.update({sample.name: bad}))
    assert sorted(badness, key=badness.get, reverse=True)[:2] == ["scene 3", "scene 0"]
    assert badness["scene 3"] == pytest.approx(2000, abs=0.1)


@pytest.mark.slow
def test_the_result_is_written_as_table_json_and_people(body: Body, tmp_path: Path) -> None:
    model = ToyModel(body, SCENES, lambda s: oracle(body)(s)[:1])
    evaluate(model, SCENES, names=("toy", "scenes")).save(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["counts"]["missed"] == 3
    assert "toy" in (tmp_path / "table.md").read_text(encoding="utf-8")
    rows = list(csv.DictReader((tmp_path / "people.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["found"] for row in rows] == ["True", "False", "True", "True", "False", "False"]


def test_a_body_without_known_joints_is_refused(body: Body) -> None:
    topology = replace(body.topology, joint_names=tuple(f"joint {i}" for i in range(23)))
    with pytest.raises(ValueError, match="none of the known joint sets"):
        body_joints(topology)


def test_the_joints_and_hands_of_anny_are_known() -> None:
    anny = Anny()
    assert len(body_joints(anny.topology)) == 22
    parts, _ = mesh_parts(anny.topology, ProtocolFiles())
    left, right = parts.hands
    assert left.sum() == right.sum() > 1000
    output = anny(anny.mean_pose_R33[None], anny.mean_shape_S[None], torch.zeros(1, anny.expression_count))
    vertices = output.vertices_PV3[0]
    assert vertices[left, 0].min() > 0 > vertices[right, 0].max()  # facing the camera, our right is its left


def test_no_samples_is_refused(body: Body) -> None:
    with pytest.raises(ValueError, match="no samples"):
        evaluated(body, oracle(body), [])
