"""The 68 points of a face: where they lie on the mesh, and what they tell of expressions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fitting.people import SIZE, K

from multihmr.bodies.anny import Anny
from multihmr.bodies.keypoint_sets import keypoint_names, mirror_order
from multihmr.cli.fit import sample_of
from multihmr.fitting import FittedHumans, fit
from multihmr.fitting.point_sets import FACE_NAMES, find_points
from multihmr.humans import project

NAMES = (*keypoint_names("coco17"), *FACE_NAMES)
ACTIONS = (
    {"jawOpen": 0.5, "mouthSmileLeft": 0.7, "mouthSmileRight": 0.7},
    {"eyeBlinkLeft": 0.9, "eyeBlinkRight": 0.9, "browInnerUp": 0.6, "browOuterUpLeft": 0.6},
    {"mouthPucker": 0.8, "browDownLeft": 0.8, "browDownRight": 0.8},
)


@pytest.fixture(scope="module")
def body() -> Anny:
    return Anny().eval()


def faces(body: Anny, *actions: dict[str, float]) -> torch.Tensor:
    """(P, 52) strengths."""
    expression = torch.zeros(len(actions), body.expression_count)
    for row, strengths in zip(expression, actions, strict=True):
        for name, strength in strengths.items():
            row[body.topology.expression_names.index(name)] = strength
    return expression


@torch.no_grad()
def people(body: Anny, *actions: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 85, 3) and vertices of average people who stand before the camera, 1.2 m away."""
    count = len(actions)
    pose, shape = body.mean_pose_R33.repeat(count, 1, 1, 1), body.mean_shape_S.repeat(count, 1)
    output = body(pose, shape, faces(body, *actions))
    vertices, joints = output.vertices_PV3.numpy().astype(float), output.joints_PJ3.numpy().astype(float)
    place = np.array([0.05, 0.9, 1.2])
    return find_points(body, "coco17", NAMES)[0].points(vertices, joints) + place, vertices + place


def face_error(body: Anny, humans: FittedHumans, vertices: np.ndarray) -> float:
    """Mean distance [mm] of the vertices of the face, heads aligned with their size."""
    with torch.no_grad():
        shape = body.mean_shape_S.repeat(body.expression_count + 1, 1)
        rest = body.rest(shape, torch.cat([torch.zeros(1, 52), torch.eye(52)])).numpy()
    moved = np.linalg.norm(rest[1:] - rest[0], axis=-1).max(0) > 1e-3
    still = ~moved & (rest[0, :, 2] > rest[0, :, 2].max() - 0.12)
    errors = []
    for mine, true in zip(humans.vertices.astype(float), vertices, strict=True):
        a, b = mine[still] - mine[still].mean(0), true[still] - true[still].mean(0)
        U, S, Vh = np.linalg.svd(b.T @ a)
        R, scale = U @ Vh, S.sum() / (a**2).sum()
        aligned = scale * (mine[moved] - mine[still].mean(0)) @ R.T + true[still].mean(0)
        errors.append(np.linalg.norm(aligned - true[moved], axis=1).mean())
    return 1000 * float(np.mean(errors))


def test_the_points_are_those_of_a_face(body: Anny) -> None:
    (at,), _ = people(body, {})
    x, y = dict(zip(NAMES, at[:, 0], strict=True)), dict(zip(NAMES, at[:, 1], strict=True))  # y points down
    order = ["right_eye_brow3", "right_eye3", "nose1", "nose4", "nose_middle", "mouth_top", "lip_top"]
    order += ["lip_bottom", "mouth_bottom", "contour_middle"]
    heights = [y[name] for name in order]
    assert heights == sorted(heights)
    assert y["right_eye3"] < y["right_eye5"]
    contour = [y[f"right_contour_{i}"] for i in range(1, 9)]
    assert contour == sorted(contour)
    across = ["right_contour_4", "right_eye1", "right_eye2", "right_eye3", "right_eye4", "nose1"]
    places = [x[name] for name in across]  # the person's right is the picture's left
    assert places == sorted(places)
    assert x["right_mouth_1"] < x["right_mouth_2"] < x["right_mouth_3"] < x["mouth_top"]
    mirrored = at[mirror_order(NAMES)] * (-1, 1, 1) + (0.1, 0, 0)
    np.testing.assert_allclose(at[17:], mirrored[17:], atol=2e-5)
    # COCO's own points of the face lie between them
    np.testing.assert_allclose(at[0], at[NAMES.index("nose4")], atol=0.012)
    eye = at[[NAMES.index(f"left_eye{i}") for i in range(1, 7)]].mean(0)
    np.testing.assert_allclose(at[1], eye, atol=0.012)


def test_points_follow_the_facial_actions(body: Anny) -> None:
    still, opened, blink, raised = people(
        body, {}, {"jawOpen": 1.0}, {"eyeBlinkLeft": 1.0}, {"browOuterUpRight": 1.0}
    )[0]
    at = {name: i for i, name in enumerate(NAMES)}

    def gap(points: np.ndarray, upper: str, lower: str) -> float:
        return float(points[at[lower], 1] - points[at[upper], 1])

    assert gap(still, "lip_top", "lip_bottom") < 0.004
    assert gap(opened, "lip_top", "lip_bottom") > 0.02
    assert opened[at["contour_middle"], 1] - still[at["contour_middle"], 1] > 0.01
    assert gap(blink, "left_eye2", "left_eye6") < 0.3 * gap(still, "left_eye2", "left_eye6")
    assert gap(blink, "right_eye2", "right_eye6") == pytest.approx(
        gap(still, "right_eye2", "right_eye6"), abs=1e-5
    )
    assert still[at["right_eye_brow2"], 1] - raised[at["right_eye_brow2"], 1] > 0.003


def test_derivatives_by_facial_actions_are_those_of_the_energy(body: Anny) -> None:
    from multihmr.fitting.fitter import _fitter, _starts
    from multihmr.fitting.inputs import read_inputs
    from multihmr.fitting.solver import Energy

    fitter = _fitter(body, "coco17", NAMES)
    points, _ = people(body, ACTIONS[0])
    seen = read_inputs(
        project(points, K), K, None, None, None,
        names=fitter.names, kept=fitter.kept, sigma=None, sigma_3d=None, image_size=SIZE,
    ).seen  # fmt: skip
    state = _starts(fitter, seen)[0].rows(torch.tensor([0]))
    state.face_PE[:] = 0.3
    energy = Energy(fitter.skeleton, fitter.model, fitter.shape_prior, seen, upright=True)
    energy.robust = 1e6
    energy.expand(state.shape_PS.float())
    terms = energy(state)
    step = 1e-6
    first = 6 + state.pose_PD.shape[1]
    assert terms.gradient_PN.shape[1] == first + len(fitter.skeleton.actions) + 6
    for unknown in (0, 2, 4, 20, first, first + 7, first + 30, first + len(fitter.skeleton.actions) + 1):
        change = torch.zeros(1, terms.gradient_PN.shape[1], dtype=torch.float64)
        change[0, unknown] = step
        numeric = (energy(state.moved(change)).energy_P - energy(state.moved(-change)).energy_P) / (2 * step)
        assert numeric.item() == pytest.approx(2 * terms.gradient_PN[0, unknown].item(), rel=1e-3, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "share"), [(0.0, 0.55), (1.5, 0.65)])
def test_expressions_follow_the_points(body: Anny, noise: float, share: float) -> None:
    """Error of the face's vertices against that without its points; measured: see docs/guides/fitting.md."""
    points, vertices = people(body, *ACTIONS)
    xy = project(points, K)
    xy = xy + np.random.default_rng(0).normal(0, noise, xy.shape)
    inside = ((xy > 0) & (xy < SIZE[::-1])).all(-1).astype(float)
    humans = fit(xy, K, confidence=inside, names=NAMES, body=body, image_size=SIZE)
    alone = fit(xy[:, :17], K, confidence=inside[:, :17], body=body, image_size=SIZE)
    assert face_error(body, humans, vertices) < share * face_error(body, alone, vertices)
    assert humans.expression.min() >= 0
    assert humans.expression.max() <= 1
    jaw = humans.topology.expression_names.index("jawOpen")
    assert humans.expression[0, jaw] > 0.25 > humans.expression[1:, jaw].max()
    assert "jawOpen" not in humans.unpredicted
    assert {"tongueOut", "eyeLookUpLeft"} <= set(humans.unpredicted)
    assert set(humans.topology.expression_names) <= set(alone.unpredicted)
    assert not alone.expression.any()
    assert humans.face_errors_px is not None
    assert alone.face_errors_px is not None
    assert humans.face_errors_px.mean() < 1.5 + noise
    assert np.isnan(alone.face_errors_px).all()
    # what is known becomes a label of a sample to train on, all else is unknown
    sample = sample_of(humans, np.zeros((*SIZE, 3), np.uint8), "a")
    assert sample.expression[0, jaw] == humans.expression[0, jaw]
    assert np.isnan(sample.expression[:, humans.topology.expression_names.index("tongueOut")]).all()
    assert np.isnan(sample_of(alone, np.zeros((*SIZE, 3), np.uint8), "a").expression).all()


@pytest.mark.slow
def test_faces_of_few_pixels_do_not_disturb_the_body(body: Anny) -> None:
    points, _ = people(body, ACTIONS[0])
    points = points + (0, -0.9, 24.0)  # faces are 8 pixels high
    xy = project(points, K)
    assert np.ptp(xy[0, 17:, 1]) < 12
    rng = np.random.default_rng(0)
    xy[:, 17:] += rng.normal(3, 2, (68, 2))
    xy[:, :17] += rng.normal(0, 1.5, (17, 2))
    humans = fit(xy, K, names=NAMES, body=body, image_size=SIZE)
    alone = fit(xy[:, :17], K, body=body, image_size=SIZE)
    np.testing.assert_allclose(humans.joints, alone.joints, atol=1e-3)  # of 24 m
    assert "jawOpen" in humans.unpredicted


@pytest.mark.slow
def test_points_in_space_and_two_views_know_the_face(body: Anny) -> None:
    points, vertices = people(body, ACTIONS[0])
    humans = fit(None, K, keypoints_3d=points, names=NAMES, body=body, image_size=SIZE)
    assert face_error(body, humans, vertices) < 2
    assert humans.expression[0, humans.topology.expression_names.index("jawOpen")] > 0.25
    turn = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
    camera = np.concatenate([turn, np.array([[0], [0], [1.2]]) - turn @ [[0], [0], [1.2]]], 1)
    views = [project(points, K), project(points @ turn.T + camera[:, 3], K)]
    humans = fit(views, K, extrinsics=[np.eye(3, 4), camera], names=NAMES, body=body, image_size=SIZE)
    assert face_error(body, humans, vertices) < 2


@pytest.mark.slow
def test_a_face_over_several_frames(body: Anny) -> None:
    points, _ = people(body, *({"jawOpen": 0.1 * i} for i in range(6)))
    xy = project(points, K)
    inside = ((xy > 0) & (xy < SIZE[::-1])).all(-1).astype(float)
    humans = fit(xy, K, confidence=inside, names=NAMES, body=body, image_size=SIZE, fps=25)
    jaw = humans.expression[:, humans.topology.expression_names.index("jawOpen")]
    assert (np.diff(jaw) > 0.02).all()
    assert jaw[0] < 0.15
