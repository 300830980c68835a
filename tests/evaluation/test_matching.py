from __future__ import annotations

import numpy as np
import pytest

from multihmr.evaluation.matching import box_iou, match, match_within


def person(x: float, y: float = 0.0, size: float = 10.0) -> np.ndarray:
    return np.array([[x, y], [x + size, y], [x, y + size], [x + size, y + size]])


def people(*xs: float) -> np.ndarray:
    return np.stack([person(x) for x in xs]) if xs else np.zeros((0, 4, 2))


def test_everybody_finds_himself_in_any_order() -> None:
    result = match(people(200, 0, 100), people(0, 100, 200))
    assert sorted(map(tuple, result.pairs.tolist())) == [(0, 2), (1, 0), (2, 1)]
    assert len(result.false) == len(result.missed) == 0


@pytest.mark.parametrize(
    ("pred", "true", "pairs", "false", "missed"),
    [
        ((), (), 0, [], []),
        ((), (0, 100), 0, [], [0, 1]),
        ((0, 100), (), 0, [0, 1], []),
        ((1, 0, 100), (0,), 1, [0, 2], []),  # a second prediction of the same person is a false one
        ((50,), (0, 100), 0, [0], [0, 1]),  # too far away
        ((100,), (0, 100, 200), 1, [], [0, 2]),
    ],
)
def test_counts(pred: tuple, true: tuple, pairs: int, false: list[int], missed: list[int]) -> None:
    result = match(people(*pred), people(*true))
    assert (len(result.pairs), result.false.tolist(), result.missed.tolist()) == (pairs, false, missed)


def test_the_cheapest_pair_goes_first() -> None:
    # Prediction 0 is nearest to the person at 4, whom prediction 1 hits exactly: 0 has to take the other one.
    result = match(people(3, 4), people(0, 4))
    assert result.pairs.tolist() == [[1, 1], [0, 0]]


def test_a_rejected_pair_does_not_end_the_search() -> None:
    # Prediction 0 is small, and near the first person in cost but not in overlap; prediction 1 is a good one.
    pred = np.stack([person(4, 4, size=1), person(303)])
    true = np.stack([person(0), person(300)])
    result = match(pred, true)
    assert result.pairs.tolist() == [[1, 1]]
    assert (result.false.tolist(), result.missed.tolist()) == ([0], [0])


def test_the_overlap_asked_for_can_be_changed() -> None:
    pred, true = people(5), people(0)  # intersection over union 1 / 3
    assert len(match(pred, true, iou_threshold=0.3).pairs) == 1
    assert len(match(pred, true, iou_threshold=0.4).pairs) == 0


def test_predictions_that_are_not_finite_match_nobody() -> None:
    pred = people(0, 0)
    pred[0, 0, 0] = np.nan
    assert match(pred, people(0)).pairs.tolist() == [[1, 0]]


def test_box_iou() -> None:
    a = np.array([[0.0, 0, 2, 2], [0, 0, 0, 0]])
    b = np.array([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]])
    np.testing.assert_allclose(box_iou(a, b), [[1 / 7, 1, 0], [0, 0, 0]])


def test_different_joint_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="must be"):
        match(np.zeros((1, 4, 2)), np.zeros((1, 5, 2)))


def test_unknown_joints_decide_nothing() -> None:
    true = people(0, 100)
    true[0, 3] = np.nan
    pred = people(100, 0)
    pred[1, 3] = 5000.0  # far off, but nobody knows where it is
    assert match(pred, true).pairs.tolist() == [[0, 1], [1, 0]]
    assert match(pred, true * np.nan).missed.tolist() == [0, 1]


def test_mupots_counts_joints_within_40_pixels_one_person_after_the_other() -> None:
    true = people(0, 100)
    first, second = true[0].copy(), true[0].copy()
    first[0, 0] += 40.0  # not less than 40 away: 3 joints of person 0
    assert match_within(np.stack([first, second]), true).pairs.tolist() == [[1, 0]]
    assert match_within(np.stack([second, first]), true).pairs.tolist() == [[0, 0]]
    assert match_within(np.stack([first, first]), true).pairs.tolist() == [[0, 0]]
    near_both = match_within(people(70), people(0, 40, 100), pixels=75)
    assert near_both.pairs.tolist() == [[0, 0]]  # taken in the order of the people, not of the nearest
    assert match_within(people(), true).missed.tolist() == [0, 1]
