"""Tiled prediction for small people: overlapping tiles of an image, and merging of their detections.

A network gets an image of any size at one resolution, in which distant people are a few pixels tall. A tile
has the camera of the image with another principal point, so that people in it keep their place in space. What
is left is to merge the detections of the same person.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ..geometry import HEAD_RADIUS, same_place
from ..humans import Humans

Tile = tuple[int, int, int, int]  # x0, y0, x1, y1 [pixels]

OVERLAP = 0.25  # least overlap of neighbouring tiles, as a share of their side: small people are whole in one
CUT = 0.1  # share of a person's visible joints that may lie outside of the tile
APART = (0.25, 0.5)  # as in `nms_3d`, but depths differ more between tiles than between cells
PREFERENCE = 0.1  # by which a score in the whole image must exceed that in a tile to be preferred
AGREED = 0.2  # |ratio - 1| of depths that count as the same


def tiles_of(height: int, width: int, count: int) -> list[Tile]:
    """Square tiles of an image, row by row, `count` of them along its longer side.

    A side of the image that is shorter than a tile is covered whole.
    """
    side = math.ceil(max(height, width) / (count - (count - 1) * OVERLAP))
    return [
        (x0, y0, min(x0 + side, width), min(y0 + side, height))
        for y0 in _starts(height, side)
        for x0 in _starts(width, side)
    ]


def _starts(length: int, side: int) -> list[int]:
    steps = max(0, math.ceil((length - side) / (side * (1 - OVERLAP)) - 1e-6))
    return [round(i * (length - side) / steps) for i in range(steps + 1)] if steps else [0]


def merge_tiles(whole: Humans, parts: Sequence[Humans], tiles: Sequence[Tile]) -> np.ndarray:
    """Merge the detections of the whole image and of its tiles: (N,) indices of those that are kept.

    Indices count the people of the whole image first, then those of the tiles. Of duplicates the best-scored
    is kept; tiles, which show people in more pixels, are preferred unless the score in the whole image is
    higher by more than `PREFERENCE`; people who are cut off by the edge of a tile are not taken from it. A
    limb that fills a tile can look like a small person: a detection is dropped if the whole image has the
    person at another depth, or if its head would be occluded by a person of the whole image.
    parts: in the pixels of their tiles; all have one camera.
    """
    height, width = whole.image_size
    ranks = [whole.scores - PREFERENCE]
    for humans, (x0, y0, x1, y1) in zip(parts, tiles, strict=True):
        x, y = (humans.joints_2d[..., i] + start for i, start in enumerate((x0, y0)))
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        cut = seen & ((x < x0) | (x >= x1) | (y < y0) | (y >= y1))
        ranks.append(np.where(cut.sum(1) > CUT * seen.sum(1), -np.inf, humans.scores))
    rank = np.concatenate(ranks)
    translation = np.concatenate([humans.translation for humans in (whole, *parts)])
    same = same_place(torch.from_numpy(translation), APART).numpy()
    known = same[:, : len(whole)]  # possible duplicates in the whole image
    agrees = abs(np.log(translation[:, 2:] / whole.translation[:, 2])) < math.log(1 + AGREED)
    doubted = (known & ~agrees).any(1) | behind(translation, whole)
    rank[doubted & ~(known & agrees).any(1)] = -np.inf
    same[:, : len(whole)] = known & agrees
    same[: len(whole)] = same[:, : len(whole)].T
    kept: list[int] = []
    for person in (-rank).argsort(kind="stable").tolist():
        if np.isfinite(rank[person]) and not same[person, kept].any():
            kept.append(person)
    return np.array(kept, dtype=np.intp)


def behind(heads: np.ndarray, humans: Humans) -> np.ndarray:
    """(N,) whether heads (N, 3) [m] would be occluded by one of these people, in the same camera."""
    focal = humans.K[[0, 1], [0, 1]]
    rays = heads[:, :2] / heads[:, 2:] * focal
    radius = HEAD_RADIUS / heads[:, 2] * focal.mean()  # vertices have gaps
    found = np.zeros(len(heads), dtype=bool)
    for vertices, at in zip(humans.vertices, humans.translation, strict=True):
        outline = vertices[vertices[:, 2] > 0]
        outline = outline[:, :2] / outline[:, 2:] * focal
        farther = np.flatnonzero(heads[:, 2] > (1 + APART[1]) * at[2])
        for person in farther if len(outline) else ():
            nearest = np.linalg.norm(outline - rays[person], axis=1).min()
            found[person] |= nearest < radius[person]
    return found
