"""Person crops for training top-down networks: one person per crop has annotations, others are background."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..bodies.topology import Topology
from ..preprocessing.boxes import box_of_points
from ..preprocessing.letterbox import Letterbox
from .augment import LEAST_SIDE, Augmentation, draw_angle, finish
from .sample import PEOPLE, Sample
from .transforms import heads_of, on_pelvis, turned_points, warp

LEAST_VISIBLE = 0.25  # smallest visible share of a person to learn from
ROOM = ((-0.45, -0.25), (0.45, 1.65))  # [m] box around the head of a person without keypoints
VISIBLE_BOX_SHARE = 0.3  # share of boxes around only the visible part of a person, as detectors give them
SCALE, SHIFT = 1.25, 0.08  # jitter of boxes: factor of their size, and shift in their sides


def one_person(
    sample: Sample, size: int, rng: np.random.Generator, topology: Topology, how: Augmentation | None = None
) -> Sample:
    """A crop of `size` x `size` pixels around one of the people, with the annotations of that person alone.

    A random crop without annotations if all people are occluded or too small.

    Raises:
        ValueError: as `warp` and `flip`.
    """
    how = how or Augmentation()
    return finish(_crops(sample, size, rng, topology, how, 1)[0], rng, topology, how)


def one_person_twice(
    sample: Sample, size: int, rng: np.random.Generator, topology: Topology, how: Augmentation | None = None
) -> list[Sample]:
    """Two crops of one person and one camera: boxes, colours and patches differ, 3D annotations do not."""
    how = how or Augmentation()
    crops = _crops(sample, size, rng, topology, how, 2)
    both = dataclasses.replace(how, flip=float(rng.random() < how.flip))  # mirrored, or not
    return [finish(crop, rng, topology, both) for crop in crops]


def _crops(
    sample: Sample, size: int, rng: np.random.Generator, topology: Topology, how: Augmentation, count: int
) -> list[Sample]:
    """`count` crops of one of the people, or of the background, with one camera rotation."""
    sample = on_pelvis(sample, topology)
    angle = draw_angle(rng, how)
    boxes = person_boxes(sample, angle, visible=rng.random() < VISIBLE_BOX_SHARE)
    clear = clear_people(sample, boxes)
    one = int(rng.choice(clear)) if clear else None
    sample, chosen = only(sample, one), None if one is None else boxes[one]
    crops = []
    for _ in range(count):
        box = _somewhere(sample, rng) if chosen is None else _jittered(chosen, rng)
        x0, y0, x1, y1 = box.tolist()
        crops.append(warp(sample, Letterbox.person(x0, y0, x1, y1, size), angle))
    return crops


def person_boxes(sample: Sample, angle: float = 0.0, *, visible: bool = False) -> list[np.ndarray | None]:
    """The box of each person in the picture, rotated by `angle` [rad]; None for people outside.

    From the keypoints, or without any from the head position. With `visible` from the visible keypoints,
    where the sample has their visibility and at least two are visible.
    """
    height, width = sample.image.shape[:2]
    boxes = [_box_of_head(sample, n, head) for n, head in enumerate(heads_of(sample, angle))]
    if sample.keypoints_2d is None:
        return boxes
    points = turned_points(sample, angle, sample.keypoints_2d)
    sight = sample.joint_visibility
    if visible and sight is not None and sight.shape == points.shape[:2]:
        several = sight.sum(1) > 1
        points = np.where((sight | ~several[:, None])[..., None], points, np.nan)
    known = np.isfinite(points).all(-1).sum(1) > 1
    return [box_of_points(points[n], height, width) if known[n] else box for n, box in enumerate(boxes)]


def clear_people(sample: Sample, boxes: Sequence[np.ndarray | None]) -> list[int]:
    """Indices of people who are visible enough to be trained and measured on."""
    return [
        n
        for n, box in enumerate(boxes)
        if box is not None and sample.visibility[n] >= LEAST_VISIBLE and longer_side(box) >= LEAST_SIDE
    ]


def only(sample: Sample, person: int | None) -> Sample:
    """The sample with the annotations of one person or none, without mask and depth."""
    rows = slice(0, 0) if person is None else slice(person, person + 1)
    people = {name: getattr(sample, name) for name in PEOPLE}
    kept = {name: array[rows] for name, array in people.items() if array is not None}
    return dataclasses.replace(sample, mask=None, depth=None, **kept)


def longer_side(box: np.ndarray) -> float:
    return float(max(box[2] - box[0], box[3] - box[1]))


def _box_of_head(sample: Sample, person: int, head: np.ndarray) -> np.ndarray | None:
    """Box of an upright person of average size below this head, clipped to the picture."""
    pixels_a_metre = sample.K[0, 0] / np.maximum(sample.translation[person, 2], 1e-3)
    corners = head + pixels_a_metre * np.array(ROOM)
    low, high = corners.clip(0, np.array(sample.image.shape[1::-1]))
    there = np.isfinite(corners).all() and (high > low).all()
    return np.concatenate([low, high]) if there else None


def _jittered(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = longer_side(box)
    middle = (box[:2] + box[2:]) / 2 + side * rng.uniform(-SHIFT, SHIFT, 2)
    half = side / 2 * np.exp(rng.uniform(-np.log(SCALE), np.log(SCALE)))
    return np.concatenate([middle - half, middle + half])


def _somewhere(sample: Sample, rng: np.random.Generator) -> np.ndarray:
    """A random square in a picture without usable people."""
    extent = np.array(sample.image.shape[1::-1], dtype=float)
    side = rng.uniform(0.3, 0.8) * extent.min()
    start = rng.uniform(0, extent - side)
    return np.concatenate([start, start + side])
