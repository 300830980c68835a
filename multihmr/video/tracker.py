"""Tracking of people over time: identities by position, pose, box and shape; gaps filled, motion smoothed.

`Tracker` associates the detections of each frame with the people of earlier frames; `follow` turns a stream
of Humans into one with stable `track_ids` and shapes and smoothed motion. It needs neither images nor a body
model, so the same code serves files, webcams and stored predictions.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ..humans import Humans
from .hold import DetailHolder
from .one_euro import MEMORY, Moment, MotionFilter, Smoothing, between, from_ray, to_ray
from .tracks import without_meshes

try:
    from scipy.optimize import linear_sum_assignment
except ModuleNotFoundError as error:
    raise ImportError("following people needs SciPy: pip install 'multihmr[video]'") from error

FAR = 1e6  # cost of an impossible pair
SAME_ACROSS = 0.3  # [m] perpendicular to the line of sight, median over joints: duplicates are nearer
SAME_DEPTH = 0.25  # difference of log depths, in which duplicate predictions differ most
MERGE_SECONDS = 0.8  # that two tracks overlap before they are merged; people who pass each other take less
BIRTH_OVERLAP = 0.4  # of boxes (intersection over union), above which no new track starts
LIVE_SHAPES = 30  # observations over which the mean shape is taken where there is no lookahead


@dataclass(frozen=True)
class Tracking:
    """Options of tracking. Durations are in frames where stated, else in seconds.

    lookahead  frames by which results are delayed: later frames decide whether a new track is kept, its mean
               shape, and what fills a gap. 0 for live sources: then no gaps are filled
    fill       longest gap, in frames, that is interpolated between two detections of a person
    memory     seconds for which a person who left the view can come back under the same id
    smoothing  the motion filters; None leaves motion and shape as predicted

    ValueError if a number is negative or gaps are longer than the lookahead.
    """

    lookahead: int = 30
    fill: int = 10
    memory: float = 20.0
    smoothing: Smoothing | None = field(default=Smoothing())

    def __post_init__(self) -> None:
        if self.lookahead < 0 or self.fill < 0 or self.memory < 0:
            raise ValueError("lookahead, fill and memory must not be negative")
        if self.fill > self.lookahead > 0:
            raise ValueError(
                f"gaps of {self.fill} frames cannot be filled with a lookahead of {self.lookahead}: make "
                "fill smaller or lookahead larger"
            )


LIVE = Tracking(lookahead=0, fill=0)


@dataclass
class _TrackState:
    """State of one track: the last observation and its velocity."""

    at: np.ndarray  # (3,) x/z, y/z, log z of the pelvis
    time: float
    joints: np.ndarray  # (J, 3) from the pelvis [m]
    box: np.ndarray
    shape: np.ndarray  # mean over all observations
    speed: np.ndarray = field(default_factory=lambda: np.zeros(3))  # of `at`, per second
    count: int = 1

    def expected(self, time: float) -> np.ndarray:
        """`at` extrapolated to now: the velocity decays within half a second."""
        return self.at + self.speed * 0.5 * (1 - np.exp(-(time - self.time) / 0.5))


class Tracker:
    """Multi-object tracker: assigns a track number to each person of each frame.

    Hungarian assignment (Kuhn 1955, scipy's linear_sum_assignment). The cost adds the distance from the
    extrapolated position, across the view and in depth, the change of the joints relative to the pelvis, the
    missing overlap of the boxes and the difference of the shapes, each divided by its usual size and weighted
    less the more time has passed. A person who is not observed for `patience` seconds gets a new number.
    """

    def __init__(self, patience: float = 1.0) -> None:
        self.patience = patience
        self.seen: dict[int, _TrackState] = {}
        self.spread = _Spread()
        self.merged: list[tuple[int, int]] = []  # of this frame: (number dropped, number kept)
        self._together: dict[
            tuple[int, int], float
        ] = {}  # two numbers -> seconds for which they have overlapped
        self._time = 0.0  # of the last frame
        self._numbers = itertools.count()

    def __call__(self, humans: Humans, time: float, new: float = 0.0) -> np.ndarray:
        """(N,) track numbers from 0; -1 for detections without a track whose score is below `new`."""
        self.seen = {n: s for n, s in self.seen.items() if time - s.time <= self.patience}
        sights = [_sight(humans, i, time) for i in range(len(humans))]
        known = list(self.seen)
        numbers = np.full(len(humans), -1)
        costs = np.array([[self._cost(self.seen[n], sight) for sight in sights] for n in known])
        for row, i in _assign(costs.reshape(len(known), len(sights))):
            numbers[i] = known[row]
        same = _same_place(humans)
        crowded = same | _boxes_coincide(humans)
        tracked = numbers >= 0
        for i in np.argsort(-humans.scores, kind="stable").tolist():
            sight = sights[i]
            if numbers[i] < 0 and humans.scores[i] >= new and not (crowded[i] & tracked).any():
                tracked[i] = True
                numbers[i] = next(self._numbers)
                self.seen[int(numbers[i])] = sight
            elif numbers[i] >= 0:
                self._renew(self.seen[int(numbers[i])], sight)
        self._merge(numbers, same, time)
        return numbers

    def _merge(self, numbers: np.ndarray, same: np.ndarray, time: float) -> None:
        """Drop the shorter of two tracks that overlapped for MERGE_SECONDS more than they did not."""
        seconds, self._time = time - self._time, time
        for i, j in itertools.combinations(np.flatnonzero(numbers >= 0).tolist(), 2):
            pair = (min(numbers[i], numbers[j]).item(), max(numbers[i], numbers[j]).item())
            together = self._together.get(pair, 0.0) + (seconds if same[i, j] else -seconds)
            self._together[pair] = max(0.0, together)
        self.merged = []
        self._together = {pair: t for pair, t in self._together.items() if t and set(pair) <= set(self.seen)}
        for pair, together in self._together.items():
            if together < MERGE_SECONDS or not set(pair) <= set(self.seen):
                continue
            kept, gone = sorted(pair, key=lambda number: -self.seen[number].count)
            del self.seen[gone]
            numbers[numbers == gone] = -1
            self.merged.append((gone, kept))

    def _cost(self, old: _TrackState, sight: _TrackState) -> float:
        seconds = sight.time - old.time
        step = sight.at - old.expected(sight.time)
        depth = np.exp(sight.at[2])
        across, along = np.linalg.norm(step[:2]) * depth, abs(step[2])
        if across > 0.6 + 3 * seconds or along > 0.4 + 1.0 * seconds:
            return FAR
        pose = np.linalg.norm(sight.joints - old.joints, axis=-1).mean()
        loose = 1 + 4 * seconds
        cost = (across / (0.15 * loose)) ** 2 + (along / (0.08 * loose)) ** 2 + (pose / (0.12 * loose)) ** 2
        return (
            cost + 2 * (1 - _overlap(old.box, sight.box)) + min(self.spread.unlike(old.shape, sight.shape), 4)
        )

    def _renew(self, old: _TrackState, sight: _TrackState) -> None:
        seconds = sight.time - old.time
        if seconds > 0:
            share = 1 - np.exp(-seconds / 0.2)
            limit = np.array([3.0, 3.0, 3.0]) / max(np.exp(sight.at[2]), 0.5)  # 3 m/s
            moved = np.clip((sight.at - old.at) / seconds, -limit, limit)
            old.speed = old.speed + share * (moved - old.speed)
        self.spread.add(old.shape, sight.shape)
        old.count += 1
        old.shape = old.shape + (sight.shape - old.shape) / old.count
        old.at, old.time, old.joints, old.box = sight.at, sight.time, sight.joints, sight.box


def _sight(humans: Humans, i: int, time: float) -> _TrackState:
    return _TrackState(
        to_ray(humans.pelvis[i]),
        time,
        humans.joints[i] - humans.pelvis[i],
        humans.boxes[i],
        humans.shape[i].astype(np.float64),
    )


def _same_place(humans: Humans) -> np.ndarray:
    """(N, N) bool: pairs that are duplicate predictions of one person, by 2D joints and depths."""
    depth = np.maximum(humans.pelvis[:, 2], 0.05)
    metres = np.minimum(depth[:, None], depth[None]) / humans.K[1, 1]  # per pixel, at the nearer one
    across = np.linalg.norm(humans.joints_2d[:, None] - humans.joints_2d[None], axis=-1)
    across = np.median(across, axis=-1) * metres  # the median, since arms differ most
    same = (across < SAME_ACROSS) & (np.abs(np.log(depth[:, None] / depth[None])) < SAME_DEPTH)
    np.fill_diagonal(same, False)
    return same


def _boxes_coincide(humans: Humans) -> np.ndarray:
    """(N, N) bool: pairs so close that no new track is started."""
    depth = np.maximum(humans.pelvis[:, 2], 0.05)
    near = np.abs(np.log(depth[:, None] / depth[None])) < SAME_DEPTH
    for i, j in np.argwhere(np.triu(near, 1)).tolist():
        near[i, j] = near[j, i] = _overlap(humans.boxes[i], humans.boxes[j]) > BIRTH_OVERLAP
    np.fill_diagonal(near, False)
    return near


class _Spread:
    """Running estimate of how much the predicted shape of one person varies between observations."""

    def __init__(self) -> None:
        self.total: np.ndarray | float = 0.0
        self.count = 0

    def add(self, mean: np.ndarray, sight: np.ndarray) -> None:
        self.total = self.total + (sight - mean) ** 2
        self.count += 1

    def unlike(self, one: np.ndarray, other: np.ndarray) -> float:
        """Normalised shape distance: about 1 for one person; 0 while too few observations exist."""
        if self.count < 10 or not one.size:
            return 0.0
        return float(np.mean((one - other) ** 2 / (self.total / self.count + 1e-4)))


def follow(
    stream: Iterable[tuple[float, Humans]], tracking: Tracking | None = None, *, new: float = 0.0
) -> Iterator[Humans]:
    """The same people with `track_ids` from 1 and `filled`, as many frames as come in; nearest first.

    stream: (seconds since the beginning, the people) of each frame, in order. new: least score of a new
    track; existing tracks are continued whatever the score is. The result has no meshes, and joints and boxes
    as they were predicted: `tracks.with_meshes` computes them from the smoothed parameters. At most
    `tracking.lookahead` frames are held.
    """
    follower = _Follower(tracking or Tracking(), new)
    try:
        for time, humans in stream:
            follower.take(time, without_meshes(humans))
            if len(follower.ahead) > follower.tracking.lookahead:
                yield follower.give()
    except OSError:  # a webcam was unplugged: the frames held so far are given first
        yield from follower.rest()
        raise
    yield from follower.rest()


@dataclass
class _Identity:
    """A person with an id: the last observation, and the motion filter."""

    number: int  # of the tracker
    frame: int
    time: float
    sight: Humans  # of one person, as predicted
    shape: np.ndarray
    count: int = 0
    filter: MotionFilter | None = None


@dataclass(frozen=True)
class _Frame:
    number: int
    time: float
    humans: Humans
    numbers: np.ndarray  # (N,) of the tracker


class _Follower:
    """Buffer of delayed frames, and all people with an id."""

    def __init__(self, tracking: Tracking, new: float) -> None:
        self.tracking, self.new = tracking, new
        self.tracker = Tracker()
        self.details = DetailHolder()
        self.ahead: deque[_Frame] = deque()
        self.known: dict[int, _Identity] = {}
        self.ids: dict[int, int] = {}  # number of the tracker -> id
        self._frames, self._free = itertools.count(), itertools.count(1)

    def take(self, time: float, humans: Humans) -> None:
        numbers = self.tracker(humans, time, self.new)
        for gone, _ in self.tracker.merged:
            self._drop(gone)
        there = numbers >= 0
        self._append(time, humans[there], numbers[there])

    def _append(self, time: float, humans: Humans, numbers: np.ndarray) -> None:
        """Add a frame to those that are delayed, and hold hands and faces that were found in some of them."""
        before = [(frame.time, frame.numbers, frame.humans) for frame in self.ahead]
        held = self.details(humans, numbers, time)
        for at, people in enumerate(self.details.backwards(humans, numbers, time, before)):
            if people is not self.ahead[at].humans:
                self.ahead[at] = dataclasses.replace(self.ahead[at], humans=people)
        self.ahead.append(_Frame(next(self._frames), time, held, numbers))

    def _drop(self, number: int) -> None:
        """Remove a duplicate track from the delayed frames, if it has no id so far."""
        if number in self.ids:
            return
        for at, frame in enumerate(self.ahead):
            kept = frame.numbers != number
            if not kept.all():
                self.ahead[at] = dataclasses.replace(
                    frame, humans=frame.humans[kept], numbers=frame.numbers[kept]
                )

    def rest(self) -> Iterator[Humans]:
        while self.ahead:
            yield self.give()

    def give(self) -> Humans:
        """The oldest frame with ids, and with the people whose short gaps are filled."""
        frame = self.ahead.popleft()
        self._forget(frame.time)
        self._name(frame)
        people = [frame.humans]
        ids = [self.ids[n] for n in frame.numbers.tolist()]
        for i, identity in enumerate(ids):
            self._meet(self.known[identity], frame, i)
        gone = [identity for identity in self.known if identity not in ids]
        found = {identity: self._in_gap(self.known[identity], frame) for identity in gone}
        filled = {identity: person for identity, person in found.items() if person is not None}
        people += filled.values()
        everyone = _joined(people, ids + list(filled), frame.humans)
        if self.tracking.smoothing is not None:
            everyone = self._smoothed(everyone, frame.time, self.tracking.smoothing)
        return everyone.nearest_first()

    def _forget(self, time: float) -> None:
        old = [i for i, known in self.known.items() if time - known.time > self.tracking.memory]
        for identity in old:
            del self.known[identity]
        if old:
            waiting = {n for frame in self.ahead for n in frame.numbers.tolist()}
            self.ids = {n: i for n, i in self.ids.items() if i in self.known or n in waiting}

    def _name(self, frame: _Frame) -> None:
        """Ids for new tracks: re-identified as a similar person who left, else a new id."""
        born = [i for i, number in enumerate(frame.numbers.tolist()) if number not in self.ids]
        if not born:
            return
        waiting = {n for later in (frame, *self.ahead) for n in later.numbers.tolist()}
        left = [i for i, known in self.known.items() if known.number not in waiting]
        shapes = {i: self._shape(int(frame.numbers[i]), frame) for i in born}
        costs = np.array(
            [[self._return_cost(self.known[j], frame, i, shapes[i]) for i in born] for j in left]
        )
        for row, column in _assign(costs.reshape(len(left), len(born))):
            i, identity = born[column], left[row]
            known = self.known[identity]
            del self.ids[known.number]
            self.ids[int(frame.numbers[i])] = identity
            self.known[identity] = dataclasses.replace(known, number=int(frame.numbers[i]))
        for i in born:
            number = int(frame.numbers[i])
            if number not in self.ids:
                self.ids[number] = next(self._free)
                self.known[self.ids[number]] = _Identity(
                    number, frame.number, frame.time, frame.humans[i], shapes[i]
                )

    def _shape(self, number: int, frame: _Frame) -> np.ndarray:
        """Mean over all delayed frames that show this person."""
        sights = [
            later.humans.shape[later.numbers == number][0]
            for later in (frame, *self.ahead)
            if number in later.numbers
        ]
        return np.mean(np.stack(sights), axis=0)

    def _return_cost(self, known: _Identity, frame: _Frame, i: int, shape: np.ndarray) -> float:
        """Cost of re-identifying person i of the frame with a person who left."""
        seconds = frame.time - known.time
        metres = float(np.linalg.norm(frame.humans.pelvis[i] - known.sight.pelvis[0]))
        unlike = self.tracker.spread.unlike(known.shape, shape)
        if metres > 1 + 3 * seconds or unlike > 9:
            return FAR
        return unlike + metres / (1 + 3 * seconds)

    def _meet(self, known: _Identity, frame: _Frame, i: int) -> None:
        known.count += 1
        if self.tracking.lookahead == 0 and known.count <= LIVE_SHAPES:
            known.shape = known.shape + (frame.humans.shape[i] - known.shape) / known.count
        known.frame, known.time, known.sight = frame.number, frame.time, frame.humans[i]

    def _in_gap(self, known: _Identity, frame: _Frame) -> Humans | None:
        """The person interpolated between two observations, if the gap is short enough; score 0."""
        last = known.frame + self.tracking.fill + 1
        near = itertools.islice(self.ahead, self.tracking.fill)
        later = next((f for f in near if known.number in f.numbers), None)
        if later is None or later.number > last:
            return None
        before, after = known.sight, later.humans[later.numbers == known.number]
        share = (frame.time - known.time) / max(later.time - known.time, 1e-6)
        mixed = {
            name: getattr(before, name) * (1 - share) + getattr(after, name) * share
            for name in ("translation", "pelvis", "boxes", "joints", "joints_2d", "expression")
        }
        return dataclasses.replace(
            before, **mixed, pose=between(before.pose, after.pose, share), scores=np.zeros(1)
        )

    def _smoothed(self, humans: Humans, time: float, smoothing: Smoothing) -> Humans:
        moments, shapes = [], []
        for i, identity in enumerate(np.asarray(humans.track_ids).tolist()):
            known = self.known[identity]
            known.filter = known.filter or MotionFilter(smoothing)
            moments.append(known.filter.ahead(_moment(humans, i, time), self._later(known.number)))
            shapes.append(known.shape)
        if not moments:
            return humans
        return dataclasses.replace(
            humans,
            pose=np.stack([moment.pose for moment in moments]),
            translation=np.stack([from_ray(moment.ray) for moment in moments]),
            expression=np.stack([moment.expression for moment in moments]),
            shape=np.stack(shapes),
        )

    def _later(self, number: int) -> list[Moment]:
        """The following states of a person, as far as the delayed frames hold them."""
        frames = [frame for frame in itertools.islice(self.ahead, 2 * MEMORY) if number in frame.numbers]
        return [
            _moment(frame.humans, int(np.argmax(frame.numbers == number)), frame.time)
            for frame in frames[:MEMORY]
        ]


def _moment(humans: Humans, i: int, time: float) -> Moment:
    return Moment(time, humans.pose[i], to_ray(humans.translation[i]), humans.expression[i])


def _joined(people: list[Humans], ids: list[int], frame: Humans) -> Humans:
    """One Humans of several, seen by the camera of the frame; those after the first are filled."""
    filled = np.arange(len(ids)) >= len(frame)
    return dataclasses.replace(Humans.concatenate(people), track_ids=np.array(ids, np.int64), filled=filled)


def _assign(costs: np.ndarray) -> list[tuple[int, int]]:
    """(row, column) of the pairs that together cost least and are not FAR."""
    rows, columns = linear_sum_assignment(costs)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if costs[r, c] < FAR]


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    common = float(sides.prod())
    return common / max(float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()) - common, 1e-6)
