"""Which way is up, and where the floor is, in the camera frame: from people who stand, or as given.

Each person who stands gives an axis, from the feet through the pelvis to the neck, and the place where the
feet touch the floor. Roll and pitch of the camera and its height over the floor are those that explain all of
them best: bodies are upright within some degrees, feet lie on one plane, and cameras are mostly held level
and at the height of eyes or chests (Hoiem et al., "Putting Objects in Perspective", 2008). All residuals
count by Cauchy's function, so that a person who leans, jumps or stands on a step is outvoted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..humans import Humans
from .standing import Stances, lowest_points, roll_and_pitch, up_of

# Standard deviations that the estimate weighs by, chosen on 340 renders of the training split.
AXIS_ROLL, AXIS_PITCH = 5.0, 7.0  # [degrees] of one person's axis
CAMERA_ROLL, CAMERA_PITCH = 2.0, 40.0  # [degrees] of cameras
CAMERA_HEIGHT, CAMERA_HEIGHT_STD = 1.5, 0.25  # [m], and of its logarithm; where the feet tell the height
CONTACT = 0.03  # [m] of the lowest points of feet
DEPTH = 0.06  # relative error of distances, which lifts or lowers feet
CAUCHY = 1.0  # residual, in standard deviations, that counts by 1 / 2
AGREEMENT = 0.2  # least mean weight of the axes; less means that people contradict each other
MOST_FRAMES = 200  # of a video; more tell the same again


@dataclass(frozen=True)
class Ground:
    """The vertical and the floor of one camera; what could not be told is None, and `reason` says why.

    Attributes:
        up: (3,) unit vector away from the centre of the earth, in the camera frame; None: unknown.
        camera_height: of the camera over the floor [m]; None: unknown.
        gravity_source: "people", "given", or None where unknown.
        floor_source: likewise.
        people: how many people who stand were used; of a video, in all of its frames.
        gravity_std: estimated standard deviation of `up` [degrees]; 0 where given, None where unknown.
        reason: a sentence on what is unknown and what to do, "" where both are known.
    """

    up: np.ndarray | None = None
    camera_height: float | None = None
    gravity_source: str | None = None
    floor_source: str | None = None
    people: int = 0
    gravity_std: float | None = None
    reason: str = ""

    @property
    def known(self) -> bool:
        """Whether both the vertical and the floor are."""
        return self.up is not None and self.camera_height is not None

    @property
    def camera_pitch(self) -> float | None:
        """Degrees by which the camera looks down; negative: up."""
        return None if self.up is None else float(np.degrees(roll_and_pitch(self.up)[1]))

    @property
    def camera_roll(self) -> float | None:
        """Degrees by which the camera is turned clockwise about its axis, seen from behind it."""
        return None if self.up is None else float(np.degrees(roll_and_pitch(self.up)[0]))

    @property
    def plane(self) -> np.ndarray | None:
        """(4,) a, b, c, d of the floor, a x + b y + c z + d = 0 in the camera frame, (a, b, c) upwards."""
        return (
            None if self.up is None or self.camera_height is None else np.append(self.up, self.camera_height)
        )

    def heights(self, points: np.ndarray) -> np.ndarray:
        """(...) over the floor [m] of points (..., 3) in the camera frame.

        Raises:
            ValueError: the floor is unknown; the sentence says why.
        """
        self.check_floor()
        over: np.ndarray = points @ self.up + self.camera_height
        return over

    def camera_to_level(self) -> tuple[np.ndarray, np.ndarray]:
        """Rotation (3, 3) and offset (3,) from the camera frame to a level one: x right, y down, z forward.

        Its z is the horizontal part of the camera's axis (of the image's upwards direction, where the camera
        looks straight down or up); its origin lies on the floor below the camera, at the camera if the floor
        is unknown.

        Raises:
            ValueError: gravity is unknown; the sentence says why.
        """
        self.check_gravity()
        assert self.up is not None
        axes = np.eye(3)
        ahead = axes[2] - (axes[2] @ self.up) * self.up
        if np.linalg.norm(ahead) < 0.1:
            ahead = -axes[1] * np.sign(-self.up[2] or 1)
            ahead = ahead - (ahead @ self.up) * self.up
        forward, down = ahead / np.linalg.norm(ahead), -self.up
        rotation = np.stack([np.cross(down, forward), down, forward])
        return rotation, np.array([0.0, -(self.camera_height or 0.0), 0.0])

    def check_gravity(self) -> None:
        """Raises ValueError with the reason if the vertical is unknown."""
        if self.up is None:
            raise ValueError(self.reason or "gravity is unknown: give camera_pitch and camera_roll")

    def check_floor(self) -> None:
        """Raises ValueError with the reason if the vertical or the floor are unknown."""
        self.check_gravity()
        if self.camera_height is None:
            raise ValueError(self.reason or "the floor is unknown: give floor, the camera's height over it")

    def to_dict(self) -> dict[str, Any]:
        """Numbers and texts for files."""
        known: dict[str, Any] = {
            "up": None if self.up is None else [round(float(value), 6) for value in self.up],
            "camera_pitch_deg": self.camera_pitch,
            "camera_roll_deg": self.camera_roll,
            "camera_height_m": self.camera_height,
            "gravity_std_deg": self.gravity_std,
        }
        known = {key: round(value, 4) if isinstance(value, float) else value for key, value in known.items()}
        return known | {
            "gravity_source": self.gravity_source,
            "floor_source": self.floor_source,
            "people": self.people,
            "reason": self.reason,
        }


def estimate_ground(
    people: Humans | Iterable[Humans],
    *,
    camera_pitch: float | None = None,
    camera_roll: float | None = None,
    floor: float | Sequence[float] | np.ndarray | None = None,
) -> Ground:
    """The vertical and the floor, from people who stand, or as given.

    Args:
        people: of an image, or of the frames of a camera that does not move, of which up to 400 are used.
        camera_pitch: degrees by which the camera looks down, if known.
        camera_roll: degrees by which it is turned clockwise about its axis, if known; 0 where only the pitch
            is given and no one stands.
        floor: height of the camera over the floor [m], if known; or the floor itself, a, b, c, d with
            a x + b y + c z + d = 0 in the camera frame and (a, b, c) upwards, which gives the vertical, too.

    Returns:
        Ground. Where no standing person is in view and nothing is given, `up` is None and `reason` says so;
        where no feet are seen, `camera_height` is None.

    Raises:
        ValueError: an angle or the floor is out of range, or both a floor plane and angles are given.

    Examples:
        >>> ground = estimate_ground(humans, camera_pitch=12, floor=1.6)
        >>> round(ground.camera_pitch), ground.camera_height
        (12, 1.6)
    """
    frames = StanceCollector()
    for humans in [people] if isinstance(people, Humans) else people:
        frames.add(humans)
    return frames.ground(camera_pitch=camera_pitch, camera_roll=camera_roll, floor=floor)


class StanceCollector:
    """What people of a video say about gravity, of at most 400 frames, evenly spread, in little memory."""

    def __init__(self) -> None:
        self._frames: list[Stances] = []
        self._seen, self._stride = 0, 1

    def add(self, humans: Humans) -> None:
        """The people of the next frame; they need joints, and meshes for the feet."""
        if len(humans) and self._seen % self._stride == 0:
            self._frames.append(Stances.of(humans))
            if len(self._frames) >= 2 * MOST_FRAMES:
                self._frames, self._stride = self._frames[::2], 2 * self._stride
        self._seen += 1

    def watch(self, people: Iterable[Humans]) -> Iterator[Humans]:
        """Yield them, and add each."""
        for humans in people:
            self.add(humans)
            yield humans

    def ground(
        self, *, camera_pitch: float | None = None, camera_roll: float | None = None, floor: Any = None
    ) -> Ground:
        """The ground of the frames so far; options as in `estimate_ground`."""
        options = _given(camera_pitch, camera_roll, floor)
        return options if isinstance(options, Ground) else _Estimate(self.stances(), *options).ground()

    def stances(self) -> Stances | None:
        """Of all people, None if there were none."""
        return Stances.joined(self._frames) if self._frames else None


class _Estimate:
    """Gauss-Newton on roll, pitch and camera height, each of which may be given."""

    def __init__(
        self, stances: Stances | None, pitch: float | None, roll: float | None, height: float | None
    ) -> None:
        self.stances, self.pitch, self.roll, self.height = stances, pitch, roll, height
        none = np.zeros(0, int)
        self.standing = none if stances is None else np.flatnonzero(stances.stands)
        self.contacts = none if stances is None else np.flatnonzero(stances.shows_feet)
        self.height_prior = height is None and len(self.contacts) > 0

    def ground(self) -> Ground:
        known = self.pitch is not None and (self.roll is not None or not len(self.standing))
        if self.pitch is None and not len(self.standing):
            return Ground(
                camera_height=self.height,
                floor_source=None if self.height is None else "given",
                reason=f"{self._no_standing_person()}, so nothing shows which way is up: "
                "give camera_pitch (and camera_roll), in degrees",
            )
        values, std, agreement = self._solve()
        if self.height is None and len(self.contacts):
            # The prior of the camera's height helps to tell which way is up; the floor is where feet are.
            level = _Estimate(self.stances, float(values[1]), float(values[0]), None)
            level.height_prior = False
            values[2] = level._solve()[0][2]
        if not known and len(self.standing) > 1 and agreement < AGREEMENT:
            return Ground(
                reason=f"the {len(self.standing)} people who stand do not agree about which way is up: "
                "give camera_pitch (and camera_roll), in degrees"
            )
        height: float | None = float(values[2]) if len(self.contacts) or self.height is not None else None
        reason = ""
        if height is not None and height <= 0 and self.height is None:
            height, reason = None, "the feet seem to be above the camera, so the floor is not known: "
        elif height is None:
            reason = "no standing person shows the feet, so the floor is not known: "
        return Ground(
            up_of(values[0], values[1]),
            height,
            "given" if known else "people",
            None if height is None else "given" if self.height is not None else "people",
            people=len(self.standing),
            gravity_std=0.0 if known else std,
            reason=reason and f"{reason}give floor, the height of the camera over it in metres",
        )

    def _no_standing_person(self) -> str:
        count = 0 if self.stances is None else len(self.stances.axes)
        if not count:
            return "no people are seen"
        return (
            "the person in view does not stand upright with the knees in the picture"
            if count == 1
            else f"none of the {count} people in view stands upright with the knees in the picture"
        )

    def _solve(self) -> tuple[np.ndarray, float, float]:
        """roll, pitch [rad] and height [m]; standard deviation of up [degrees]; mean weight of axes."""
        given = (self.roll, self.pitch, self.height)
        free = np.array([value is None for value in given])
        free[2] &= len(self.contacts) > 0
        axes = np.zeros((0, 3)) if self.stances is None else self.stances.axes[self.standing]
        rolls, pitches = roll_and_pitch(axes)
        start = [float(np.median(part)) if len(part) else 0.0 for part in (rolls, pitches)] + [0.0]
        x = np.array([guess if value is None else value for guess, value in zip(start, given, strict=True)])
        points = self._points(up_of(x[0], x[1]))
        if free[2]:
            x[2] = -np.median(points @ up_of(x[0], x[1]))
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
        return x, self._std(jacobian, weights, free), float(used.mean()) if len(used) else 0.0

    def _points(self, up: np.ndarray) -> np.ndarray:
        if self.stances is None or not len(self.contacts):
            return np.zeros((0, 3))
        return lowest_points(self.stances.feet[self.contacts], up)

    def _residuals(
        self, x: np.ndarray, rolls: np.ndarray, pitches: np.ndarray, points: np.ndarray
    ) -> np.ndarray:
        """In standard deviations: of the camera's roll and pitch, each axis, each contact, the height."""
        levels = points @ up_of(x[0], x[1])
        far = self.stances.distances[self.contacts] if self.stances is not None else np.zeros(0)
        lift = np.sqrt(CONTACT**2 + (DEPTH * levels) ** 2 + (0.3 * DEPTH * far) ** 2)
        camera = [x[0] / np.radians(CAMERA_ROLL), x[1] / np.radians(CAMERA_PITCH)]
        return np.concatenate(
            [
                camera,
                (rolls - x[0]) * np.cos(x[1]) / np.radians(AXIS_ROLL),
                (pitches - x[1]) / np.radians(AXIS_PITCH),
                (levels + x[2]) / lift,
                [np.log(max(x[2], 0.05) / CAMERA_HEIGHT) / CAMERA_HEIGHT_STD] if self.height_prior else [],
            ]
        )

    def _std(self, jacobian: np.ndarray, weights: np.ndarray, free: np.ndarray) -> float:
        if not free[:2].any():
            return 0.0
        normal = (jacobian * weights[:, None]).T @ jacobian + 1e-9 * np.eye(int(free.sum()))
        variances = np.diag(np.linalg.inv(normal))[: int(free[:2].sum())]
        return float(np.degrees(np.sqrt(variances.sum())))


def _given(
    camera_pitch: float | None, camera_roll: float | None, floor: Any
) -> Ground | tuple[float | None, float | None, float | None]:
    """The ground that a plane gives; else pitch, roll [rad] and height [m], as far as given; ValueError."""
    height, plane_up = _given_floor(floor)
    pitch, roll = _radians("camera_pitch", camera_pitch), _radians("camera_roll", camera_roll)
    if plane_up is None:
        return pitch, roll, height
    if pitch is not None or roll is not None:
        raise ValueError("a floor plane gives the vertical: leave camera_pitch and camera_roll away")
    return Ground(plane_up, height, "given", "given", gravity_std=0.0)


def _given_floor(floor: Any) -> tuple[float | None, np.ndarray | None]:
    """(height of the camera, upwards direction) of what `floor` may be."""
    if floor is None:
        return None, None
    values = np.asarray(floor, np.float64)
    if values.ndim == 0 and np.isfinite(values) and 0 < values < 1000:
        return float(values), None
    if values.shape == (4,) and np.isfinite(values).all() and np.linalg.norm(values[:3]) > 1e-9:
        values = values / np.linalg.norm(values[:3])
        if values[3] > 0:
            return float(values[3]), values[:3]
    raise ValueError(
        "floor is the height of the camera over it in metres, above 0 and below 1000, or a plane "
        "(a, b, c, d) whose normal (a, b, c) points upwards and whose d is positive, as the camera is "
        f"above it; got {floor!r}"
    )


def _radians(name: str, degrees: float | None) -> float | None:
    if degrees is None:
        return None
    limit = 180 if name == "camera_roll" else 90
    if isinstance(degrees, (str, bytes, bool)) or not -limit <= float(degrees) <= limit:
        raise ValueError(f"{name} is in degrees, from -{limit} to {limit}, got {degrees!r}")
    return float(np.radians(float(degrees)))
