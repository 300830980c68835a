from __future__ import annotations

import numpy as np
import pytest
import torch

from multihmr.preprocessing.boxes import box_of_points, boxes_around, check_boxes


@pytest.mark.parametrize(
    ("boxes", "sentence"),
    [
        ([[10, 10, 60, 60, 0.9]], r"got \(1, 5\); drop what follows the corners.*boxes\[:, :4\]"),
        ([10, 10, 60, 60], r"got \(4,\); put a single box into a list"),
        ([[[10, 10, 60, 60]]], r"got \(1, 1, 4\); for several images"),
        ([["a", "b", "c", "d"]], "no table of numbers"),
        ([[10, 10, np.nan, 60]], "box 0 is .* must be finite"),
        ([[0.1, 0.1, 0.5, 0.9]], r"lie in \[0, 1\]: multiply x by 160 and y by 120"),
        ([[10, 10, 60, 60], [90, 70, 50, 45]], r"box 1 .* looks like \(x, y, width, height\)"),
        ([[150, 100, 40, 50]], "box 0 is .* ends before it begins; order its corners"),
        ([[10, 10, 10, 60]], "box 0 .* has no area; leave it out"),
        ([[200, 10, 260, 60]], "box 0 .* outside the 160x120 image"),
        ([[10, 10, 15, 17]], r"box 0 is 5x7 pixels, too small .* \(at least 8\); leave it out"),
    ],
)
def test_bad_boxes_are_explained(boxes, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_boxes(boxes, 120, 160)


def test_good_boxes_come_back_as_they_are():
    boxes = [[-40, 50, 30, 200], [10, 10, 60, 60]]
    for given in (boxes, np.float32(boxes), torch.tensor(boxes)):
        assert check_boxes(given, 120, 160).tolist() == boxes
    for nobody in ([], np.zeros((0, 4)), torch.zeros(0, 5)):
        assert check_boxes(nobody, 120, 160).shape == (0, 4)


def test_boxes_of_points_hold_those_within_the_picture():
    points = np.array([[10.0, 20], [50, 80], [-30, 40], [np.nan, 5]])
    np.testing.assert_allclose(box_of_points(points, 100, 100), [4, 14, 56, 86])
    assert box_of_points(points[2:], 100, 100) is None


def test_boxes_around_points_end_at_the_image():
    points = np.array([[[-5.0, 10], [20, 30]], [[3, 4], [90, 200]]], np.float32)
    assert boxes_around(points, (120, 60)).tolist() == [[0, 10, 20, 30], [3, 4, 60, 120]]
    assert boxes_around(points[:0], (120, 60)).shape == (0, 4)


@pytest.mark.parametrize("value", ["no", 1, None])
def test_switches_are_true_or_false(value):
    from multihmr.preprocessing.options import check_switches

    check_switches(flip_test=True, closeups=np.bool_(False))
    with pytest.raises(ValueError, match="flip_test must be True or False, got"):
        check_switches(flip_test=value)
