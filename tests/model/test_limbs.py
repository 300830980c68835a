"""predict(limbs=True): people are aligned with keypoints from crops of their own."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from PIL import Image
from toys import tiny_glnet_model, tiny_model

from multihmr import Humans, load_model
from multihmr.bodies.base import posed
from multihmr.cli import evaluate, live, predict, video
from multihmr.cli.arguments import prediction_options
from multihmr.evaluation.runner import Protocol
from multihmr.geometry import default_intrinsics
from multihmr.humans import project
from multihmr.model import limbs
from multihmr.model.base import Model
from multihmr.model.limbs import SIZE, LimbRefinement, finds_keypoints
from multihmr.model.refinement_pass import RefinementPass
from multihmr.model.whole_image import assemble_humans
from multihmr.networks.alignment.gauss_newton import rotations
from multihmr.networks.alignment.keypoints import Keypoints
from multihmr.preprocessing.image import LoadedImage

K = torch.tensor([[1500.0, 0, 1000], [0, 1500, 750], [0, 0, 1]])
IMAGE = LoadedImage(np.full((1500, 2000, 3), 128, np.uint8))
TURNS = {"standing": 0, "on the left": 90, "upside down": 180, "on the right": 270}


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(device="cpu")


def people(model: Model, *places: tuple[float, float, float], roll: float = 0, bent: float = 0) -> Humans:
    """Average people at these places [m], rolled about the line of sight [degrees], with bent limbs [rad]."""
    body, count = model.body, len(places)
    angle = np.radians(roll)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    pose = np.repeat(body.mean_pose_R33.numpy()[None], count, 0)
    for name in ("upperarm01.L", "lowerarm01.R", "upperleg01.L", "lowerleg01.R"):
        joint = list(body.topology.pose_joints).index(body.topology.joint_names.index(name))
        pose[:, joint] = rotations(torch.tensor([0.0, bent, 0.0])).numpy() @ pose[:, joint]
    pose[:, 0] = turn.astype(np.float32) @ pose[:, 0]
    rows = {
        "scores": np.ones(count, np.float32),
        "pose": pose.astype(np.float32),
        "shape": np.repeat(body.mean_shape_S.numpy()[None], count, 0),
        "expression": np.zeros((count, body.expression_count), np.float32),
        "translation": np.array(places, np.float32).reshape(-1, 3),
    }
    rows["vertices"], rows["joints"] = posed(
        body, rows["pose"], rows["shape"], rows["expression"], rows["translation"]
    )
    return assemble_humans(model, rows, IMAGE, K, "given")


@pytest.mark.parametrize("roll", TURNS.values(), ids=TURNS)
def test_crops_show_people_upright_and_points_come_back(model: Model, roll: float) -> None:
    humans = people(model, (0.2, -0.1, 5.0), roll=roll)
    refinement = LimbRefinement(model)
    (crop,) = refinement.crops(humans)
    height, width = crop.shape
    assert height == SIZE
    assert width % 32 == 0
    assert width < SIZE
    inside = crop.from_image(project(humans.joints[0], humans.K))
    assert (inside > 0).all()
    assert (inside < [width, height]).all()
    head, pelvis = inside[model.body.center_joint], inside[model.body.pelvis_joint]
    assert abs(head[0] - pelvis[0]) < 0.2 * (pelvis[1] - head[1])
    np.testing.assert_allclose(crop.to_image(inside), project(humans.joints[0], humans.K))
    # A white square at the head is where `head` says in the crop's own pixels.
    pixels = np.zeros((1500, 2000, 3), np.uint8)
    x, y = np.round(crop.head).astype(int)
    pixels[y - 6 : y + 6, x - 6 : x + 6] = 255
    shown = crop.cut(pixels)
    assert shown.shape == (height, width, 3)
    rows, cols = np.nonzero(shown[..., 0] > 128)
    expected = crop.from_image(crop.head)
    np.testing.assert_allclose([cols.mean() + 0.5, rows.mean() + 0.5], expected, atol=1.0)


def test_only_people_whom_a_crop_enlarges_are_cropped(model: Model) -> None:
    humans = people(model, (0.0, -0.2, 2.0), (0.5, -0.2, 6.0), (0.0, 0.0, 150.0))
    assert [crop.person for crop in LimbRefinement(model).crops(humans)] == [1]


def test_limbs_follow_the_keypoints_of_the_crop(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    before, goal = people(model, (0.2, -0.1, 5.0)), people(model, (0.22, -0.1, 5.0), bent=0.5)
    refinement = LimbRefinement(model)
    coco = goal.keypoints("coco17").xy

    def seen(sure: float) -> None:
        def keypoints(image: LoadedImage, crops: list[limbs.PersonCrop]) -> Keypoints:
            xy = torch.tensor(np.stack([coco[crop.person] * crop.scale for crop in crops])).float()
            ones = torch.ones(len(crops))
            return Keypoints(xy, torch.ones(xy.shape[:2]), ones * sure, 200 * ones)

        monkeypatch.setattr(refinement, "_keypoints", keypoints)

    def off(humans: Humans) -> float:
        return float(np.linalg.norm(humans.keypoints("coco17").xy - coco, axis=-1).mean())

    seen(1.0)
    after = refinement(IMAGE, before)
    assert off(before) > 20
    assert off(after) < 0.4 * off(before)
    np.testing.assert_array_equal(after.shape, before.shape)
    np.testing.assert_array_equal(after.scores, before.scores)
    rebuilt, _ = posed(model.body, after.pose, after.shape, after.expression, after.translation)
    np.testing.assert_allclose(after.vertices, rebuilt, atol=1e-6)
    seen(0.1)
    assert refinement(IMAGE, before) is before


@pytest.mark.slow
def test_the_option_reaches_the_people(model: Model) -> None:
    photo = "examples/images/astronaut.jpg"
    pixels = np.zeros((1024, 1024, 3), np.uint8)
    pixels[300:550, 300:550] = np.asarray(Image.open(photo).convert("RGB").resize((250, 250)))
    with_crops, without = model.predict(pixels), model.predict(pixels, limbs=False)
    assert len(with_crops) == len(without) == 1
    np.testing.assert_array_equal(with_crops.scores, without.scores)
    moved = np.linalg.norm(with_crops.joints - without.joints, axis=-1)
    assert 0.001 < moved.max() < 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = model.predict(pixels)
    np.testing.assert_allclose(again.joints, with_crops.joints, atol=0.1)


def test_people_who_are_moved_are_nearest_first_again(model: Model) -> None:
    class Swapping(RefinementPass):
        def __call__(self, image: LoadedImage, humans: Humans) -> Humans:
            return humans[[1, 0]]

    humans = people(model, (0.0, 0.0, 3.0), (1.0, 0.0, 4.0))

    def order(boxes: list[np.ndarray | None]) -> list[float]:
        (found,) = Swapping().after(lambda *_: [humans])([IMAGE], [(K, "given")], boxes)
        return found.translation[:, 2].tolist()

    assert order([None]) == [3, 4]
    assert order([np.zeros((2, 4))]) == [4, 3]


def test_crowds_are_predicted_in_batches(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [(x, -0.1, 5.0 + x / 4) for x in (-1.5, -0.5, 0.5, 1.5)]
    humans, refinement = people(model, *places), LimbRefinement(model)
    image = LoadedImage(np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), np.uint8))
    crops = refinement.crops(humans)
    assert len(crops) == 4
    together = refinement._keypoints(image, crops)
    counts = []
    maps = model.runtime.keypoint_maps

    def counted(images: torch.Tensor) -> torch.Tensor:
        counts.append(len(images))
        return maps(images)

    monkeypatch.setattr(limbs, "MOST_CROPS", 1)
    monkeypatch.setattr(model.runtime, "keypoint_maps", counted)
    for one, other in zip(refinement._keypoints(image, crops), together, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-2)
    assert counts == [1, 1, 1, 1]


def test_models_without_keypoints_do_without(model: Model) -> None:
    assert finds_keypoints(model)
    assert not finds_keypoints(tiny_model())
    assert tiny_model()._keypoint_source() is None
    assert tiny_glnet_model()._keypoint_source() is None
    nobody = people(model)
    assert LimbRefinement(model)(IMAGE, nobody) is nobody


@pytest.mark.slow
def test_glnet_aligns_people_of_all_sizes_with_keypoints_of_its_detector(model: Model) -> None:
    glnet = load_model("glnet-anny-hybrid", device="cpu")
    photo = np.asarray(Image.open("examples/images/group.jpg").convert("RGB"))
    boxes = model.predict(photo).boxes[::-1]
    options = {"boxes": boxes, "K": default_intrinsics(*photo.shape[:2])}
    aligned, without = (glnet.predict(photo, limbs=limbs, **options) for limbs in (True, False))
    for found in (aligned, without):  # the order of the boxes stays
        assert np.abs(found.boxes - boxes).max() < 0.5 * np.ptp(boxes[:, 1::2], axis=1).max()
    coco = [model.predict(photo)[::-1].keypoints("coco17").xy]
    coco += [found.keypoints("coco17").xy for found in (aligned, without)]
    size = np.ptp(boxes[:, 1::2], axis=1).mean()
    off = [np.linalg.norm(found - coco[0], axis=-1).mean() / size for found in coco[1:]]
    assert off[0] < 0.5 * off[1]


def test_a_detector_of_another_body_aligns_nobody(model: Model) -> None:
    glnet = tiny_glnet_model()
    glnet.load_detector = lambda device: model
    assert glnet._keypoint_source() is None
    with pytest.raises(ValueError, match="must be aligned by a model of the same body"):
        LimbRefinement(glnet, model)


def test_the_flag_and_the_option() -> None:
    for command in (predict, video, evaluate, live):
        parser = argparse.ArgumentParser()
        command.add_flags(parser)
        source = [] if command is evaluate else ["walk.mp4"]
        source += ["--out", "results"] if command in (predict, video) else []
        assert parser.parse_args([*source, "--no-limbs"]).no_limbs is True
        assert parser.parse_args(source).no_limbs is False
        if command in (predict, video):
            assert prediction_options(parser.parse_args(source))["limbs"] is True
            assert prediction_options(parser.parse_args([*source, "--no-limbs"]))["limbs"] is False
    assert Protocol(limbs=False).predict_options["limbs"] is False
    assert "limbs" not in Protocol().predict_options


@pytest.mark.parametrize("value", [1, "yes", None])
def test_the_option_is_a_switch(model: Model, value: object) -> None:
    with pytest.raises(ValueError, match="limbs must be True or False, got"):
        model.predict(np.zeros((64, 64, 3), np.uint8), limbs=value)  # type: ignore[arg-type]
