"""Turned crops of hands: there and back, and which pixels they show."""

from __future__ import annotations

import numpy as np
import pytest

from multihmr.preprocessing.turned_crops import TurnedCrop, hand_crop


def crop_at(degrees: float, side: float = 90.0) -> TurnedCrop:
    """Of which the fingers point so far clockwise from upwards."""
    angle = np.radians(degrees)
    return TurnedCrop(np.array([140.0, 110.0]), side, np.array([np.sin(angle), -np.cos(angle)]))


@pytest.mark.parametrize("degrees", [0, 35, 90, 180, -120])
def test_points_come_back(degrees: float) -> None:
    crop = crop_at(degrees)
    points = np.random.default_rng(0).uniform(0, 200, (10, 2))
    assert np.allclose(crop.to_image(crop.from_image(points)), points)
    above = crop.to_image(np.array([112.0, 12.0])) - crop.center
    assert np.allclose(above / np.linalg.norm(above), crop.up)


@pytest.mark.parametrize("degrees", [0, 35, 90, 180, -120])
@pytest.mark.parametrize("side", [90.0, 700.0])
def test_a_spot_is_shown_where_its_point_is(degrees: float, side: float) -> None:
    """Within a pixel of the crop, also where the image has several pixels for one of it."""
    crop = crop_at(degrees, side)
    spot = crop.center + [0.21 * side, 0.13 * side]
    size = int(crop.center.max() + side)
    y, x = np.mgrid[:size, :size] + 0.5
    image = 255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * (side / 30) ** 2))
    shown = crop.cut(np.repeat(image[..., None].astype(np.uint8), 3, 2))[..., 0].astype(float)
    assert shown.shape == (224, 224)
    rows, columns = np.mgrid[:224, :224] + 0.5
    seen = np.array([(columns * shown).sum(), (rows * shown).sum()]) / shown.sum()
    assert np.abs(seen - crop.from_image(spot)).max() < 1


def test_a_crop_beyond_the_image_is_black() -> None:
    white = np.full((50, 60, 3), 255, np.uint8)
    assert not crop_at(20).cut(white).any()
    half = TurnedCrop(np.array([0.0, 25.0]), 40, np.array([0.0, -1])).cut(white)
    assert not half[:, :110].any()
    assert (half[:, 114:] == 255).all()


def test_the_crop_of_a_hand_has_the_fingers_up() -> None:
    """A hand that points to the right: its wrist is below and its middle finger above."""
    points = np.zeros((21, 2))
    points[0] = [100, 100]
    for finger in range(5):
        for joint in range(4):
            points[1 + 4 * finger + joint] = [130 + 10 * joint, 80 + 10 * finger]
    crop = hand_crop(points)
    shown = crop.from_image(points)
    assert shown[0, 1] > 112 > shown[12, 1]
    assert shown[4, 0] < shown[20, 0]  # the finger above in the image is to the left
    assert np.allclose(crop.up, [1, 0], atol=0.2)
    assert 0 < shown.min() < shown.max() < 224
