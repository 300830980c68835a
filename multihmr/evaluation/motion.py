"""Motion metrics of people in the frames of sequences: acceleration error and jitter.

A sample belongs to the sequence that its name has before the last "/", and its frame is the last number in
the name. A person is followed from frame to frame by the nearest true root.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .correspondence import Points
from .metrics import MM, acceleration_error, jitter

FARTHEST = 0.5  # [m] that a true root moves from frame to frame
DIGITS = 5  # of stored metres


@dataclass
class _Line:
    """One true person over frames in a row: joints around the root, as predicted and true [m]."""

    frame: int
    root: np.ndarray
    pairs: list[np.ndarray] = field(default_factory=list)


def motion_rows(name: str, prediction: Points, truth: Points) -> list[list[Any]]:
    """Of each matched person of an image: true root, predicted and true joints around their roots [m].

    Empty for a sample that is of no sequence.

    Args:
        name: of the sample.
        prediction: M people.
        truth: the same people.
    """
    if frame_of(name) is None:
        return []
    ours = (prediction.joints - prediction.root[:, None]).cpu().numpy()
    theirs = (truth.joints - truth.root[:, None]).cpu().numpy()
    roots = truth.root.cpu().numpy()
    columns = (np.round(values.astype(float), DIGITS).tolist() for values in (roots, ours, theirs))
    return [list(row) for row in zip(*columns, strict=True)]


def frame_of(name: str) -> tuple[str, int] | None:
    """(sequence, number of the frame) of a sample's name; None if it is of no sequence."""
    sequence, _, frame = name.rpartition("/")
    numbers = re.findall(r"\d+", frame)
    return (sequence, int(numbers[-1])) if sequence and numbers else None


def motion_figures(frames: Iterable[tuple[str, Sequence[Any]]]) -> dict[str, float]:
    """acceleration_error [mm per frame squared], jitter and true_jitter [mm per frame cubed] by name.

    Means over all people and frames; of joints around the root, so that they are those of the pose. Empty
    without sequences of at least four frames in a row.

    Args:
        frames: (name, `motion_rows`) of all images.
    """
    sequences: dict[str, dict[int, Sequence[Any]]] = {}
    for name, rows in frames:
        place = frame_of(name)
        if place is not None:
            sequences.setdefault(place[0], {})[place[1]] = rows
    lines = [line for numbered in sequences.values() for line in _lines(numbered)]
    sums = np.zeros((3, 2))
    for line in lines:
        ours, theirs = torch.tensor(np.stack(line.pairs), dtype=torch.float32).unbind(1)
        values = [acceleration_error(ours, theirs)]
        values += [MM * jitter(points, fps=1.0) for points in (ours, theirs)]
        sums += [[float(value.nansum()), int((~value.isnan()).sum())] for value in values]
    names = ("acceleration_error", "jitter", "true_jitter")
    return {name: total / count for name, (total, count) in zip(names, sums, strict=True) if count}


def _lines(numbered: dict[int, Sequence[Any]]) -> list[_Line]:
    """The people of one sequence, over at least four frames in a row."""
    order = sorted(numbered)
    step = min((b - a for a, b in itertools.pairwise(order)), default=1)
    active: list[_Line] = []
    done: list[_Line] = []
    for frame in order:
        before = [line for line in active if line.frame == frame - step]
        done += [line for line in active if line.frame != frame - step]
        active = []
        for root, ours, theirs in numbered[frame]:
            place = np.array(root)
            gaps = [float(np.linalg.norm(line.root - place)) for line in before]
            nearest = int(np.argmin(gaps)) if gaps else -1
            known = nearest >= 0 and gaps[nearest] < FARTHEST
            line = before.pop(nearest) if known else _Line(frame, place)
            line.frame, line.root = frame, place
            line.pairs.append(np.array([ours, theirs]))
            active.append(line)
        done += before
    return [line for line in done + active if len(line.pairs) >= 4]
