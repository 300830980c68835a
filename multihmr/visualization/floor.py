"""The floor as a grid of metres over a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ..humans import Humans
from ..world.ground import Ground

SPACING = 1.0  # [m] between lines
AROUND = 2.0  # [m] of floor that is drawn beyond the people
FARTHEST = 30.0  # [m] from the camera
_NEAR = 0.1  # [m]; what is nearer to the camera is not drawn
_WHITE, _DARK = (255, 255, 255, 190), (20, 20, 20, 110)


def draw_floor(picture: np.ndarray, humans: Humans, ground: Ground) -> np.ndarray:
    """The (H', W', 3) uint8 picture of the whole image with lines on the floor, a metre apart.

    Args:
        picture: of any size; the lines are scaled to it.
        humans: of that image; the lines lie around them.
        ground: whose vertical and floor are known.

    Raises:
        ValueError: the floor is unknown; the sentence says why.
    """
    ground.check_floor()
    image = Image.fromarray(picture).convert("RGBA")
    scale = np.array([image.width / humans.image_size[1], image.height / humans.image_size[0]])
    layer = Image.new("RGBA", image.size)
    pen = ImageDraw.Draw(layer)
    width = max(1, round(max(image.size) / 500))
    rotation, offset = ground.camera_to_level()
    for line in _grid(humans, rotation):
        points = (np.column_stack([line[:, 0], np.zeros(len(line)), line[:, 1]]) - offset) @ rotation
        points = points[points[:, 2] > _NEAR]
        if len(points) < 2:
            continue
        xy = [tuple(pixel) for pixel in (humans.project(points) * scale).tolist()]
        pen.line(xy, fill=_DARK, width=width + 2)
        pen.line(xy, fill=_WHITE, width=width)
    return np.array(Image.alpha_composite(image, layer).convert("RGB"))


def _grid(humans: Humans, rotation: np.ndarray) -> list[np.ndarray]:
    """Lines (P, 2) of x and z on the floor [m], each in small steps, for they are cut off at the camera."""
    at = np.zeros((1, 2))
    if len(humans):
        at = (humans.translation @ rotation.T)[:, [0, 2]]
        near = np.linalg.norm(at, axis=1) <= FARTHEST
        at = at[near] if near.any() else at[:1]
    low = np.floor((at.min(0) - AROUND) / SPACING) * SPACING
    high = np.ceil((at.max(0) + AROUND) / SPACING) * SPACING
    low[1] = min(low[1], 0.0)
    xs, zs = (np.arange(low[i], high[i] + SPACING / 2, SPACING) for i in (0, 1))
    steps = [np.linspace(low[i], high[i], 1 + int(20 * (high[i] - low[i]))) for i in (0, 1)]
    lines = [np.column_stack([np.full(len(steps[1]), x), steps[1]]) for x in xs]
    return lines + [np.column_stack([steps[0], np.full(len(steps[0]), z)]) for z in zs]
