"""predict(flip_test=True): a mirrored image gets the mirrored answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from multihmr import load_model
from multihmr.humans import Humans
from multihmr.postprocessing.flip_test import match, mean_intrinsics, mirror_intrinsics
from multihmr.preprocessing.image import load_image

GROUP = Path(__file__).parents[2] / "examples/images/group.jpg"


def heads(humans: Humans) -> np.ndarray:
    """(N, 3) pixel and distance of each head, from the left to the right."""
    points = humans.translation @ humans.K.T
    rows = np.concatenate([points[:, :2] / points[:, 2:], humans.distances[:, None]], 1)
    return rows[np.argsort(rows[:, 0])]


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, "glnet-anny-hybrid"])
def test_a_mirrored_image_gets_the_mirrored_answer(name: str | None) -> None:
    model = load_model(name, device="cpu")
    pixels = load_image(GROUP).pixels
    width = pixels.shape[1]
    boxes = np.array([[172, 13, 286, 364], [40, 60, 150, 380]])
    flipped_boxes = np.array([width, 0, width, 0]) + boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1]
    # Limbs are aligned with crops of one of the two, and those of all people of a GLNet.
    options = {} if name is None else {"boxes": boxes, "limbs": False}
    flipped_options = {} if name is None else {"boxes": flipped_boxes, "limbs": False}
    humans = model.predict(pixels, **options, flip_test=True)
    mirrored = model.predict(np.ascontiguousarray(pixels[:, ::-1]), **flipped_options, flip_test=True)
    plain = model.predict(pixels, **options)
    assert len(humans) == len(mirrored) == len(plain) > 1
    ours, theirs = heads(humans), heads(mirrored)[::-1]
    np.testing.assert_allclose(ours[:, 0], width - theirs[:, 0], atol=0.1)
    np.testing.assert_allclose(ours[:, 1:], theirs[:, 1:], rtol=2e-3)
    np.testing.assert_allclose(humans.K, mirrored.K, rtol=1e-4)
    # it is the mean of the two, so it stays near to either, and joints are those of the averaged pose
    assert np.abs(heads(plain) / ours - 1).max() < 0.3
    assert np.abs(humans.joints.mean(1) - humans.vertices.mean(1)).max() < 0.5
    rotations = humans.pose @ np.swapaxes(humans.pose, -1, -2)
    np.testing.assert_allclose(rotations, np.broadcast_to(np.eye(3), rotations.shape), atol=1e-4)


@pytest.mark.slow
def test_options_go_with_it() -> None:
    model = load_model(device="cpu")
    assert len(model.predict(GROUP, flip_test=True, max_people=1)) == 1
    assert len(model.predict(GROUP, flip_test=True, max_people=0)) == 0
    assert len(model.predict(GROUP, flip_test=True, tiles=2)) >= 2
    K = [[500.0, 0, 200], [0, 500, 230], [0, 0, 1]]
    humans = model.predict(GROUP, K, flip_test=True)
    np.testing.assert_allclose(humans.K, K)
    assert humans.K_source == "given"
    assert (np.diff(humans.distances) >= 0).all()


def test_cameras_of_both() -> None:
    K = torch.tensor([[400.0, 0, 100], [0, 400, 90], [0, 0, 1]])
    mirrored = mirror_intrinsics(K, 320)
    assert mirrored[0, 2] == 220
    assert torch.equal(mirror_intrinsics(mirrored, 320), K)
    wide = K.clone()
    wide[[0, 1], [0, 1]] = 900
    assert mean_intrinsics(K, wide)[0, 0] == pytest.approx(600)


def test_people_are_matched_once_best_first() -> None:
    first = {"scores": np.array([0.5, 0.9]), "translation": np.array([[0, 0, 4.0], [0.05, 0, 4]])}
    second = {"scores": np.array([0.8, 0.4]), "translation": np.array([[0.04, 0, 4.1], [3, 0, 4]])}
    assert match(first, second) == [(1, 0)]
