"""Roll, pitch and height of a camera that explain best how people stand: robust least squares.

Each person gives an axis, from the feet through the pelvis to the neck, and the place where the feet touch
the floor; who does not stand upright counts less. Bodies are upright within some degrees, feet lie on one
plane, and cameras are mostly held level and at the height of eyes or chests (Hoiem et al., "Putting Objects
in Perspective", 2008). All residuals count by Cauchy's function, so that a person who leans, jumps or stands
on a step is outvoted.
"""

from __future__ import annotations

import numpy as np

from .standing import Stances, lowest_points, roll_and_pitch, up_of

# Standard deviations that the estimate weighs by; `scripts/fit_one_floor.py` measures them on renders.
AXIS_ROLL, AXIS_PITCH = 5.0, 7.0  # [degrees] of the axis of one who stands
LOOSE = 1.6  # times that of one who does not
CAMERA_ROLL, CAMERA_PITCH = 2.0, 40.0  # [degrees] of cameras
CAMERA_HEIGHT, CAMERA_HEIGHT_STD = 1.5, 0.25  # [m], and of its logarithm; where the feet tell the height
CONTACT = 0.05  # [m] of the lowest points of feet
# Of the feet's way below the camera: standing, ankles in the image, only hips in it
LEGS = (0.03, 0.05, 0.06)
SCALE = 0.06  # relative error of sizes and distances, which lifts or lowers feet
CAUCHY = 1.0  # residual, in standard deviations, that counts by 1 / 2


class GroundSolver:
    """Gauss-Newton on roll, pitch and camera height, each of which may be given.

    Args:
        stances: of the people, None if there are none.
        pitch: of the camera [rad], if known.
        roll: likewise.
        height: of the camera over the floor [m], if known.
        use_prior: whether the usual height of cameras counts.
        scale_std: (M,) relative error of each person's size and distance; None: SCALE.
    """

    def __init__(
        self,
        stances: Stances | None,
        pitch: float | None,
        roll: float | None,
        height: float | None,
        *,
        use_prior: bool = True,
        scale_std: np.ndarray | None = None,
    ) -> None:
        self.stances, self.given = stances, (roll, pitch, height)
        count = 0 if stances is None else len(stances.axes)
        none = np.zeros(0, int)
        self.standing = none if stances is None else np.flatnonzero(stances.stands)
        self.shows_feet = none if stances is None else np.flatnonzero(stances.shows_feet)
        # Axes and feet count of those who show the hips: pelvis and legs tell something.
        self.used = self.contacts = none
        self.legs = np.zeros(0)
        if stances is not None:
            self.used = np.flatnonzero(stances.stands | stances.shows_ankles | stances.shows_hips)
            self.contacts = np.flatnonzero(stances.shows_ankles | stances.shows_hips)
            legs = np.where(stances.shows_feet, LEGS[0], np.where(stances.shows_ankles, LEGS[1], LEGS[2]))
            self.legs = legs[self.contacts]
        self.scale_std = (np.full(count, SCALE) if scale_std is None else scale_std)[self.contacts]
        self.use_prior = use_prior and height is None and len(self.contacts) > 0

    def solve(self) -> tuple[np.ndarray, float, float]:
        """roll, pitch [rad] and height [m]; standard deviation of up [degrees]; mean weight of axes."""
        free = np.array([value is None for value in self.given])
        free[2] &= len(self.contacts) > 0
        axes = np.zeros((0, 3)) if self.stances is None else self.stances.axes[self.used]
        rolls, pitches = roll_and_pitch(axes)
        x = self._start(*roll_and_pitch(axes if self.stances is None else self.stances.axes[self._leaders()]))
        weights, jacobian = np.zeros(0), np.zeros((0, 3))
        for _ in range(30):
            points = self._points(up_of(x[0], x[1]))
            residuals = self._residuals(x, rolls, pitches, points)
            jacobian = np.stack(
                [(self._residuals(x + step, rolls, pitches, points) - residuals) / 1e-6
                 for step in np.eye(3) * 1e-6], 1
            )[:, free]  # fmt: skip
            weights = 1 / (1 + (residuals / CAUCHY) ** 2)
            weights[1] = 1.0  # the camera's pitch: many look far up or down
            normal = (jacobian * weights[:, None]).T @ jacobian + 1e-9 * np.eye(int(free.sum()))
            change = np.linalg.solve(normal, -jacobian.T @ (weights * residuals))
            x[free] += change
            if not len(change) or np.abs(change).max() < 1e-7:
                break
        used = weights[2 : 2 + len(rolls)] * weights[2 + len(rolls) : 2 + 2 * len(rolls)]
        standing = np.isin(self.used, self.standing)
        agreement = float(used[standing].mean()) if standing.any() else 0.0
        return x, self._std(jacobian, weights, free), agreement

    def levels_at(self, roll: float, pitch: float) -> np.ndarray:
        """(C,) how far the feet of `contacts` are above the camera [m]: negative as a rule."""
        up = up_of(roll, pitch)
        levels: np.ndarray = self._points(up) @ up
        return levels

    def contact_std(self, levels: np.ndarray) -> np.ndarray:
        """(C,) standard deviation [m] of a person's feet from the floor, if the size is right."""
        std: np.ndarray = np.sqrt(CONTACT**2 + (self.legs * levels) ** 2)
        return std

    def _leaders(self) -> np.ndarray:
        """Whose axes the search starts from."""
        return self.standing if len(self.standing) else self.used

    def _start(self, rolls: np.ndarray, pitches: np.ndarray) -> np.ndarray:
        start = [float(np.median(part)) if len(part) else 0.0 for part in (rolls, pitches)] + [0.0]
        x = np.array(
            [guess if value is None else value for guess, value in zip(start, self.given, strict=True)]
        )
        if self.given[2] is None and len(self.contacts):
            levels = self.levels_at(x[0], x[1])
            first = np.isin(self.contacts, self.shows_feet)
            x[2] = -np.median(levels[first] if first.any() else levels)
        return x

    def _points(self, up: np.ndarray) -> np.ndarray:
        if self.stances is None or not len(self.contacts):
            return np.zeros((0, 3))
        return lowest_points(self.stances.feet[self.contacts], up)

    def _residuals(
        self, x: np.ndarray, rolls: np.ndarray, pitches: np.ndarray, points: np.ndarray
    ) -> np.ndarray:
        """In standard deviations: of the camera's roll and pitch, each axis, each contact, the height."""
        levels = points @ up_of(x[0], x[1])
        lift = np.sqrt(self.contact_std(levels) ** 2 + (self.scale_std * levels) ** 2)
        camera = [x[0] / np.radians(CAMERA_ROLL), x[1] / np.radians(CAMERA_PITCH)]
        loose = np.where(np.isin(self.used, self.standing), 1.0, LOOSE)
        return np.concatenate(
            [
                camera,
                (rolls - x[0]) * np.cos(x[1]) / np.radians(AXIS_ROLL) / loose,
                (pitches - x[1]) / np.radians(AXIS_PITCH) / loose,
                (levels + x[2]) / lift,
                [np.log(max(x[2], 0.05) / CAMERA_HEIGHT) / CAMERA_HEIGHT_STD] if self.use_prior else [],
            ]
        )

    def _std(self, jacobian: np.ndarray, weights: np.ndarray, free: np.ndarray) -> float:
        if not free[:2].any():
            return 0.0
        normal = (jacobian * weights[:, None]).T @ jacobian + 1e-9 * np.eye(int(free.sum()))
        variances = np.diag(np.linalg.inv(normal))[: int(free[:2].sum())]
        return float(np.degrees(np.sqrt(variances.sum())))
