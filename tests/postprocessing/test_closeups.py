"""People too near to fit into an image are sought once more with a margin around it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import multihmr
from multihmr.model import passes
from multihmr.model.whole_image import assemble_humans
from multihmr.postprocessing.to_humans import people_of
from multihmr.preprocessing.image import load_image

ASTRONAUT = Path(__file__).parents[2] / "examples/images/astronaut.jpg"
K = np.float32([[300, 0, 120], [0, 300, 75], [0, 0, 1]])


@pytest.fixture(scope="module")
def model():
    model = multihmr.load_model(device="cpu")
    model.network.config = dataclasses.replace(model.network.config, closeup_margin=0.25)
    return model


@pytest.fixture
def passes_over(monkeypatch):
    """Size (height, width) and camera of the images of each pass, which finds what the script says."""
    seen = []

    def script(*found):
        def predict_once(model, images, cameras, options):
            both = list(zip(images, cameras, strict=True))
            seen.append([(image.pixels.shape[:2], camera) for image, camera in both])
            makers = found[len(seen) - 1]
            return [make(image, camera) for make, (image, camera) in zip(makers, both, strict=True)]

        monkeypatch.setattr(passes, "predict_whole_images", predict_once)
        return seen

    return script


def standing(model, depth):
    """A function that makes the person of astronaut.jpg at that depth [m] in any image; None: nobody."""
    person = model.predict(ASTRONAUT)

    def make(image, camera):
        people = people_of(person)
        if depth is None:
            people = {name: value[:0] for name, value in people.items()}
        else:
            moved = np.float32([[0, 0, depth]]) - people["translation"]
            for name in ("translation", "vertices", "joints"):
                people[name] = people[name] + (moved if name == "translation" else moved[:, None])
        known, source = camera
        known, source = (torch.tensor(K), "predicted") if known is None else (known, source)
        return assemble_humans(model, people, image, known, source)

    return make


@pytest.mark.slow
def test_who_is_too_near_to_fit_is_found_with_a_margin_in_the_same_camera(model, passes_over):
    nobody, near, far = (standing(model, depth) for depth in (None, 0.5, 6.0))
    image = np.zeros((150, 240, 3), np.uint8)
    seen = passes_over([nobody], [near])
    found = model.predict(image, any_rotation=False)
    assert [[size for size, _ in one] for one in seen] == [[(150, 240)], [(226, 360)]]
    moved = seen[1][0][1][0].numpy()
    np.testing.assert_allclose(moved - K, [[0, 0, 60], [0, 0, 38], [0, 0, 0]])
    assert (len(found), found.K_source, found.image_size) == (1, "predicted", (150, 240))
    np.testing.assert_allclose(found.K, K)
    np.testing.assert_allclose(found.translation, [[0, 0, 0.5]])
    head = found.translation[0] @ K.T
    at = found.joints_2d[0, found.topology.joint_names.index("head")]
    np.testing.assert_allclose(at, head[:2] / head[2], atol=0.05)

    seen.clear()
    passes_over([nobody], [far])
    assert len(model.predict(image, any_rotation=False)) == 0  # who fits into the image was not found there


@pytest.mark.slow
def test_very_large_images_are_shrunk_before_they_get_a_margin(model, passes_over):
    nobody, near = (standing(model, depth) for depth in (None, 0.5))
    seen = passes_over([nobody], [near])
    large_K = K * np.float32([[10], [10], [1]])
    found = model.predict(np.zeros((1500, 2400, 3), np.uint8), large_K, any_rotation=False)
    assert [[size for size, _ in one] for one in seen] == [[(1500, 2400)], [(750, 1200)]]  # a third, + 0.5
    small_K = large_K / np.float32([[3], [3], [1]]) + [[0, 0, 200], [0, 0, 125], [0, 0, 0]]
    np.testing.assert_allclose(seen[1][0][1][0].numpy(), small_K, rtol=1e-5)
    np.testing.assert_allclose(found.translation, [[0, 0, 0.5]])
    np.testing.assert_allclose(found.K, large_K)
    head = found.translation[0] @ large_K.T
    at = found.joints_2d[0, found.topology.joint_names.index("head")]
    np.testing.assert_allclose(at, head[:2] / head[2], atol=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["found", "off", "no margin", "only the camera"])
def test_there_is_no_second_pass(model, passes_over, monkeypatch, how):
    first = standing(model, 3.0 if how == "found" else None)
    if how == "no margin":
        config = dataclasses.replace(model.network.config, closeup_margin=0.0)
        monkeypatch.setattr(model.network, "config", config)
    seen = passes_over([first])
    options = {
        "off": {"closeups": False},
        "only the camera": {"max_people": 0, "any_rotation": True, "tiles": "auto"},
    }.get(how, {})
    found = model.predict(np.zeros((150, 240, 3), np.uint8), **{"any_rotation": False} | options)
    assert (len(found), len(seen)) == (how == "found", 1)


def test_closeups_is_a_switch(model):
    with pytest.raises(ValueError, match="closeups must be True or False, got 'auto'"):
        model.predict(np.zeros((8, 8, 3), np.uint8), closeups="auto")


@pytest.mark.slow
def test_a_face_that_fills_the_image_is_found():
    face = load_image(ASTRONAUT).pixels[20:200, 150:300]
    model = multihmr.load_model(device="cpu")
    assert model.config.closeup_margin > 0
    assert len(model.predict(face, closeups=False)) == 0  # else this shows nothing
    assert len(model.predict(face)) == 1
