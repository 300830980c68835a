"""predict(hands_and_faces=True): hands turn to where a network sees them, and nothing else moves."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from multihmr import Humans, load_model
from multihmr.cli import evaluate, predict, video
from multihmr.evaluation.runner import Protocol
from multihmr.hub import landmarks
from multihmr.humans import project, rotvec_to_rotmat
from multihmr.model import hands_and_faces as closer
from multihmr.model import whole_image
from multihmr.model.base import Model
from multihmr.model.hand_pose import HandBody
from multihmr.model.hands_and_faces import Arms, DetailRefinement, find_hands, first_crops, with_hands
from multihmr.networks.landmarks.hand import HandOutput
from multihmr.preprocessing.image import LoadedImage, load_image

PHOTO = "examples/images/astronaut.jpg"


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(device="cpu")


@pytest.fixture(scope="module")
def photo() -> LoadedImage:
    return load_image(PHOTO)


@pytest.fixture(scope="module")
def large(model: Model) -> tuple[LoadedImage, Humans]:
    """A blank picture with one person who stands upright, 2 m away, with both hands in view."""
    body = model.body
    pose = body.mean_pose_R33.numpy()[None]
    people = {
        "scores": np.ones(1, np.float32),
        "pose": pose,
        "shape": body.mean_shape_S.numpy()[None],
        "expression": np.zeros((1, body.expression_count), np.float32),
        "translation": np.array([[0.0, -0.5, 2.0]], np.float32),
    }
    people["vertices"], people["joints"] = closer.posed(
        body, pose, people["shape"], people["expression"], people["translation"]
    )
    image = LoadedImage(np.full((1500, 1200, 3), 128, np.uint8))
    K = torch.tensor([[1500.0, 0, 600], [0, 1500, 750], [0, 0, 1]])
    return image, whole_image.assemble_humans(model, people, image, K, "given")


class Seer:
    """Stands in for the network: sees the true hands of a person, wherever the crops are cut.

    `crops` are those that `find_hands` cut, which it does not tell the network.
    """

    def __init__(self, humans: Humans, body: HandBody, presence: float = 0.9) -> None:
        arms = Arms.of(humans, body)
        self.pixels, self.hands = arms.pixels[0], arms.hands[0]
        self.presence = presence
        self.crops: list[tuple[int, closer.TurnedCrop]] = []

    def __call__(self, crops_N3HW: Tensor) -> HandOutput:
        points, world = [], []
        for side, crop in self.crops[-len(crops_N3HW) :]:
            points.append(np.c_[crop.from_image(self.pixels[side]), np.zeros(21)])
            metres = self.hands[side] - self.hands[side].mean(0)
            world.append(np.c_[metres[:, :2] @ crop.turn, metres[:, 2]])
        count = len(points)
        return HandOutput(
            torch.tensor(np.array(points)),
            torch.full((count,), self.presence),
            torch.full((count,), 0.5),
            torch.tensor(np.array(world)),
        )


def seen_by(seer: Seer, monkeypatch: pytest.MonkeyPatch) -> Seer:
    """The same, told of the crops."""
    seen = closer._seen

    def telling(image, searched, arms, network):  # type: ignore[no-untyped-def]
        seer.crops += [(side, crop) for _, side, crop in searched]
        return seen(image, searched, arms, network)

    monkeypatch.setattr(closer, "_seen", telling)
    return seer


def bent(model: Model, humans: Humans, image: LoadedImage) -> Humans:
    """The person with wrists turned a little and hands half closed."""
    body = HandBody.of(model.body)
    pose = humans.pose.copy()
    for side, sign in zip(body.sides, (1, -1), strict=True):
        pose[:, side.wrist] = rotvec_to_rotmat(np.array([0.3, 0.1 * sign, 0.2 * sign]))
        pose[:, side.fingers] = rotvec_to_rotmat((side.mean + 1.5 * side.basis[0]).reshape(5, 3, 3))
    people = whole_image.people_of(humans) | {"pose": pose}
    people["vertices"], people["joints"] = closer.posed(
        model.body, pose, people["shape"], people["expression"], people["translation"]
    )
    return whole_image.assemble_humans(model, people, image, torch.tensor(humans.K), "given")


def test_hands_turn_to_where_they_are_seen(
    model: Model, large: tuple[LoadedImage, Humans], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, humans = large
    body = HandBody.of(model.body)
    true = bent(model, humans, image)
    seer = seen_by(Seer(true, body), monkeypatch)
    found = find_hands(image, humans, body, seer)
    assert [(hand.person, hand.side) for hand in sorted(found, key=lambda hand: hand.side)] == [
        (0, 0),
        (0, 1),
    ]
    moved = with_hands(model, image, humans, body, found)
    before, after, goal = (Arms.of(people, body).hands[0] for people in (humans, moved, true))
    assert np.linalg.norm(before - goal, axis=-1).mean() > 0.02
    assert np.linalg.norm(after - goal, axis=-1).mean() < 0.008
    fingers = {j for side in body.sides for j in side.fingers.ravel().tolist()}
    names = [name for i, name in enumerate(model.body.topology.joint_names) if i not in fingers]
    kept = [model.body.topology.joint_names.index(name) for name in names if "metacarpal" not in name]
    assert np.abs(moved.joints[0, kept] - humans.joints[0, kept]).max() < 1e-4  # wrists stay in their places
    assert np.abs(moved.joints_2d - project(moved.joints, moved.K)).max() < 0.01
    assert (moved.shape == humans.shape).all()
    assert (moved.expression == humans.expression).all()


def test_hands_that_are_not_seen_stay(
    model: Model, large: tuple[LoadedImage, Humans], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, humans = large
    body = HandBody.of(model.body)
    seer = seen_by(Seer(bent(model, humans, image), body, presence=0.3), monkeypatch)
    found = find_hands(image, humans, body, seer)
    assert found == []
    assert with_hands(model, image, humans, body, found) is humans


def test_the_hand_of_somebody_else_is_not_taken(
    model: Model, large: tuple[LoadedImage, Humans], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever crop it looks at, the network sees a hand that is farther off than a forearm is long."""
    image, humans = large
    body = HandBody.of(model.body)
    seer = seen_by(Seer(humans, body), monkeypatch)
    seer.pixels = seer.pixels + [0.0, 500.0]
    assert find_hands(image, humans, body, seer) == []


def test_one_hand_is_not_both(
    model: Model, large: tuple[LoadedImage, Humans], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crops of both sides show the left hand: it is the left one's, which is nearer."""
    image, humans = large
    body = HandBody.of(model.body)
    monkeypatch.setattr(closer, "FARTHEST", 10.0)
    seer = seen_by(Seer(humans, body), monkeypatch)
    seer.pixels, seer.hands = seer.pixels[[0, 0]], seer.hands[[0, 0]]
    assert [hand.side for hand in find_hands(image, humans, body, seer)] == [0]


def test_small_hands_and_those_out_of_view_are_left_alone(
    model: Model, large: tuple[LoadedImage, Humans]
) -> None:
    _, humans = large
    body = HandBody.of(model.body)
    arms = Arms.of(humans, body)
    assert len(first_crops(arms, 0, 0, humans.image_size)) == 2
    assert first_crops(replace(arms, reaches=arms.reaches * 0 + 19), 0, 0, humans.image_size) == []
    assert first_crops(arms, 0, 0, (1500, 300)) == []


def test_predict_with_the_network(model: Model, photo: LoadedImage) -> None:
    """A photograph whose hands are in view: they change, and the head turns and moves a little."""
    plain = model.predict(photo)
    moved = model.predict(photo, hands_and_faces=True)
    assert len(plain) == len(moved) == 1
    assert np.abs(moved.translation - plain.translation).max() < 0.1 * plain.distances[0]
    changed = np.abs(moved.pose - plain.pose).max((0, 2, 3)) > 1e-6
    names = {name for name, moves in zip(model.body.topology.joint_names, changed, strict=True) if moves}
    assert all(name.startswith(("finger", "wrist", "lowerarm02", "head")) for name in names)
    assert len(model.predict(np.zeros((64, 64, 3), np.uint8), hands_and_faces=True)) == 0


@pytest.mark.parametrize("value", [1, "yes", None])
def test_the_option_is_a_switch(model: Model, value: object) -> None:
    with pytest.raises(ValueError, match="hands_and_faces must be True or False, got"):
        model.predict(PHOTO, hands_and_faces=value)  # type: ignore[arg-type]


def test_evaluations_and_videos_pass_the_option_on(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Protocol(hands_and_faces=True).predict_options["hands_and_faces"] is True
    assert "hands_and_faces" not in Protocol().predict_options
    counted = []

    def refine(self: DetailRefinement, image: LoadedImage, humans: Humans) -> Humans:
        counted.append(len(humans))
        return humans

    monkeypatch.setattr(DetailRefinement, "__call__", refine)
    frames = [np.zeros((64, 64, 3), np.uint8)] * 2
    K = np.array([[64.0, 0, 32], [0, 64, 32], [0, 0, 1]])
    assert len(list(model.predict_video(frames, K, hands_and_faces=True))) == 2
    assert counted == [0, 0]
    assert len(list(model.predict_many(frames, hands_and_faces=True))) == 2
    assert counted == [0, 0, 0, 0]


@pytest.mark.parametrize("command", ["predict", "video", "evaluate"])
def test_the_flag_is_off_by_default(command: str) -> None:
    parser = argparse.ArgumentParser()
    {"predict": predict, "video": video, "evaluate": evaluate}[command].add_flags(parser)
    source = [] if command == "evaluate" else ["street.jpg", "--out", "results"]
    assert parser.parse_args([*source, "--hands-and-faces"]).hands_and_faces is True
    assert parser.parse_args(source).hands_and_faces is False


@pytest.mark.slow
def test_a_face_is_read_alike_in_autocast_and_where_the_default_is_float64(model):
    """Networks that were loaded while float64 was the default could not read float32 pixels."""
    expected = model.predict(PHOTO, hands_and_faces=True)
    assert expected.refined is not None
    assert expected.refined[0, 2]
    landmarks.load_landmark_networks.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        again = model.predict(PHOTO, hands_and_faces=True)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(again.expression, expected.expression, atol=1e-3)  # crops by 1e-7 other
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = model.predict(PHOTO, hands_and_faces=True)
    np.testing.assert_allclose(again.expression, expected.expression, atol=0.2)
