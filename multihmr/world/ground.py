"""Which way is up, and where the floor is, in the camera frame: from people who stand, or as given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..humans import Humans
from .ground_solver import GroundSolver
from .standing import Stances, roll_and_pitch, up_of

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
        options = given_options(camera_pitch, camera_roll, floor)
        return options if isinstance(options, Ground) else ground_of(self.stances(), *options)

    def stances(self) -> Stances | None:
        """Of all people, None if there were none."""
        return Stances.joined(self._frames) if self._frames else None


def ground_of(
    stances: Stances | None,
    pitch: float | None,
    roll: float | None,
    height: float | None,
    *,
    scale_std: np.ndarray | None = None,
) -> Ground:
    """The ground of these people; pitch and roll [rad] and the camera's height [m] if they are known.

    scale_std: (M,) how sure the sizes of people are, if they will be fitted to the floor; None: the floor is
    where their feet are, whatever height of the camera that means.
    """
    if pitch is not None and roll is None and (stances is None or not stances.stands.any()):
        roll = 0.0
    solver = GroundSolver(stances, pitch, roll, height, scale_std=scale_std)
    standing, shows_feet = solver.standing, solver.shows_feet
    known = pitch is not None and roll is not None
    if pitch is None and not len(standing):
        return Ground(
            camera_height=height,
            floor_source=None if height is None else "given",
            reason=f"{_no_standing_person(stances)}, so nothing shows which way is up: "
            "give camera_pitch (and camera_roll), in degrees",
        )
    values, std, agreement = solver.solve()
    if not known and len(standing) > 1 and agreement < AGREEMENT:
        given = "" if height is None else f", with the camera {height:g} m over the floor"
        return Ground(
            reason=f"the {len(standing)} people who stand do not agree about which way is up{given}: "
            "give camera_pitch (and camera_roll), in degrees"
        )
    if height is None and scale_std is None and len(shows_feet):
        # The prior of the camera's height helps to tell which way is up; the floor is where feet are.
        values[2] = GroundSolver(stances, values[1], values[0], None, use_prior=False).solve()[0][2]
    camera_height = float(values[2]) if len(shows_feet) or height is not None else None
    reason = ""
    if camera_height is not None and camera_height <= 0 and height is None:
        camera_height, reason = None, "the feet seem to be above the camera, so the floor is not known: "
    elif camera_height is None:
        reason = "no standing person shows the feet, so the floor is not known: "
    return Ground(
        up_of(values[0], values[1]),
        camera_height,
        "given" if known else "people",
        None if camera_height is None else "given" if height is not None else "people",
        people=len(standing),
        gravity_std=0.0 if known else std,
        reason=reason and f"{reason}give floor, the height of the camera over it in metres",
    )


def _no_standing_person(stances: Stances | None) -> str:
    count = 0 if stances is None else len(stances.axes)
    if not count:
        return "no people are seen"
    return (
        "the person in view does not stand upright with the knees in the picture"
        if count == 1
        else f"none of the {count} people in view stands upright with the knees in the picture"
    )


def given_options(
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
