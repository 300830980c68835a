"""`multihmr fit` on pictures with an EXIF orientation: points turn with the picture, or are refused."""

import dataclasses

import numpy as np
import pytest

from multihmr.cli.fit import _upright
from multihmr.data.orientation import StoredRaster
from multihmr.fitting.keypoint_files import PictureKeypoints

NAMES = ("nose", "left_eye", "right_eye")


def entry(size):
    xy = np.array([[[43.5, 43.5], [349.5, 416.5], [100.5, 200.5]]])
    return PictureKeypoints("a.jpg", NAMES, xy, np.array([[0.9, 0.5, 0.1]]), size)


def test_points_of_the_stored_raster_turn_with_the_picture():
    turned = _upright(entry((448, 360)), StoredRaster(6, (448, 360)))
    assert turned.xy[0].tolist() == [[404.5, 43.5], [31.5, 349.5], [247.5, 100.5]]
    assert turned.confidence.tolist() == [[0.9, 0.5, 0.1]]


def test_sides_change_where_the_stored_picture_is_a_mirror_image():
    turned = _upright(entry((448, 360)), StoredRaster(5, (448, 360)))
    assert turned.xy[0].tolist() == [[43.5, 43.5], [200.5, 100.5], [416.5, 349.5]]
    assert turned.confidence.tolist() == [[0.9, 0.1, 0.5]]


def test_points_of_the_upright_picture_stay():
    turned = _upright(entry((360, 448)), StoredRaster(6, (448, 360)))
    np.testing.assert_array_equal(turned.xy, entry(None).xy)
    np.testing.assert_array_equal(_upright(entry(None), StoredRaster(1, (448, 360))).xy, entry(None).xy)


def test_points_whose_raster_cannot_be_told_are_refused():
    with pytest.raises(ValueError, match="orientation 6, and its annotations do not tell"):
        _upright(entry(None), StoredRaster(6, (448, 360)))


def test_files_that_say_upright_are_taken_so():
    """As those of this package, also of square pictures, whose size does not tell."""
    upright = dataclasses.replace(entry((448, 448)), upright=True)
    np.testing.assert_array_equal(_upright(upright, StoredRaster(6, (448, 448))).xy, upright.xy)
    with pytest.raises(ValueError, match="orientation 6, and its annotations do not tell"):
        _upright(dataclasses.replace(upright, upright=False), StoredRaster(6, (448, 448)))
