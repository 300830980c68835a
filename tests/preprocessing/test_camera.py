"""Intrinsics that belong to another image than the one they come with."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from multihmr.preprocessing.camera import check_intrinsics, resolve_camera

K = np.array([[1000.0, 0, 960], [0, 1000, 540], [0, 0, 1]])


@pytest.mark.parametrize(
    ("height", "width", "named"),
    [(540, 960, "1920x1080"), (2160, 3840, "1920x1080"), (1920, 1080, "1920x1080")],
)
def test_intrinsics_of_an_image_of_another_size_or_turn(height: int, width: int, named: str) -> None:
    with pytest.warns(
        UserWarning, match=f"is the centre of a {named} image, but this one is {width}x{height}"
    ):
        resolve_camera(height, width, K)


@pytest.mark.parametrize("center", [(960, 540), (1000, 500), (300, 700), (5, 900)])
def test_crops_and_calibrated_cameras_are_not_doubted(center: tuple[float, float]) -> None:
    mine = K.copy()
    mine[:2, 2] = center
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve_camera(1080, 1920, mine)


def test_intrinsics_of_any_numbers_but_complex_ones() -> None:
    for given in (K.astype(np.float16), np.asfortranarray(K), K.tolist(), K.astype(int)):
        np.testing.assert_array_equal(check_intrinsics(given, 1080, 1920), K)
    with pytest.raises(ValueError, match="K must be a"):
        check_intrinsics(K.astype(complex), 1080, 1920)
