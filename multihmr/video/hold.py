"""Hands and faces that are found in some frames of a track only, held and interpolated in the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..bodies.body_parts import joint_parts
from ..bodies.topology import Topology
from ..humans import Humans
from .one_euro import between

LONGEST_GAP = 1.0  # seconds between two frames with a hand, between which it is interpolated
HELD = 0.3  # seconds for which the last one is held where no other follows, and the first one before it
FADE = 0.5  # seconds after that, in which it becomes that which the network predicts
PARTS = ("left_hand", "right_hand", "head")  # the columns of `Humans.refined`


class _Seen(NamedTuple):
    """A part that was found: rotations (P, 3, 3); of a face also expression (E,) and the way to it (3,)."""

    time: float
    turns: np.ndarray
    expression: np.ndarray
    moved: np.ndarray


class _State(NamedTuple):
    """What is changed in place of the people of a frame."""

    pose: np.ndarray
    expression: np.ndarray
    translation: np.ndarray
    moved: np.ndarray

    @classmethod
    def of(cls, humans: Humans) -> _State:
        moved = np.zeros((len(humans), 3), np.float32) if humans.moved is None else humans.moved
        return cls(*map(np.array, (humans.pose, humans.expression, humans.translation, moved)))

    def mix(self, person: int, topology: Topology, part: int, seen: _Seen, weight: float) -> None:
        """Move a part of a person towards a seen one, and the person with the face."""
        rows = _rotations(topology, part)
        self.pose[person, rows] = between(self.pose[person, rows], seen.turns, weight)
        if PARTS[part] == "head":
            self.expression[person] += weight * (seen.expression - self.expression[person])
            way = weight * (seen.moved - self.moved[person])
            self.moved[person] += way
            self.translation[person] += way

    def put(self, humans: Humans) -> Humans:
        """The people with these."""
        moved = None if humans.moved is None else self.moved
        return dataclasses.replace(humans, **(self._asdict() | {"moved": moved}))


class DetailHolder:
    """Keeps hands and faces of tracks from switching between found and predicted from frame to frame.

    A part that is found at two times of at most `LONGEST_GAP` is interpolated between them; else it is held
    for `HELD` seconds and then becomes the predicted one within `FADE`. Only people with `refined` change.
    Who was moved to where the face is stays moved while the face is held.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], _Seen] = {}

    def __call__(self, humans: Humans, numbers: np.ndarray, time: float) -> Humans:
        """The people of the next frame, with parts that were found shortly before.

        Args:
            humans: of the frame.
            numbers: (N,) of their tracks.
            time: of the frame in seconds.
        """
        if humans.refined is None:
            return humans
        self._last = {key: seen for key, seen in self._last.items() if time - seen.time < LONGEST_GAP}
        state = _State.of(humans)
        for person, part in np.argwhere(~humans.refined).tolist():
            last = self._last.get((int(numbers[person]), part))
            if last is not None:
                state.mix(person, humans.topology, part, last, _weight(time - last.time))
        return state.put(humans)

    def backwards(
        self,
        humans: Humans,
        numbers: np.ndarray,
        time: float,
        before: Iterable[tuple[float, np.ndarray, Humans]],
    ) -> list[Humans]:
        """The frames before, now that it is known what is found in this one.

        Args:
            humans: of this frame, as predicted.
            numbers: (N,) of their tracks.
            time: of this frame in seconds.
            before: time, numbers and people of frames before, in order.
        """
        earlier = list(before)
        result = [people for _, _, people in earlier]
        if humans.refined is None:
            return result
        for person, part in np.argwhere(humans.refined).tolist():
            key = int(numbers[person]), part
            seen = _part(humans, person, part, time)
            last = self._last.get(key)
            for i, (then, others, _) in enumerate(earlier):
                if last is None or then > last.time:
                    result[i] = _filled(result[i], np.flatnonzero(others == key[0]), part, then, last, seen)
            self._last[key] = seen
        return result


def _filled(
    people: Humans, rows: np.ndarray, part: int, time: float, last: _Seen | None, seen: _Seen
) -> Humans:
    """The people with a part of one of them between the last time it was found and the next."""
    if not len(rows) or people.refined is None or people.refined[rows[0], part]:
        return people
    between_two = last is not None and seen.time - last.time <= LONGEST_GAP
    weight = _weight(seen.time - time)
    if not between_two and not weight:
        return people
    state = _State.of(people)
    if between_two and last is not None:
        state.mix(rows[0], people.topology, part, last, 1.0)
        weight = (time - last.time) / max(seen.time - last.time, 1e-6)
    state.mix(rows[0], people.topology, part, seen, weight)
    return state.put(people)


def _weight(seconds: float) -> float:
    return float(np.clip((HELD + FADE - seconds) / FADE, 0, 1))


def _part(humans: Humans, person: int, part: int, time: float) -> _Seen:
    rows = _rotations(humans.topology, part)
    moved = np.zeros(3, np.float32) if humans.moved is None else humans.moved[person]
    return _Seen(time, humans.pose[person, rows], humans.expression[person], moved)


@lru_cache(maxsize=8)
def _rotations(topology: Topology, part: int) -> np.ndarray:
    """Rows of the pose that belong to a part; of hands with the bone of the forearm that turns with them."""
    joints = joint_parts(topology)[PARTS[part]]
    if PARTS[part] != "head":
        joints = np.append(joints, topology.parents[joints[0]])
    return np.flatnonzero(np.isin(topology.pose_joints, joints))
