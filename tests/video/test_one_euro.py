from __future__ import annotations

import numpy as np
import pytest
import roma
import torch

from multihmr.video.one_euro import (
    Moment,
    MotionFilter,
    OneEuro,
    Smoothing,
    SmoothNumbers,
    SmoothRotations,
    between,
    from_ray,
    to_ray,
)

SETTING = OneEuro(1.0, 0.5)


def turn(angle: float, axis: int = 2) -> np.ndarray:
    """(1, 3, 3) rotation by `angle` [rad]."""
    return roma.rotvec_to_rotmat(angle * torch.eye(3)[axis])[None].numpy()


def angle_of(rotmat: np.ndarray) -> float:
    return float(roma.rotmat_geodesic_distance(torch.tensor(rotmat), torch.eye(3)).max())


def moment(time: float, angle: float = 0.0, depth: float = 3.0) -> Moment:
    return Moment(time, turn(angle), to_ray(np.array([0.1, 0.2, depth])), np.zeros(1))


def test_what_does_not_change_is_left_alone():
    numbers, rotations = SmoothNumbers(SETTING), SmoothRotations(SETTING)
    for _ in range(5):
        np.testing.assert_allclose(numbers(np.array([3.0, -1]), 0.04), [3, -1])
        np.testing.assert_allclose(rotations(turn(3.0), 0.04), turn(3.0), atol=1e-6)


def test_a_low_pass_filter_of_known_cutoff():
    """Without rise: after a step, 1 - (1 - a)^n with a = 2 pi f t / (2 pi f t + 1)."""
    numbers, rotations = SmoothNumbers(OneEuro(1.0, 0.0)), SmoothRotations(OneEuro(1.0, 0.0))
    numbers(np.zeros(1), 0.1), rotations(turn(0), 0.1)
    share = 2 * np.pi * 0.1 / (2 * np.pi * 0.1 + 1)
    for n in (1, 2, 3):
        expected = 1 - (1 - share) ** n
        assert numbers(np.ones(1), 0.1)[0] == pytest.approx(expected)
        assert angle_of(rotations(turn(1.0), 0.1)) == pytest.approx(expected, abs=1e-5)


def test_quick_motion_lags_less_than_slow_motion_in_proportion():
    def lag(speed: float) -> float:
        smooth = SmoothRotations(OneEuro(1.0, 1.0))
        for i in range(60):
            got = smooth(turn(speed * i / 30), 1 / 30)
        return angle_of(got.transpose(0, 2, 1) @ turn(speed * 59 / 30)) / speed

    assert lag(2.0) < 0.7 * lag(0.2)


@pytest.mark.slow
def test_rotations_stay_rotations_and_go_the_short_way_round():
    smooth, random = SmoothRotations(OneEuro(0.5, 0.0)), np.random.default_rng(0)
    for _ in range(300):
        got = smooth(turn(np.pi + random.normal(0, 0.1)), 1 / 30)
    np.testing.assert_allclose(got @ got.transpose(0, 2, 1), np.eye(3)[None], atol=1e-5)
    assert angle_of(got) > 2.8  # the mean of angles about pi is not 0


@pytest.mark.slow
def test_noise_is_calmed():
    """Depths of somebody who stands still: second differences fall by half, and places are no worse."""
    logs = np.log(3) + np.random.default_rng(0).normal(0, 0.03, 60)
    moments = [moment(i / 30, 0.3 * z, np.exp(z)) for i, z in enumerate(logs)]
    smooth = MotionFilter(Smoothing())
    got = [smooth.ahead(one, moments[i + 1 :]) for i, one in enumerate(moments)]
    for before, after in ((logs, [one.ray[2] for one in got]), (0.3 * logs, [angle_of(m.pose) for m in got])):
        assert np.std(np.diff(after, n=2)) < 0.5 * np.std(np.diff(before, n=2))
        assert np.std(after) < 0.8 * np.std(before)


@pytest.mark.slow
def test_what_follows_takes_the_lag_away():
    moments = [moment(i / 30, 1.0 * i / 30, 3 + i / 30) for i in range(30)]
    live, ahead = MotionFilter(Smoothing()), MotionFilter(Smoothing())
    late = [live(m) for m in moments][20]
    prompt = [ahead.ahead(m, moments[i + 1 :]) for i, m in enumerate(moments)][20]
    true = turn(20 / 30).transpose(0, 2, 1)
    assert angle_of(true @ prompt.pose) < 0.2 * angle_of(true @ late.pose)
    assert abs(prompt.ray[2] - moments[20].ray[2]) < 0.2 * abs(late.ray[2] - moments[20].ray[2])


def test_after_a_long_time_the_filter_begins_anew():
    smooth = MotionFilter(Smoothing())
    smooth(moment(0.0, 0.0))
    assert angle_of(smooth(moment(2.0, 1.0)).pose) == pytest.approx(1.0, abs=1e-5)
    assert smooth.count == 1


def test_halfway_between_rotations_and_rays():
    assert angle_of(between(turn(0.2), turn(1.0), 0.25)) == pytest.approx(0.4, abs=1e-5)
    np.testing.assert_allclose(from_ray(to_ray(np.array([1.0, -2, 4]))), [1, -2, 4])


def test_impossible_filters_are_refused():
    with pytest.raises(ValueError, match="cutoffs greater than 0"):
        OneEuro(0.0, 1.0)
