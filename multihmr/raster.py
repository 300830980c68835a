"""Which triangle does each sample of a picture show? A z-buffer rasteriser in plain numpy.

Scan lines, all triangles at once: every triangle is cut into rows of samples, every row into samples, and
what is nearest to the viewer wins. A person is some 27,000 triangles of a few samples each, too many to walk
through one by one and too few to need anything cleverer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_ROWS_AT_ONCE = 1 << 19
_SAMPLES_AT_ONCE = 1 << 21


def rasterize(
    xy: np.ndarray, nearness: np.ndarray, faces: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Face (H, W) int32, the triangle that each sample shows or -1 for none, and nearness (H, W) float32.

    xy (P, 2), where the centre of the first sample is (0.5, 0.5); nearness (P,) is affine on the plane and
    the greatest wins. Triangles whose nearness is not finite are left out. Both sides of a triangle count.
    """
    best = np.full(size[0] * size[1], -np.inf, np.float32)
    face = np.full(size[0] * size[1], -1, np.int32)
    for rows in _rows(xy, nearness, faces, size):
        for pixel, near, index in _samples(rows, size[1]):
            # Assigning to a repeated pixel keeps the last, mostly the nearest, for triangles come sorted from
            # far to near; whoever is nearer than what was kept is tried again until there is nobody.
            nearer = near > best[pixel]
            while nearer.any():
                pixel, near, index = pixel[nearer], near[nearer], index[nearer]
                best[pixel] = near
                face[pixel] = index
                nearer = near > best[pixel]
    return face.reshape(size), best.reshape(size)


@dataclass(frozen=True)
class _Rows:
    """Rows of samples, each of one triangle: first sample, how many, nearness there and its slope."""

    row: np.ndarray
    column: np.ndarray
    count: np.ndarray
    nearness: np.ndarray
    slope: np.ndarray
    face: np.ndarray


def _rows(xy: np.ndarray, nearness: np.ndarray, faces: np.ndarray, size: tuple[int, int]) -> Iterator[_Rows]:
    """Cut triangles into rows, from the farthest triangle to the nearest, a bounded number at once."""
    height, width = size
    left, right = _span(xy[:, 0], faces, width)
    top, bottom = _span(xy[:, 1], faces, height)
    seen = np.flatnonzero((bottom > top) & (right > left) & np.isfinite(_sum(nearness, faces)))
    seen = seen[np.argsort(_sum(nearness, faces[seen]), kind="stable")]
    cuts = np.cumsum(bottom[seen] - top[seen]) // _ROWS_AT_ONCE
    points = np.concatenate([xy, nearness[:, None]], 1)
    for some in np.split(seen, np.flatnonzero(np.diff(cuts)) + 1) if len(seen) else []:
        corners = points[faces[some]].astype(np.float64)
        order = np.argsort(corners[:, :, 1], axis=1, kind="stable")
        corners = corners[np.arange(len(some))[:, None], order]  # from the highest to the lowest
        yield _cut(corners, some, top[some], bottom[some], width)


def _span(values: np.ndarray, faces: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First sample, and the one past the last, whose centre lies between the corners; within 0 and size."""
    a, b, c = (np.clip(np.ceil(values - 0.5), 0, size).astype(np.int32)[faces[:, i]] for i in range(3))
    return np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)


def _sum(values: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return values[faces[:, 0]] + values[faces[:, 1]] + values[faces[:, 2]]


def _cut(corners: np.ndarray, face: np.ndarray, top: np.ndarray, bottom: np.ndarray, width: int) -> _Rows:
    """The rows of triangles with corners (T, 3, xy and nearness), sorted downwards.

    A row lies between the long edge (first to last corner) and one of the short ones. Two triangles that
    share an edge compute the same floats for it, so that no gap and no overlap remains between them.
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    rise, rise2 = b[:, 2] - a[:, 2], c[:, 2] - a[:, 2]
    with np.errstate(all="ignore"):  # horizontal edges are never used, triangles without area are left out
        long, upper, lower = _run(a, c), _run(a, b), _run(b, c)
        slope_x = (rise * (c[:, 1] - a[:, 1]) - rise2 * (b[:, 1] - a[:, 1])) / area
        slope_y = (rise2 * (b[:, 0] - a[:, 0]) - rise * (c[:, 0] - a[:, 0])) / area
        solid = np.abs(slope_x) + np.abs(slope_y) < 1e30
    count = (bottom - top) * solid
    tri = np.repeat(np.arange(len(face)), count)
    row = top[tri] + _steps(count)
    y = row + 0.5
    y_long = y - a[tri, 1]
    x_long = a[tri, 0] + y_long * long[tri]
    is_upper = y < b[tri, 1]
    start = np.where(is_upper[:, None], a[tri, :2], b[tri, :2])
    x_short = start[:, 0] + (y - start[:, 1]) * np.where(is_upper, upper[tri], lower[tri])
    left = np.clip(np.ceil(np.minimum(x_long, x_short) - 0.5), 0, width)
    right = np.clip(np.ceil(np.maximum(x_long, x_short) - 0.5), 0, width)
    filled = np.flatnonzero(right > left)
    tri, left, y_long = tri[filled], left[filled], y_long[filled]
    near = a[tri, 2] + slope_x[tri] * (left + 0.5 - a[tri, 0]) + slope_y[tri] * y_long
    return _Rows(
        row=row[filled],
        column=left.astype(np.int32),
        count=(right[filled] - left).astype(np.int32),
        nearness=near.astype(np.float32),
        slope=slope_x[tri].astype(np.float32),
        face=face[tri].astype(np.int32),
    )


def _samples(rows: _Rows, width: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Cut rows into samples, a bounded number at once: index in the flat grid, nearness, face."""
    first = rows.row.astype(np.int64) * width + rows.column
    cuts = np.cumsum(rows.count, dtype=np.int64) // _SAMPLES_AT_ONCE
    edges = [0, *(np.flatnonzero(np.diff(cuts)) + 1), len(cuts)]
    for start, stop in itertools.pairwise(edges):
        some = slice(start, stop)
        count = rows.count[some]
        step = _steps(count)
        near = np.repeat(rows.nearness[some], count) + np.repeat(rows.slope[some], count) * step.astype(
            np.float32
        )
        yield np.repeat(first[some], count) + step, near, np.repeat(rows.face[some], count)


def _run(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far an edge moves to the right per row."""
    return (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])


def _steps(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... n - 1 for each n of counts, one after the other, int32."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int32) - np.repeat((ends - counts).astype(np.int32), counts)
