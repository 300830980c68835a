"""Boxes, keypoints, labels and wireframes over a picture of people. PIL and numpy."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..bodies.topology import Topology
from ..humans import Humans

_DARK, _LIGHT = (20, 20, 20), (255, 255, 255)
_LABEL_SHARE = 1 / 32  # height of a label, of that of the picture
_LEAST_LABEL = 12  # [pixels]
_NEAR = 0.05  # [m]; edges nearer to the camera are not drawn
_BEHIND = 0.02  # [m] by which a vertex may lie behind what its pixel shows and still count as visible


Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


def annotate(
    picture: np.ndarray,
    humans: Humans,
    *,
    boxes: bool = False,
    keypoints: str | None = None,
    scores: bool = False,
    ids: bool = False,
) -> np.ndarray:
    """The (H', W', 3) uint8 picture of the whole image, with the requested annotations drawn over it.

    Args:
        picture: of any size; the people are scaled to it.
        boxes: the box of each person, in the person's colour.
        keypoints: name of a keypoint set to draw with its skeleton, such as "coco17".
        scores: the confidence, as a label over the person.
        ids: the number (or track id) of the person; in brackets where a video's person was interpolated.

    Raises:
        ValueError: the body has no such keypoint set.
    """
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    scale = np.array([image.width / humans.image_size[1], image.height / humans.image_size[0]])
    line = max(1, round(max(image.size) / 500))
    taken: list[Box] = []
    if keypoints is not None:
        _draw_skeletons(pen, humans, keypoints, scale, line)
    for i in range(len(humans)):
        color = tuple(humans.colors[i].tolist())
        if boxes:
            corners = (humans.boxes[i].reshape(2, 2) * scale).ravel().tolist()
            pen.rectangle(corners, outline=color, width=2 * line)
        if scores or ids:
            _draw_label(pen, image.size, _text(humans, i, scores, ids), humans, i, scale, taken)
    return np.asarray(image)


def draw_wireframe(picture: np.ndarray, humans: Humans, depth: np.ndarray) -> np.ndarray:
    """The picture of the whole image with the edges of the visible triangles, in each person's colour.

    depth (H, W) [m] of the image as given, of what each pixel shows; see `draw.depth_and_ids`.
    """
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    scale = np.array([image.width / humans.image_size[1], image.height / humans.image_size[0]])
    edges = _edges(humans.topology)
    for vertices, color in zip(humans.vertices, humans.colors, strict=True):
        visible = _visible(vertices, pixels := humans.project(vertices), depth)
        points = pixels * scale
        shown = edges[visible[edges].all(1)]
        fill = tuple(color.tolist())
        for start, end in zip(points[shown[:, 0]].tolist(), points[shown[:, 1]].tolist(), strict=True):
            pen.line((*start, *end), fill=fill)
    return np.asarray(image)


@lru_cache(maxsize=8)
def _edges(topology: Topology) -> np.ndarray:
    """(E, 2) vertices of each edge, once."""
    faces = topology.faces
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _visible(vertices: np.ndarray, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(V,) bool, whether a vertex projects into the image, is in front of the camera and not occluded."""
    height, width = depth.shape
    inside = (
        (pixels >= 0).all(1) & (pixels[:, 0] < width) & (pixels[:, 1] < height) & (vertices[:, 2] > _NEAR)
    )
    x, y = (np.clip(pixels[:, i], 0, limit - 1).astype(int) for i, limit in ((0, width), (1, height)))
    return inside & (vertices[:, 2] <= depth[y, x] + _BEHIND)


def _draw_skeletons(
    pen: ImageDraw.ImageDraw, humans: Humans, name: str, scale: np.ndarray, line: int
) -> None:
    points = humans.keypoints(name)
    for xy, xyz, color in zip(points.xy * scale, points.xyz, humans.colors, strict=True):
        in_front, fill = xyz[:, 2] > _NEAR, tuple(color.tolist())
        for a, b in points.edges:
            if in_front[a] and in_front[b]:
                for width, paint in ((line + 2, _DARK), (line, fill)):
                    pen.line([*xy[a].tolist(), *xy[b].tolist()], fill=paint, width=width)
        for x, y in xy[in_front].tolist():
            r = 1.5 * line
            pen.ellipse((x - r, y - r, x + r, y + r), fill=_LIGHT, outline=_DARK)


def _text(humans: Humans, i: int, scores: bool, ids: bool) -> str:
    parts = []
    if ids:
        number = int(humans.numbers[i])
        is_filled = humans.filled is not None and bool(humans.filled[i])
        parts.append(f"({number})" if is_filled else str(number))
    if scores:
        parts.append(f"{humans.scores[i]:.2f}")
    return "  ".join(parts)


def _draw_label(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    text: str,
    humans: Humans,
    i: int,
    scale: np.ndarray,
    taken: list[Box],
) -> None:
    """Draw a label over the head, within the picture and beside the labels in `taken`, to which it is added.

    It is outlined to be readable on any background.
    """
    height = max(_LEAST_LABEL, round(size[1] * _LABEL_SHARE))
    font = ImageFont.load_default(height)
    x0, top, x1, _ = (humans.boxes[i].reshape(2, 2) * scale).ravel().tolist()
    head = float(humans.project(humans.translation[i])[0] * scale[0])
    middle = min(max(head, x0), x1)
    half = pen.textlength(text, font) / 2 + 2
    x = min(max(middle, half), max(half, size[0] - half))
    y = _free_place(x, max(top - 2, 1.2 * height), half, height, size[1], taken)
    taken.append((x - half, y - height, x + half, y))
    color = tuple(humans.colors[i].tolist())
    pen.text((x, y), text, color, font, "mb", stroke_width=max(2, height // 8), stroke_fill=_DARK)


def _free_place(x: float, y: float, half: float, height: int, limit: int, taken: list[Box]) -> float:
    """The y nearest to `y` at which a label of that size overlaps no other; `y` if there is none."""
    steps = [sign * step * height for step in range(limit // height + 1) for sign in (-1, 1)]
    for place in (y + step for step in steps):
        box = (x - half, place - height, x + half, place)
        if height <= place <= limit and not any(_overlap(box, other) for other in taken):
            return place
    return y


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
