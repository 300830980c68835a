from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from fitting.people import SIZE, K, Truth, mean_pa_mpjpe, people

from multihmr.bodies.anny import Anny
from multihmr.bodies.body_parts import body_joints
from multihmr.fitting import FittedHumans, fit
from multihmr.fitting import fitter as fitter_module
from multihmr.fitting.prior import load_prior
from multihmr.fitting.skeleton import rotation_matrix
from multihmr.humans import Keypoints
from multihmr.world.heights import heights


@pytest.fixture(scope="module")
def body() -> Anny:
    return Anny().eval()


@pytest.fixture(scope="module")
def truth(body: Anny) -> Truth:
    return people(body, 3, seed=3)


@pytest.fixture(scope="module")
def fitted(body: Anny, truth: Truth) -> FittedHumans:
    """To the points in one view."""
    return fit(truth.pixels(), K, body=body, image_size=SIZE)


@pytest.fixture(scope="module")
def in_space(body: Anny, truth: Truth) -> FittedHumans:
    """To the points in space."""
    return fit(None, K, keypoints_3d=truth.points, body=body, image_size=SIZE)


@pytest.fixture(scope="module")
def alone(body: Anny, truth: Truth) -> FittedHumans:
    """The first person, to the points in one view."""
    return fit(truth.pixels()[:1], K, body=body, image_size=SIZE)


@pytest.mark.slow
def test_true_points_in_a_picture(fitted: FittedHumans, truth: Truth) -> None:
    humans = fitted
    assert len(humans) == 3
    assert mean_pa_mpjpe(humans, truth) < 55
    assert humans.errors_px is not None
    assert humans.errors_mm is not None
    assert humans.errors_px.max() < 8
    assert np.isnan(humans.errors_mm).all()
    # what errors_px says is what the fitted people show
    shown = np.linalg.norm(humans.keypoints("coco17").xy - truth.pixels(), axis=-1).mean(1)
    np.testing.assert_allclose(humans.errors_px, shown, atol=0.02)


@pytest.mark.slow
def test_true_points_in_space(in_space: FittedHumans, truth: Truth) -> None:
    humans = in_space
    assert mean_pa_mpjpe(humans, truth) < 20
    assert humans.errors_mm is not None
    assert humans.errors_mm.max() < 25
    assert np.abs(humans.keypoints("coco17").xyz - truth.points).mean() < 0.012


@pytest.mark.slow
def test_two_views_are_better_than_one_and_know_the_place(body: Anny, truth: Truth) -> None:
    views = [truth.pixels(0), truth.pixels(1)]
    humans = fit(views, K, extrinsics=truth.extrinsics[:2], body=body, image_size=SIZE)
    assert mean_pa_mpjpe(humans, truth) < 30
    assert np.abs(humans.pelvis - truth.joints[:, 0]).max() < 0.05


@pytest.mark.slow
def test_two_views_with_noise_and_outliers(body: Anny) -> None:
    """Two of 17 points in each view 40 to 140 pixels off: 16.7 mm; 17.6 where all last rounds are narrow."""
    many = people(body, 24, 4)
    rng = np.random.default_rng(0)
    views = [many.pixels(view) + rng.normal(0, 3, (24, 17, 2)) for view in (0, 1)]
    for view in views:
        for person in view:
            rows = rng.choice(17, 2, replace=False)
            person[rows] += rng.choice([-1, 1], (2, 2)) * rng.uniform(40, 140, (2, 2))
    humans = fit(views, K, extrinsics=many.extrinsics[:2], body=body, image_size=SIZE)
    assert mean_pa_mpjpe(humans, many) < 17.2


@pytest.mark.slow
def test_a_point_that_is_far_off_does_not_count(body: Anny, fitted: FittedHumans, truth: Truth) -> None:
    wrong = truth.pixels().copy()
    wrong[:, 9] += (250, -150)  # the left wrist
    humans = fit(wrong, K, body=body, image_size=SIZE)
    others = np.arange(17) != 9
    moved = np.linalg.norm(humans.keypoints("coco17").xy - fitted.keypoints("coco17").xy, axis=-1)
    # 292 pixels of people who are 700 high; least squares without the robust function would follow
    assert moved[:, others].mean() < 10
    assert np.median(moved[:, 9]) < 60


@pytest.mark.slow
def test_the_same_points_give_the_same_people(body: Anny, fitted: FittedHumans, truth: Truth) -> None:
    again = fit(truth.pixels(), K, body=body, image_size=SIZE)
    np.testing.assert_array_equal(again.vertices, fitted.vertices)


@pytest.mark.slow
def test_predicted_people_are_a_beginning(body: Anny, fitted: FittedHumans, truth: Truth) -> None:
    first = fitted
    humans = fit(truth.pixels(), K, init=first, body=body, image_size=SIZE)
    assert humans.errors_px is not None
    assert first.errors_px is not None
    assert humans.errors_px.mean() < first.errors_px.mean() + 0.1
    with pytest.raises(ValueError, match="init has 2 people but the keypoints have 3"):
        fit(truth.pixels(), K, init=first[:2], body=body)


@pytest.mark.slow
def test_unknown_joints_are_named(body: Anny, fitted: FittedHumans, truth: Truth) -> None:
    humans = fitted
    assert {"finger2-1.L", "toe1-1.R", "foot.L", "jawOpen"} <= set(humans.unpredicted)
    assert not {"root", "upperarm01.L", "lowerleg01.R", "head"} & set(humans.unpredicted)
    legs_unseen = np.ones((1, 17))
    legs_unseen[:, 15:] = 0
    humans = fit(truth.pixels()[:1], K, confidence=legs_unseen, body=body, image_size=SIZE)
    assert "lowerleg01.R" in humans.unpredicted
    assert "upperleg01.R" not in humans.unpredicted


def test_errors_follow_the_people(fitted: FittedHumans) -> None:
    humans = fitted
    chosen = humans[[2, 0]]
    assert humans.errors_px is not None
    np.testing.assert_array_equal(chosen.errors_px, humans.errors_px[[2, 0]])
    assert len(humans[[]]) == 0


@pytest.mark.slow
def test_progress_counts_people(body: Anny, truth: Truth) -> None:
    said: list[tuple[int, int]] = []
    fit(None, K, keypoints_3d=truth.points[:2], body=body, progress=lambda *told: said.append(told))
    assert said == [(2, 2)]


def test_nobody(body: Anny) -> None:
    assert len(fit(np.zeros((0, 17, 2)), K, body=body)) == 0


XY = np.full((1, 17, 2), 300.0) + np.arange(34).reshape(1, 17, 2)
INFINITE = XY.copy()
INFINITE[0, 3] = np.inf
BEHIND = np.concatenate([XY / 300, np.full((1, 17, 1), -2.0)], -1)
MILLIMETRES = np.concatenate([1000 * XY / XY.max(), np.full((1, 17, 1), 3000.0)], -1)
MILLIMETRES[0, 0, 0] = -72
TURNED = np.eye(3, 4)
TURNED[0, 0] = -1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"keypoints_2d": INFINITE}, "not finite at 'left_ear' of person 0"),
        ({"keypoints_2d": np.full((1, 17, 2), np.nan)}, "person 0 has 0 points with a confidence above 0"),
        ({"keypoints_2d": np.full((1, 17, 2), 300.0)}, "all points of person 0 lie in one place"),
        ({"keypoints_2d": XY / 1000}, r"lie 0\.\d+ pixels apart; points must be in pixels, not in shares"),
        ({"keypoints_2d": Keypoints((), XY, XY)}, "array of numbers with equally long rows; give its xy"),
        ({"keypoints_3d": Keypoints((), XY, XY)}, "array of numbers with equally long rows; give its xyz"),
        (
            {"keypoints_2d": None, "keypoints_3d": MILLIMETRES},
            r"lie 1.07e\+03 m apart; points must be in metres",
        ),
        ({"keypoints_2d": XY[..., :1]}, r"keypoints_2d must be \(M, 2\) or"),
        ({"keypoints_2d": XY[:, :16]}, "keypoints_2d has 16 points"),
        ({"confidence": np.zeros((1, 17))}, "person 0 has 0 points with a confidence above 0"),
        ({"confidence": np.ones(16)}, r"confidence must be \(1, 17\)"),
        ({"confidence": -np.ones((1, 17))}, "confidences must be numbers from 0 to 1"),
        ({"keypoint_set": "coco18"}, "no keypoint set 'coco18'; known are"),
        ({"names": ["nose"] * 16 + ["noze"]}, "no point is called 'noze'"),
        ({"K": None}, "K is missing"),
        ({"K": np.eye(2)}, r"K must be \(3, 3\)"),
        ({"keypoints_2d": None, "keypoints_3d": BEHIND}, "'nose' of person 0 behind the camera"),
        ({"keypoints_2d": None}, "give keypoints_2d, keypoints_3d or both"),
        ({"keypoints_2d": [XY, XY], "extrinsics": [TURNED, np.eye(3, 4)]}, "view 0 hold no rotation"),
        ({"keypoints_2d": [XY], "extrinsics": [np.eye(3, 4)] * 2}, "2 extrinsics, 1 views"),
        ({"body": "smplx"}, "the fitter knows the body 'anny'"),
    ],
)
def test_what_cannot_be_fitted_is_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        fit(**{"keypoints_2d": XY, "K": K, **arguments})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_points_that_are_nan_are_not_known(body: Anny, truth: Truth) -> None:
    """As confidence 0; also in the column of confidences, in space, and for a whole view."""
    pixels, known = truth.pixels()[:1].astype(np.float64), np.ones((1, 17))
    known[:, 13:] = 0
    expected = fit(pixels, K, confidence=known, body=body, image_size=SIZE)
    unknown = np.where(known[..., None] > 0, pixels, np.nan)
    tagged = np.concatenate([unknown, np.where(known, 1.0, np.nan)[..., None]], -1)
    for points in (unknown, tagged):
        found = fit(points, K, body=body, image_size=SIZE)
        np.testing.assert_array_equal(found.vertices, expected.vertices)
        assert found.unpredicted == expected.unpredicted
    views = [np.eye(3, 4), truth.extrinsics[1]]
    one = fit(
        [pixels, np.full_like(pixels, np.nan)], K, extrinsics=views, body=body, image_size=SIZE, sigma=2.0
    )
    assert np.isfinite(one.vertices).all()
    assert one.errors_px is not None
    assert one.errors_px[0] < 10


@pytest.mark.slow
def test_cameras_in_one_place_are_one_view(body: Anny, truth: Truth, alone: FittedHumans) -> None:
    """Rays without parallax give no points in space: neither an error nor people anywhere."""
    pixels, one = truth.pixels()[:1], alone
    two = fit([pixels, pixels], K, extrinsics=[np.eye(3, 4)] * 2, body=body, image_size=SIZE)
    assert one.errors_px is not None
    assert two.errors_px is not None
    assert two.errors_px[0] < max(2 * one.errors_px[0], 3.0)
    assert abs(two.translation[0, 2] - one.translation[0, 2]) < 0.25 * one.translation[0, 2]


@pytest.mark.slow
def test_a_point_far_from_all_others_does_not_count(body: Anny, truth: Truth) -> None:
    pixels, known = truth.pixels()[:1].astype(np.float64), np.ones((1, 17))
    known[0, 9] = 0
    expected = fit(pixels, K, confidence=known, body=body, image_size=SIZE)
    pixels[0, 9] = 1e9
    np.testing.assert_array_equal(fit(pixels, K, body=body, image_size=SIZE).vertices, expected.vertices)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["inference mode", "autocast"])
def test_modes_of_the_host_program_do_not_disturb(
    body: Anny, truth: Truth, alone: FittedHumans, mode: str
) -> None:
    pixels = torch.from_numpy(truth.pixels()[:1])
    with torch.inference_mode() if mode == "inference mode" else torch.autocast("cpu", dtype=torch.bfloat16):
        found = fit(pixels, K, body=body, image_size=SIZE)
    np.testing.assert_array_equal(found.vertices, alone.vertices)


def test_views_that_contradict_each_other_are_refused(body: Anny, truth: Truth) -> None:
    world_to_camera = truth.extrinsics[1]
    R, t = world_to_camera[:, :3], world_to_camera[:, 3]
    inverse = np.concatenate([R.T, (-R.T @ t)[:, None]], 1)
    inverse[:, 3] += (0, 0, -12)
    with pytest.raises(ValueError, match="lie behind a camera"):
        fit([truth.pixels(0), truth.pixels(1)], K, extrinsics=[np.eye(3, 4), inverse], body=body)


def test_prior_file_is_small_and_knows_its_poses() -> None:
    from multihmr.fitting.prior import FILE

    assert FILE.stat().st_size < 300_000
    prior = load_prior()
    poses = prior.energies(prior.exemplars).min(-1)
    wild = prior.energies(prior.exemplars + 1.0).min(-1)
    assert np.median(wild) > np.median(poses) + 50
    vectors = prior.rotation_vectors(prior.exemplars)
    np.testing.assert_allclose(prior.coordinates(vectors), prior.exemplars, atol=1e-6)


def test_derivatives_are_those_of_the_energy(body: Anny, truth: Truth) -> None:
    from multihmr.fitting.fitter import _fitter, _starts
    from multihmr.fitting.inputs import read_inputs
    from multihmr.fitting.solver import Energy

    fitter = _fitter(body, "coco17", None)
    seen = read_inputs(
        truth.pixels()[:1], K, None, None, None,
        names=fitter.names, kept=fitter.kept, sigma=None, sigma_3d=None, image_size=SIZE,
    ).seen  # fmt: skip
    state = _starts(fitter, seen)[0].rows(torch.tensor([0]))
    energy = Energy(fitter.skeleton, fitter.model, fitter.shape_prior, seen, upright=True)
    energy.robust = 1e6
    energy.expand(state.shape_PS.float())
    terms = energy(state)
    step = 1e-6
    for unknown in (0, 2, 4, 6, 20, 47, 50):
        change = torch.zeros(1, terms.gradient_PN.shape[1], dtype=torch.float64)
        change[0, unknown] = step
        numeric = (energy(state.moved(change)).energy_P - energy(state.moved(-change)).energy_P) / (2 * step)
        assert numeric.item() == pytest.approx(2 * terms.gradient_PN[0, unknown].item(), rel=1e-3, abs=0.05)


@pytest.mark.slow
def test_fingers_follow_their_points(body: Anny) -> None:
    """Of a curled left hand and no other point of it than those of COCO-WholeBody."""
    from multihmr.bodies.keypoint_sets import keypoint_names
    from multihmr.fitting.point_sets import find_points

    prior = load_prior()
    names = list(body.topology.pose_names)
    bones, mean, basis = prior.hand("L")
    curled = torch.from_numpy(mean + 2.0 * basis[0]).unflatten(0, (-1, 3))
    pose = body.mean_pose_R33[None].clone()
    pose[:, [names.index(bone) for bone in bones]] = rotation_matrix(curled).float()
    shape = body.mean_shape_S[None]
    with torch.no_grad():
        output = body(pose, shape, torch.zeros(1, body.expression_count))
    points, kept = find_points(body, "coco133")
    place = np.array([0, 0, 3.0])
    xyz = np.zeros((1, 133, 3))
    xyz[:, kept] = points.points(output.vertices_PV3.numpy(), output.joints_PJ3.numpy()) + place
    confidence = np.zeros((1, 133))
    confidence[:, kept] = 1
    whole = keypoint_names("coco133")
    confidence[:, [i for i, name in enumerate(whole) if name.startswith("right_") and i > 110]] = 0
    xyz[:, :, 2] += xyz[:, :, 2] == 0  # what has no confidence may be anything
    humans = fit(None, K, keypoints_3d=xyz, confidence=confidence, keypoint_set="coco133", body=body)
    fingers = [names.index(bone) for bone in bones]
    error = np.linalg.norm(humans.joints[0, fingers] - output.joints_PJ3[0, fingers].numpy() - place, axis=-1)
    assert error.mean() < 0.012
    assert "finger2-1.L" not in humans.unpredicted
    assert "finger2-1.R" in humans.unpredicted


@torch.no_grad()
def motion(body: Anny, frames: int) -> Truth:
    """Somebody who goes from one captured pose to another, to the right, at 20 frames a second."""
    names, prior = list(body.topology.pose_names), load_prior()
    start, end = prior.exemplars[[30, 200]]
    share = np.linspace(0, 1, frames)[:, None] * 0.5
    pose = body.mean_pose_R33.repeat(frames, 1, 1, 1)
    vectors = torch.from_numpy(prior.rotation_vectors(start + share * (end - start)))
    pose[:, [names.index(bone) for bone in prior.bones]] = rotation_matrix(vectors).float()
    output = body(pose, body.mean_shape_S.expand(frames, -1), torch.zeros(frames, body.expression_count))
    place = np.array([0.0, 0.1, 4.0]) + share[:, None] * (1.0, 0, 0)
    joints = output.joints_PJ3.numpy() + place
    points = body.topology.keypoint_sets["coco17"].points(output.vertices_PV3.numpy() + place, joints)
    own = [names.index(name) for name in body_joints(body.topology)]
    return Truth(points, joints[:, own], [np.eye(3, 4)])


@pytest.mark.slow
def test_a_sequence_is_smooth_keeps_its_shape_and_bridges_gaps(body: Anny) -> None:
    truth = motion(body, 9)
    noise = np.random.default_rng(0).normal(0, 4, (9, 17, 2))
    confidence = np.ones((9, 17))
    confidence[4] = 0
    xy = truth.pixels() + noise
    humans = fit(xy, K, confidence=confidence, fps=20, body=body, image_size=SIZE)
    seen = confidence[:, 0] > 0
    alone = fit(xy[seen], K, body=body, image_size=SIZE)
    assert len(humans) == 9
    assert np.ptp(humans.shape, axis=0).max() == 0
    assert mean_pa_mpjpe(humans[seen], dataclasses.replace(truth, joints=truth.joints[seen])) < (
        mean_pa_mpjpe(alone, dataclasses.replace(truth, joints=truth.joints[seen])) + 1
    )
    own = [humans.topology.joint_names.index(name) for name in ("wrist.L", "foot.R", "head")]
    bend = np.abs(np.diff(humans.joints[:, own], 2, axis=0)).mean()
    assert bend < 0.5 * np.abs(np.diff(alone.joints[:, own], 2, axis=0)).mean()
    # the frame without points lies between its neighbours
    between = (humans.joints[3, own] + humans.joints[5, own]) / 2
    assert np.abs(humans.joints[4, own] - between).max() < 0.02
    with pytest.raises(ValueError, match="fps must be the number of frames a second, above 0, got 0"):
        fit(xy, K, fps=0, body=body)


def test_banded_systems_are_solved() -> None:
    from multihmr.fitting.sequence import _solve_band

    torch.manual_seed(0)
    for frames in (1, 2, 5, 6):
        size = 3
        dense = torch.zeros(frames * size, frames * size, dtype=torch.float64)
        for k in range(max(frames - 2, 1)):
            block = torch.randn(4, min(3, frames) * size, dtype=torch.float64)
            at = slice(k * size, (k + min(3, frames)) * size)
            dense[at, at] += block.T @ block
        dense += torch.eye(frames * size, dtype=torch.float64)
        blocks = dense.view(frames, size, frames, size).transpose(1, 2)
        zero = torch.zeros(size, size, dtype=torch.float64)
        beside = []
        for k in (0, 1, 2):
            rows = [blocks[t, t + k] if t + k < frames else zero for t in range(frames)]
            beside.append(torch.stack(rows))
        right = torch.randn(frames, size, 2, dtype=torch.float64)
        solved = _solve_band(*beside, right)
        torch.testing.assert_close(dense @ solved.flatten(0, 1), right.flatten(0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_defaults_of_the_host_program_do_not_disturb(device: str, fitted: FittedHumans, truth: Truth) -> None:
    """float64, and a device on which nothing can be computed, set before the fitter makes its tables."""
    caches = (fitter_module._bundled_body, fitter_module._fitter)
    for cache in caches:
        cache.cache_clear()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device(device)
    try:
        humans = fit(truth.pixels()[:2], K, image_size=SIZE)
        height = humans.measurements().height
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        for cache in caches:
            cache.cache_clear()
    np.testing.assert_allclose(humans.joints, fitted[:2].joints, atol=2e-3)
    assert (height > 1).all()


@torch.no_grad()
def children(body: Anny, count: int, seed: int) -> Truth:
    """Small children before the camera of `people`, 0.9 to 1.6 m away."""
    rng = np.random.default_rng(seed)
    prior, names = load_prior(), list(body.topology.pose_names)
    z = prior.exemplars[rng.choice(len(prior.exemplars), count, replace=False)]
    pose = body.mean_pose_R33.repeat(count, 1, 1, 1)
    vectors = torch.from_numpy(prior.rotation_vectors(z))
    pose[:, [names.index(bone) for bone in prior.bones]] = rotation_matrix(vectors).float()
    shape = body.mean_shape_S.repeat(count, 1)
    shape[:, body.topology.shape_names.index("age")] = torch.from_numpy(rng.uniform(0.15, 0.3, count)).float()
    output = body(pose, shape, torch.zeros(count, body.expression_count))
    place = np.stack([np.zeros(count), np.full(count, 0.1), rng.uniform(0.9, 1.6, count)], 1)[:, None]
    joints = output.joints_PJ3.numpy() + place
    points = body.topology.keypoint_sets["coco17"].points(output.vertices_PV3.numpy() + place, joints)
    own = [names.index(name) for name in body_joints(body.topology)]
    return Truth(points, joints[:, own], [np.eye(3, 4)])


@pytest.mark.slow
def test_near_children_are_not_fitted_as_adults(body: Anny, fitted: FittedHumans) -> None:
    """From one view without legs; adults stay adults."""
    truth = children(body, 8, 0)
    confidence = np.ones((8, 17))
    confidence[:, 13:] = 0
    humans = fit(truth.pixels(), K, confidence=confidence, body=body, image_size=SIZE)
    age = humans.topology.shape_names.index("age")
    distances = np.linalg.norm(humans.pelvis - truth.joints[:, 0], axis=1)
    assert np.median(distances) < 0.15
    assert (humans.shape[:, age] < 0.5).mean() >= 0.75
    assert (fitted.shape[:, age] > 0.5).mean() >= 0.75
    extent = np.ptp(truth.pixels()[:, :13], axis=1).max(1)
    assert (humans.errors_px < 0.01 * extent).mean() >= 0.85  # the arms of one reach out of the picture


@pytest.mark.slow
def test_a_known_height_tells_the_distance(body: Anny, truth: Truth, in_space: FittedHumans) -> None:
    true = heights(in_space, body=body)
    wanted = np.where(np.arange(len(true)) == 1, np.nan, true)
    humans = fit(truth.pixels(), K, height=wanted, body=body, image_size=SIZE)
    known = np.isfinite(wanted)
    np.testing.assert_allclose(heights(humans, body=body)[known], true[known], atol=0.02)
    distances = np.linalg.norm(humans.pelvis - truth.joints[:, 0], axis=1)
    assert np.median(distances[known]) < 0.1
    other = fit(truth.pixels(), K, height=1.2 * true.mean(), body=body, image_size=SIZE)
    assert (other.pelvis[:, 2] > humans.pelvis[:, 2]).mean() > 0.8
    for height, sentence in (
        (175, "heights are in metres, from 0.3 to 2.8, got 175"),
        ([1.7, 1.8], "height must be one number or one for each of"),
        ("tall", "height must be an array of numbers"),
    ):
        with pytest.raises(ValueError, match=sentence):
            fit(truth.pixels(), K, height=height, body=body)
