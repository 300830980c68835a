"""People whose sizes and distances agree with the floor they stand on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from multihmr import load_humans, load_model
from multihmr.bodies.anny import Anny
from multihmr.cli import main as cli
from multihmr.humans import Humans
from multihmr.world import Ground, in_world, on_one_floor, one_floor
from multihmr.world.standing import angles, up_of

from .test_ground import standing

pytestmark = pytest.mark.slow
IMAGE = Path(__file__).parents[2] / "examples/images/group.jpg"
FACTORS = np.array([1.0, 1.12, 0.9])  # by which people are taken for larger, and farther away, than they are


@pytest.fixture(scope="module")
def body() -> Anny:
    return Anny().eval()


@pytest.fixture(autouse=True)
def no_mean_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """These people are right on average."""
    monkeypatch.setattr(one_floor, "PRIOR_MEAN", (0.0, 0.0))


@pytest.fixture(scope="module")
def true(body: Anny) -> Humans:
    return standing(body, pitch=8, roll=1, height=1.6)


@pytest.fixture(scope="module")
def wrong(body: Anny, true: Humans) -> Humans:
    return true.with_heights(true.height_m * FACTORS, body=body)


def test_people_on_one_floor_get_their_size_and_distance(body: Anny, true: Humans, wrong: Humans) -> None:
    """Three people 0, 12 and 10 % off: the floor tells who is wrong, up to one factor for all."""
    fitted = on_one_floor(wrong, body=body)
    ratio = fitted.height_m / true.height_m
    assert ratio.max() / ratio.min() < 1.15  # 1.24 before; floor and prior of sizes are about as sure
    assert ratio == pytest.approx(1.0, abs=0.08)
    assert fitted.distances / true.distances == pytest.approx(ratio, rel=2e-3)
    head = body.center_joint
    np.testing.assert_allclose(fitted.joints_2d[:, head], wrong.joints_2d[:, head], atol=0.02)
    assert (fitted.numbers == wrong.numbers).all()


def test_what_is_known_of_the_camera_holds(body: Anny, true: Humans, wrong: Humans) -> None:
    """With gravity and the camera's height given the sizes follow, and the ground is the given one."""
    given = {"camera_pitch": 8, "camera_roll": 1, "floor": 1.6}
    world = in_world(wrong, body=body, **given)
    assert world.ground.camera_height == 1.6
    assert angles(world.ground.up, up_of(np.radians(1), np.radians(8))) == pytest.approx(0, abs=1e-3)
    assert world.height_m == pytest.approx(true.height_m, rel=0.05)
    assert np.abs(world.over_floor).max() < 0.09  # 0.2 before
    plane = np.append(up_of(np.radians(1), np.radians(8)), 1.6)
    same = on_one_floor(wrong, floor=plane, body=body)
    assert same.height_m == pytest.approx(world.height_m, abs=1e-3)
    ground = Ground(plane[:3], 1.6, "given", "given")
    assert on_one_floor(wrong, ground=ground, body=body).height_m == pytest.approx(same.height_m, abs=1e-3)
    with pytest.raises(ValueError, match="give either ground, or camera_pitch"):
        on_one_floor(wrong, ground=ground, floor=1.6, body=body)


def test_one_known_height_corrects_the_others(body: Anny, true: Humans) -> None:
    """All are 12 % too tall, which nobody can see; the height of one tells it of the others."""
    tall = true.with_heights(true.height_m * 1.12, body=body)
    number = int(tall.numbers[0])
    known = {number: float(true.height_m[0])}
    fitted = on_one_floor(tall, known_heights=known, camera_pitch=8, camera_roll=1, body=body)
    assert fitted.height_m[0] == pytest.approx(true.height_m[0], abs=0.003)
    assert (fitted.height_m / true.height_m)[1:] == pytest.approx(1.06, abs=0.03)
    alone = on_one_floor(tall, camera_pitch=8, camera_roll=1, body=body)
    assert ((alone.height_m - fitted.height_m)[1:] > 0.03).all()


def test_who_stands_on_a_box_is_no_giant(body: Anny, true: Humans) -> None:
    """One of three is lifted by 0.5 m: the floor stays that of the others, the size nearly as it was."""
    up = up_of(np.radians(1), np.radians(8))
    lift = np.zeros((3, 1))
    lift[1] = 0.5
    points = ("vertices", "joints", "translation", "pelvis")
    moved = {
        name: (value + (lift[..., None] if value.ndim == 3 else lift) * up).astype(np.float32)
        for name in points
        for value in [getattr(true, name)]
    }
    lifted = dataclasses.replace(true, **moved)
    fitted = on_one_floor(lifted, body=body)
    assert fitted.height_m / true.height_m == pytest.approx(1.0, abs=0.07)


def test_nobody_and_unseen_legs(body: Anny, true: Humans, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without legs in the image only the mean error of predicted heights is removed."""
    assert len(on_one_floor(true[:0], body=body)) == 0
    monkeypatch.setattr(one_floor, "PRIOR_MEAN", (0.0, 0.03))
    cut = dataclasses.replace(true, joints_2d=true.joints_2d + 5000)
    fitted = on_one_floor(cut, body=body)
    assert np.log(fitted.height_m / true.height_m) == pytest.approx(0.03, abs=0.004)


def test_predict_world_writes_people_on_one_floor(tmp_path: Path) -> None:
    """`predict --world` writes the people of `on_one_floor`, `--no-one-floor` those of predict."""
    found = load_model(device="cpu").predict(IMAGE)
    for flags, people in (([], found.on_one_floor()), (["--no-one-floor"], found)):
        out = tmp_path / ("as_predicted" if flags else "one_floor")
        command = ["predict", str(IMAGE), "--world", *flags, "--out", str(out), "--device", "cpu", "--quiet"]
        assert cli.run([*command, "--format", "npz"]) == 0
        written = load_humans(out / "group.npz")
        np.testing.assert_allclose(written.height_m, people.height_m, atol=2e-3)
        np.testing.assert_allclose(written.distances, people.distances, atol=5e-3)
    assert np.abs(found.on_one_floor().distances - found.distances).max() > 0.02  # they do differ
