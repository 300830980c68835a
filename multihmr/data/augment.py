"""Random augmentation: crops, focal lengths, rotations, mirroring, occlusion and colour (see transforms.py).

No head is cropped or occluded, so that all visible people keep their label.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from ..bodies.topology import Topology
from ..preprocessing.letterbox import Letterbox
from .camera_effects import apply_camera_effects
from .sample import Sample
from .transforms import flip, heads_of, occlude, on_pelvis, warp

HEAD_RADIUS = 0.15  # [m] around the head joint that no patch occludes


@dataclass(frozen=True)
class Augmentation:
    """Probabilities and ranges of the augmentation.

    Focal jitter, rotation, occlusion and person crops are off by default: `scale` varies the focal length
    anyway, and rendered scenes have tilted cameras and people who occlude each other. For photographs of few
    cameras 0.3 of the first three is a good start.
    """

    crop: float = 0.6  # a crop instead of the whole picture
    scale: tuple[float, float] = (0.45, 1.35)  # side of the crop, in longer sides of the picture
    focal_jitter_prob: float = 0.0  # another focal length: a crop around the principal point
    focal: tuple[float, float] = (0.7, 1.8)  # factor on the focal length
    person_crop_prob: float = 0.0  # a crop to one person, which shows detail in few pixels
    room: tuple[float, float] = (0.6, 3.6)  # side of that crop at the person's distance [m]
    rotation_prob: float = 0.0  # rotation of the camera about its axis
    roll_deg: float = 20.0  # largest angle, in both directions
    full_rotation_prob: float = 0.0  # rotation by any angle: lying people, handstands, sideways phones
    flip: float = 0.5
    colour: float = 0.8
    grey: float = 0.08
    blur: float = 0.15
    noise: float = 0.3
    occlusion_prob: float = 0.0  # one to three patches that occlude parts of people
    patch: tuple[float, float] = (0.08, 0.3)  # sides of a patch, in sides of the picture
    camera_effects_prob: float = 0.0  # tone curves, sharpening, blur, vignetting, JPEG


def augment(
    sample: Sample,
    size: int | tuple[int, int],
    rng: np.random.Generator,
    topology: Topology,
    how: Augmentation | None = None,
) -> Sample:
    """A random variation of a sample.

    Args:
        sample: any.
        size: of the result [pixels], the side of a square or (height, width).
        rng: source of randomness.
        topology: of the body that is trained.
        how: None for the defaults.

    Raises:
        ValueError: as `warp` and `flip`.
    """
    how = how or Augmentation()
    sample = on_pelvis(sample, topology)
    angle = draw_angle(rng, how)
    heads = heads_of(sample, angle)
    shape = (size, size) if isinstance(size, int) else size
    window = _choose_window(sample, heads, max(shape), rng, how)
    if shape[0] != shape[1]:
        window = _cut_window(window, sample, heads, shape, rng)
    moved = warp(sample, window, angle)
    return finish(moved, rng, topology, how)


def finish(sample: Sample, rng: np.random.Generator, topology: Topology, how: Augmentation) -> Sample:
    """Augmentation after cropping: mirroring, occlusion, colour."""
    if rng.random() < how.flip:
        sample = flip(sample, topology)
    if _happens(how.occlusion_prob, rng):
        for _ in range(rng.integers(1, 4)):
            sample = _occlude_randomly(sample, rng, how)
    image = _change_light(sample.image, rng, how)
    if _happens(how.camera_effects_prob, rng):
        image = apply_camera_effects(image, rng)
    return dataclasses.replace(sample, image=image)


def draw_angle(rng: np.random.Generator, how: Augmentation) -> float:
    """Random rotation of the camera about its axis [rad]."""
    if _happens(how.full_rotation_prob, rng):
        return rng.uniform(-math.pi, math.pi)
    return math.radians(rng.uniform(-how.roll_deg, how.roll_deg)) if _happens(how.rotation_prob, rng) else 0.0


def _happens(probability: float, rng: np.random.Generator) -> bool:
    """Draw a random event; probability 0 consumes no random number, so that other draws stay the same."""
    return probability > 0 and rng.random() < probability


def _choose_window(
    sample: Sample, heads: np.ndarray, size: int, rng: np.random.Generator, how: Augmentation
) -> Letterbox:
    """The whole picture, or a random square with all heads that may extend beyond it."""
    height, width = sample.image.shape[:2]
    inside: np.ndarray = np.all((heads >= 0) & (heads <= (width, height)), axis=-1)
    if _happens(how.person_crop_prob, rng):
        letterbox = _person_window(sample, heads, inside, size, rng, how)
        if letterbox is not None:
            return letterbox
    heads = heads[inside]
    if _happens(how.focal_jitter_prob, rng):
        return _zoom_window(sample, heads, size, rng, how)
    if rng.random() >= how.crop:
        return Letterbox.whole(height, width, size)
    longer = max(height, width)
    side = longer * np.exp(rng.uniform(*np.log(how.scale)))
    low, high = np.zeros(2), np.array([width, height], dtype=float)
    if len(heads):
        low, high = heads.min(0), heads.max(0)
        side = max(side, 1.1 * (high - low).max() + 0.04 * longer)
        margin = 0.02 * longer
        start = rng.uniform(high + margin - side, np.maximum(low - margin, high + margin - side + 1e-3))
    else:
        start = rng.uniform(np.minimum(low, high - side), np.maximum(low, high - side) + 1e-3)
    # Crops far beyond the picture show little but padding.
    start = np.clip(start, -0.25 * side, high.max() + 0.25 * side)
    return Letterbox.box(start[0], start[1], start[0] + side, start[1] + side, size)


def _cut_window(
    window: Letterbox,
    sample: Sample,
    heads: np.ndarray,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> Letterbox:
    """A rectangle (height, width) out of a square window, at a random place.

    Where it can, it keeps all heads, and as much of the picture as possible.
    """
    start = [0, 0]  # column, row
    length = np.array([shape[1], shape[0]])
    seen = window.points(heads)
    seen = seen[((seen >= 0) & (seen < window.size)).all(-1)]
    corners = window.points(np.array([[0.0, 0.0], sample.image.shape[1::-1]]))
    for axis in np.flatnonzero(length < window.size):
        room = window.size - length[axis]
        picture = corners[:, axis].clip(0, window.size)
        low, high = sorted((picture[1] - length[axis], picture[0]))
        if len(seen):
            margin = 0.05 * length[axis]
            first, last = seen[:, axis].max() + margin - length[axis], seen[:, axis].min() - margin
            if max(first, low) <= min(last, high):
                low, high = max(first, low), min(last, high)
        start[axis] = round(float(np.clip(rng.uniform(low, max(high, low + 1e-3)), 0, room)))
    return window.cut(start[0], start[1], shape)


LEAST_SIDE = 48  # [pixels] of a crop to one person: fewer show too little to learn from


def _person_window(
    sample: Sample,
    heads: np.ndarray,
    inside: np.ndarray,
    size: int,
    rng: np.random.Generator,
    how: Augmentation,
) -> Letterbox | None:
    """A square with the head of one of the people `inside`, usually with the body below; None if all are too
    far away."""
    with np.errstate(invalid="ignore", divide="ignore"):
        pixels_a_metre = np.where(inside, sample.K[0, 0] / sample.translation[:, 2], 0)
    near = np.flatnonzero(pixels_a_metre * how.room[1] >= LEAST_SIDE)
    if not len(near):
        return None
    one = rng.choice(near)
    extent = np.array(sample.image.shape[1::-1])
    side = pixels_a_metre[one] * np.exp(rng.uniform(*np.log(how.room)))
    side = float(np.clip(side, LEAST_SIDE, extent.max()))
    start = heads[one] - side * np.array([rng.uniform(0.2, 0.8), rng.uniform(0.08, 0.4)])
    x0, y0 = np.clip(start, -0.25 * side, np.maximum(extent - 0.75 * side, 0))
    return Letterbox.box(x0, y0, x0 + side, y0 + side, size)


def _zoom_window(
    sample: Sample, heads: np.ndarray, size: int, rng: np.random.Generator, how: Augmentation
) -> Letterbox:
    """Crop of another focal length: a square around the principal point with all heads."""
    height, width = sample.image.shape[:2]
    middle = sample.K[:2, 2] if np.isfinite(sample.K).all() else np.array([width / 2, height / 2])
    reach = max(height, width) / 2 / np.exp(rng.uniform(*np.log(how.focal)))
    if len(heads):
        reach = max(reach, 1.05 * np.abs(heads - middle).max())
    (x0, y0), (x1, y1) = middle - reach, middle + reach
    return Letterbox.box(x0, y0, x1, y1, size)


def _occlude_randomly(sample: Sample, rng: np.random.Generator, how: Augmentation) -> Sample:
    """Occlude with a patch of another part of the picture, or of blurred colours, unless it covers a head."""
    rows, cols = sample.image.shape[:2]
    height, width = (rng.uniform(*how.patch, 2) * min(rows, cols)).astype(int) + 1
    (x0, from_x), (y0, from_y) = rng.integers(0, cols - width, 2), rng.integers(0, rows - height, 2)
    radius = np.nan_to_num(HEAD_RADIUS * sample.K[0, 0] / np.maximum(sample.translation[:, 2:], 1e-3), nan=8)
    heads = heads_of(sample)
    if ((heads > (x0, y0) - radius) & (heads < (x0 + width, y0 + height) + radius)).all(-1).any():
        return sample
    if rng.random() < 0.5:
        patch = sample.image[from_y : from_y + height, from_x : from_x + width]
    else:
        colours = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        patch = np.array(Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC))
    return occlude(sample, patch, int(x0), int(y0))


def _change_light(image: np.ndarray, rng: np.random.Generator, how: Augmentation) -> np.ndarray:
    """Random gamma and gain of each channel, contrast, brightness, saturation, grey, noise, blur."""
    changed = image
    table = np.arange(256, dtype=np.float32)[:, None].repeat(3, axis=1) / 255
    mix = np.eye(3, dtype=np.float32)
    shift = 0.0
    if rng.random() < how.colour:
        table = table ** np.float32(np.exp(rng.normal(0, 0.25)))
        table = table * np.exp(rng.normal(0, [0.07, 0.04, 0.07])).astype(np.float32)
        mean = np.mean([_histogram(image[..., c]) @ table[:, c] for c in range(3)])
        contrast, brightness, saturation = np.exp(rng.normal(0, [0.2, 0.2, 0.25]))
        shift = mean * (brightness - contrast)
        mix = (contrast * (saturation * np.eye(3) + (1 - saturation) / 3)).astype(np.float32)
    if rng.random() < how.grey:
        mix = np.repeat(mix.mean(1, keepdims=True), 3, axis=1)
    noise = rng.uniform(0.005, 0.04) if rng.random() < how.noise else 0.0
    if noise or shift or (mix != np.eye(3)).any():
        channels = [table[:, c][image[..., c]] for c in range(3)]
        x = np.stack(channels, axis=-1).reshape(-1, 3) @ (255 * mix)
        x += np.float32(255 * shift)
        if noise:
            x += np.float32(255 * noise) * rng.standard_normal(x.shape, np.float32)
        changed = x.clip(0, 255, out=x).astype(np.uint8).reshape(image.shape)
    if rng.random() < how.blur:
        blurred = Image.fromarray(changed).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
        changed = np.asarray(blurred)
    return changed


def _histogram(plane: np.ndarray) -> np.ndarray:
    return np.bincount(plane.ravel(), minlength=256) / plane.size
