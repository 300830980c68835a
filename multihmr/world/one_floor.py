"""People of one image who stand on one floor: their sizes and distances agree with it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..humans import Humans
from .ground import Ground, given_options, ground_of
from .ground_solver import GroundSolver
from .heights import KnownHeights, heights, wanted_heights, with_heights
from .standing import Stances, roll_and_pitch

# How much larger and farther away people are than they are predicted, and how much that varies (logarithms),
# at these predicted heights: people are on average somewhat taller than networks say, and short ones, of
# whom a network cannot tell well whether they are children, shorter and nearer. Measured on renders of the
# training split with the bundled model: `scripts/fit_one_floor.py`.
PRIOR_HEIGHTS = (1.2, 1.5)  # [m]
PRIOR_MEAN = (-0.10, 0.01)
PRIOR_STD = (0.19, 0.07)
KNOWN_STD = 0.005  # of a height that is given
DOUBT = 1.5  # times the deviation of feet from a floor that is estimated, and so uncertain itself
CAUCHY = 2.0  # standard deviations between feet and floor that count by 1 / 2


def on_one_floor(
    humans: Humans,
    *,
    ground: Ground | None = None,
    camera_pitch: float | None = None,
    camera_roll: float | None = None,
    floor: Any = None,
    known_heights: KnownHeights | None = None,
    body: Any = None,
) -> Humans:
    """See `Humans.on_one_floor`."""
    return fit_one_floor(humans, ground, (camera_pitch, camera_roll, floor), known_heights, body)[0]


def fit_one_floor(
    humans: Humans,
    ground: Ground | None,
    given: tuple[float | None, float | None, Any],
    known_heights: KnownHeights | None,
    body: Any,
) -> tuple[Humans, Ground]:
    """People whose size and distance agree with one floor, and that floor, as far as it can be told.

    A picture shows each person up to a factor, by which size and distance grow alike. Who stands on the floor
    tells its height as seen at that factor, and all of them together what it is (Criminisi et al., "Single
    View Metrology", 2000): first the ground from all people, each as sure as the prior of the own factor;
    then each factor from its prior and from the distance of the feet to that floor.

    Args:
        humans: of one image.
        ground: if it is known, of another image of the same camera, say.
        given: camera_pitch, camera_roll and floor as `Humans.ground` takes them, None where unknown.
        known_heights: as `with_heights` takes them; these people keep them.
        body: as `with_heights` takes it.
    """
    options = given_options(*given)
    if ground is not None and given != (None, None, None):
        raise ValueError("give either ground, or camera_pitch, camera_roll and floor")
    if ground is None and isinstance(options, Ground):
        ground = options
    is_known = np.zeros(len(humans), bool)
    if known_heights is not None:
        is_known = np.isfinite(wanted_heights(humans, known_heights))
        humans = with_heights(humans, known_heights, body=body)
    if ground is not None and ground.up is not None:
        roll, pitch = map(float, roll_and_pitch(ground.up))
        camera: tuple[float | None, float | None, float | None] = (pitch, roll, ground.camera_height)
    elif isinstance(options, tuple):
        camera = options
    if not len(humans):
        return humans, ground or ground_of(None, *camera)
    tall = heights(humans, body=body)
    mean, std = scale_prior(tall)
    mean[is_known], std[is_known] = 0.0, KNOWN_STD
    stances = Stances.of(humans).scaled(np.exp(mean))
    scales = np.exp(mean + _scale_changes(GroundSolver(stances, *camera, scale_std=std), std))
    scales[is_known] = 1.0
    with warnings.catch_warnings():  # who cannot be that tall at this age is made as tall as can be
        warnings.simplefilter("ignore", UserWarning)
        humans = with_heights(humans, np.where(is_known, np.nan, tall * scales), body=body)
    return humans, ground or ground_of(stances, *camera, scale_std=std)


def scale_prior(tall: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) mean and standard deviation of log(true / predicted size), of predicted heights [m]."""
    return np.interp(tall, PRIOR_HEIGHTS, PRIOR_MEAN), np.interp(tall, PRIOR_HEIGHTS, PRIOR_STD)


def _scale_changes(solver: GroundSolver, std: np.ndarray) -> np.ndarray:
    """(N,) logarithms of factors, from the floor that the solver finds and the prior's standard deviation."""
    changes = np.zeros(len(std))
    if not len(solver.contacts):
        return changes
    (roll, pitch, height), _, _ = solver.solve()
    if height <= 0:
        return changes
    levels = -solver.levels_at(roll, pitch)
    doubt = 1.0 if None not in solver.given else DOUBT
    spread, prior = doubt * solver.contact_std(levels), std[solver.contacts]
    change = np.zeros(len(levels))
    for _ in range(20):
        gap, slope = (height - np.exp(change) * levels) / spread, np.exp(change) * levels / spread
        weight = 1 / (1 + (gap / CAUCHY) ** 2)
        step = (weight * slope * gap - change / prior**2) / (weight * slope**2 + 1 / prior**2)
        change = change + step
        if np.abs(step).max() < 1e-6:
            break
    changes[solver.contacts] = change
    return changes
