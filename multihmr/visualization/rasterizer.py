"""Z-buffer rasterizer in plain numpy, by scan lines: the triangle and colour of each sample; no OpenGL.

All triangles of a mesh at once: each is cut into rows of samples, each row into samples. What a sample shows
is one integer, its key: nearness in the upper bits, below them what is to be remembered (a colour, or which
triangle it was). The greatest key wins, so that one maximum over all samples is the whole z-buffer. Nearness
and colour change linearly over a triangle, and so does the key that they are packed in: a sample's key is its
row's first plus so many steps. Integers make these sums exact, even where they overflow on the way.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_ROWS_AT_ONCE = 1 << 18  # larger costs cache misses, smaller call overhead
_SAMPLES_AT_ONCE = 1 << 17

# A key that remembers a colour: 24 bits of nearness, 13 of red, green, blue each, 5 of them fractions.
_COLOR_BITS, _NEAR_BITS = 13, 24
_SHIFTS = (2 * _COLOR_BITS, _COLOR_BITS, 0, 3 * _COLOR_BITS)
_BLUE = (1 << _COLOR_BITS) - 1
_GREEN, _RED = _BLUE << _COLOR_BITS, _BLUE << 2 * _COLOR_BITS
_LOW = (1 << 2 * _COLOR_BITS) - 1
# Every step may be half a unit off; how many of them fit before one number overflows into the next.
_MARGIN, _NEAR_MARGIN = 1024.0, 4096.0
_RANGE = (1 << _COLOR_BITS) - 1 - 2 * _MARGIN
# A key that remembers a triangle: 36 bits of nearness, 27 of its number.
_FACE_BITS, _FINE_BITS = 27, 36


@dataclass(frozen=True)
class Mesh:
    """A mesh on a picture: x, y, nearness (V,), colors (3, V) of 0 to 1 and faces (3, F).

    The centre of the first sample is (0.5, 0.5). nearness is affine on the plane; points where it is not
    finite cannot be drawn. Faces that run clockwise turn away from the viewer and are drawn only if
    `two_sided`.
    """

    x: np.ndarray
    y: np.ndarray
    nearness: np.ndarray
    colors: np.ndarray
    faces: np.ndarray
    two_sided: bool = False


def rasterize(
    xy: np.ndarray, nearness: np.ndarray, faces: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Face (H, W) int32, the triangle that each sample shows or -1 for none, and nearness (H, W) float32.

    xy (P, 2), where the centre of the first sample is (0.5, 0.5); nearness (P,) is affine on the plane and
    the greatest wins, -inf where there is nothing; faces (F, 3). Triangles whose nearness is not finite are
    left out. Both sides of a triangle count.
    """
    keys = np.zeros(size, np.int64)
    low, scale = _near_scale([nearness], _FINE_BITS)
    x, y = np.array(xy, np.float64).T
    fields = [((nearness - low) * scale, _FACE_BITS)]
    corners = np.ascontiguousarray(faces.T, np.intp)
    _scan(keys, _Job(x, y, fields, corners, np.arange(len(faces)), two_sided=True))
    there = keys > 0
    near = (keys >> _FACE_BITS) / scale + low
    face = np.where(there, keys & ((1 << _FACE_BITS) - 1), -1)
    return face.astype(np.int32), np.where(there, near, -np.inf).astype(np.float32)


def paint(meshes: Sequence[Mesh], size: tuple[int, int]) -> np.ndarray:
    """(H, W) int64 keys of what each sample shows, 0 where there is nothing; for `resolve`."""
    keys = np.zeros(size, np.int64)
    low, scale = _near_scale([mesh.nearness for mesh in meshes], _NEAR_BITS)
    for mesh in meshes:
        red, green, blue = mesh.colors * np.float32(_RANGE) + np.float32(_MARGIN)
        fields = list(zip((red, green, blue, (mesh.nearness - low) * scale), _SHIFTS, strict=True))
        _scan(keys, _Job(mesh.x, mesh.y, fields, mesh.faces, None, mesh.two_sided))
    return keys


def resolve(keys: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average `samples` x `samples` keys a pixel: which pixels show something, their colours, their cover.

    Pixels (n,) are numbered row by row; colours (n, 3) float32, 0 to 255, are of the surface alone, and the
    cover (n,) float32, 0 to 1, is how much of the pixel it fills. `samples` (1, 2 or 4) divides H and W.
    """
    height, width = keys.shape
    strip = samples * max(1, _SAMPLES_AT_ONCE // max(1, width * samples))
    parts = [_resolve(keys[top : top + strip], samples) for top in range(0, height, strip)]
    first = np.arange(len(parts)) * (strip // samples) * (width // samples)
    pixels = [part[0] + start for part, start in zip(parts, first, strict=True)]
    return (
        np.concatenate(pixels),
        np.concatenate([p[1] for p in parts]),
        np.concatenate([p[2] for p in parts]),
    )


def _resolve(keys: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`resolve` of some rows that fit into a cache."""
    width = keys.shape[1]
    places = itertools.product(range(samples), repeat=2)
    there = keys != 0
    some = np.logical_or.reduce(there.reshape(-1, samples, width), axis=1)
    pixels = np.flatnonzero(some.view(f"u{samples}"))  # 1, 2 or 4 columns in one number
    first = pixels * samples + pixels // (width // samples) * (width * (samples - 1))
    count = np.zeros(len(pixels), np.float32)
    wide, green = np.zeros_like(pixels), np.zeros_like(pixels)
    for down, across in places:
        key = keys.reshape(-1).take(first + (down * width + across))
        count += key != 0
        wide += key & (_RED | _BLUE)  # far enough from each other to be summed at once
        green += key & _GREEN
    sums = [part >> shift for part, shift in zip((wide, green, wide & _LOW), _SHIFTS, strict=False)]
    colors = np.stack(sums, -1).astype(np.float32)
    colors *= (255 / _RANGE / count)[:, None]
    colors -= np.float32(255 / _RANGE * _MARGIN)
    return pixels, np.clip(colors, 0, 255, out=colors), count / np.float32(samples**2)


@dataclass(frozen=True)
class _Job:
    """Points of a mesh, the (V,) numbers that go into their keys with their places in it, and faces (3, F).

    `numbers` (F,) is added to the key of each triangle as it is.
    """

    x: np.ndarray
    y: np.ndarray
    fields: list[tuple[np.ndarray, int]]
    faces: np.ndarray
    numbers: np.ndarray | None
    two_sided: bool


@dataclass(frozen=True)
class _Triangles:
    """T triangles that may be visible: corners x, y (3, T), their rows and their key.

    Rows top to bottom (exclusive); key at (top, left), and what a column and a row to it add.
    """

    x: np.ndarray
    y: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    key: np.ndarray
    per_column: np.ndarray
    per_row: np.ndarray


def _near_scale(nearness: Sequence[np.ndarray], bits: int) -> tuple[float, float]:
    """Offset and factor that map the finite values to the available bits."""
    finite = [values[np.isfinite(values)] for values in nearness]
    low = min((float(values.min()) for values in finite if len(values)), default=0.0)
    high = max((float(values.max()) for values in finite if len(values)), default=1.0)
    scale = ((1 << bits) - 2 * _NEAR_MARGIN) / max(high - low, 1e-6)
    return low - _NEAR_MARGIN / scale, scale


def _scan(keys: np.ndarray, job: _Job) -> None:
    """Put every triangle's keys into (H, W) `keys` where they are greater than what is there."""
    flat = keys.reshape(-1)
    for triangles in _triangles(job, *keys.shape):
        for pixel, key in _samples(triangles, keys.shape[1]):
            np.maximum.at(flat, pixel, key)


def _triangles(job: _Job, height: int, width: int) -> Iterator[_Triangles]:
    """Triangles that cover samples and face the viewer, in batches with a bounded number of rows."""
    x, y = (np.stack([values.take(corner) for corner in job.faces]) for values in (job.x, job.y))
    finite = np.isfinite(job.fields[-1][0])
    if not finite.all():
        x[:, ~finite[job.faces].all(0)] = np.nan
    with np.errstate(invalid="ignore"):
        turn = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
        left, right = (np.ceil(edge - 0.5) for edge in (x.min(0), x.max(0)))
        top, bottom = (np.ceil(edge - 0.5) for edge in (y.min(0), y.max(0)))
        visible = (turn != 0 if job.two_sided else turn < 0) & (bottom > top) & (right > left)
        visible &= (bottom > 0) & (top < height) & (right > 0) & (left < width)
    index = np.flatnonzero(visible)
    top, bottom = np.maximum(top[index], 0).astype(int), np.minimum(bottom[index], height).astype(int)
    left = np.maximum(left[index], 0).astype(int)
    cuts = np.flatnonzero(np.diff(np.cumsum(bottom - top) // _ROWS_AT_ONCE)) + 1
    for start, stop in itertools.pairwise([0, *cuts.tolist(), len(index)]):
        part = slice(start, stop)
        yield _with_keys(job, index[part], top[part], bottom[part], left[part])


def _with_keys(
    job: _Job, index: np.ndarray, top: np.ndarray, bottom: np.ndarray, left: np.ndarray
) -> _Triangles:
    """The triangles `index` with the plane that their keys lie on."""
    corners = [face.take(index) for face in job.faces]
    x, y = (np.stack([values.take(c) for c in corners]).astype(np.float64) for values in (job.x, job.y))
    bx, by, cx, cy = x[1] - x[0], y[1] - y[0], x[2] - x[0], y[2] - y[0]
    area = bx * cy - cx * by
    # Slivers have the colour and depth of one corner: their slopes would be noise, and may be too large.
    solid = np.abs(area) > 1e-6 * (bx * bx + by * by + cx * cx + cy * cy)
    inverse = np.divide(1, area, out=np.zeros_like(area), where=solid)
    px, py = left + 0.5 - x[0], top + 0.5 - y[0]
    weights = [
        ((px * cy - cx * py) * inverse, (bx * py - px * by) * inverse),
        (cy * inverse, -by * inverse),
        (-cx * inverse, bx * inverse),
    ]
    planes = [np.zeros(len(index), np.int64) for _ in weights]
    if job.numbers is not None:
        planes[0] += job.numbers[index]
    for values, shift in job.fields:
        a, b, c = (values.take(corner).astype(np.float64) for corner in corners)
        for plane, (to_b, to_c), base in zip(planes, weights, (a, 0.0, 0.0), strict=True):
            plane += np.rint(base + to_b * (b - a) + to_c * (c - a)).astype(np.int64) << shift
    return _Triangles(x, y, top, bottom, left, *planes)


def _samples(triangles: _Triangles, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index in the flat grid and key of every sample, a bounded number at once."""
    triangle, row, left, right = _rows(triangles, width)
    count = right - left
    slope = triangles.per_column.take(triangle)
    key = (
        triangles.key.take(triangle)
        + (left - triangles.left.take(triangle)) * slope
        + (row - triangles.top.take(triangle)) * triangles.per_row.take(triangle)
    )
    first = row * width + left
    cuts = np.flatnonzero(np.diff(np.cumsum(count) // _SAMPLES_AT_ONCE)) + 1
    for start, stop in itertools.pairwise([0, *cuts.tolist(), len(count)]):
        part = slice(start, stop)
        which, before = _expand(count[part])
        step = np.arange(len(which))
        rise = slope[part]
        yield (
            (first[part] - before).take(which) + step,
            (key[part] - before * rise).take(which) + step * rise.take(which),
        )


def _rows(triangles: _Triangles, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Triangle, row, first column and the one past the last of every row of samples that is not empty.

    A row lies between the long edge (first to last corner, downwards) and one of the short ones. Two
    triangles that share an edge compute the same floats for it: no gap and no overlap remains between them.
    """
    (ax, bx, cx), (ay, by, cy) = _downwards(triangles.x, triangles.y)
    with np.errstate(all="ignore"):  # horizontal edges are never used
        long, upper, lower = (cx - ax) / (cy - ay), (bx - ax) / (by - ay), (cx - bx) / (cy - by)
        # where each edge would be at row 0
        long_0, upper_0, lower_0 = ax + (0.5 - ay) * long, ax + (0.5 - ay) * upper, bx + (0.5 - by) * lower
    middle = np.ceil(by - 0.5)
    triangle, before = _expand(triangles.bottom - triangles.top)
    row = np.arange(len(triangle)) + (triangles.top - before).take(triangle)
    at_long = long_0.take(triangle) + row * long.take(triangle)
    half = 2 * triangle + (row < middle.take(triangle))
    short_0, short = (np.stack(pair, -1).reshape(-1) for pair in ((lower_0, upper_0), (lower, upper)))
    at_short = short_0.take(half) + row * short.take(half)
    left = np.ceil(np.maximum(np.minimum(at_long, at_short), 0) - 0.5).astype(int)
    right = np.ceil(np.minimum(np.maximum(at_long, at_short), width) - 0.5).astype(int)
    filled = np.flatnonzero(right > left)
    return triangle.take(filled), row.take(filled), left.take(filled), right.take(filled)


def _downwards(x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The corners (3, T) sorted from the highest to the lowest."""
    xs, ys = list(x), list(y)
    for i, j in ((0, 1), (1, 2), (0, 1)):
        swap = ys[i] > ys[j]
        xs[i], xs[j] = np.where(swap, xs[j], xs[i]), np.where(swap, xs[i], xs[j])
        ys[i], ys[j] = np.minimum(ys[i], ys[j]), np.maximum(ys[i], ys[j])
    return xs, ys


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """0 0 0 1 2 2 ... for counts 3, 1, 2, ..., all above 0; and how many come before each."""
    ends = np.cumsum(counts)
    marks = np.zeros(int(ends[-1]) if len(ends) else 0, np.int64)
    marks[ends[:-1]] = 1
    return np.cumsum(marks), ends - counts
