"""Textures: decoded pictures with mip levels in one flat buffer, and procedural tiles and backdrops."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Not EPS, for which Pillow starts Ghostscript, whatever the name of the file.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "TGA", "BMP", "GIF")
MAX_FILE_PIXELS = 64_000_000  # a texture file with more is refused: a mistake or a decompression bomb


@dataclass(frozen=True)
class Texture:
    """A square texture in the buffer: first byte, side in pixels, 1 / mean linear brightness."""

    offset: int
    size: int
    gain: float


class TextureBuffer:
    """All textures of a renderer as one flat uint8 array, RGBA, each followed by its mip levels."""

    def __init__(self) -> None:
        self.bytes = np.zeros(1 << 24, np.uint8)
        self.used = 0
        self._known: dict[str, Texture] = {}

    def named(self, name: str, make: Callable[[], np.ndarray]) -> Texture:
        """The texture `name`; `make`, called once, returns (S, S, 3 or 4) uint8 with S a power of two."""
        if name not in self._known:
            self._known[name] = self._add(make())
        return self._known[name]

    def _add(self, picture: np.ndarray) -> Texture:
        if picture.shape[2] == 3:
            picture = np.concatenate([picture, np.full_like(picture[..., :1], 255)], axis=2)
        levels = mip_levels(picture)
        length = sum(level.size for level in levels)
        while self.used + length > len(self.bytes):
            self.bytes = np.concatenate([self.bytes, np.zeros_like(self.bytes)])
        offset = self.used
        for level in levels:
            self.bytes[self.used : self.used + level.size] = level.reshape(-1)
            self.used += level.size
        shown = picture[picture[..., 3] > 90][:, :3]
        bright = ((shown / 255.0) ** 2.2 @ np.array([0.25, 0.6, 0.15])).mean() if len(shown) else 1.0
        return Texture(offset, picture.shape[0], float(1 / max(bright, 0.02)))


def mip_levels(picture: np.ndarray) -> list[np.ndarray]:
    """Bytes of an (S, S, 4) uint8 picture and its halvings down to one pixel."""
    levels = [picture]
    while levels[-1].shape[0] > 1:
        a = levels[-1].astype(np.uint16)
        levels.append(((a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2] + 2) // 4).astype(np.uint8))
    return levels


def check_picture(path: Path) -> None:
    """Check the header of a picture file, and of a PNG the checksums, without decoding it.

    Raises:
        ValueError: it is no picture, or a decompression bomb.
    """
    with _opened(path) as picture:
        picture.verify()


def read_texture(path: Path, size: int) -> np.ndarray:
    """A picture file as (size, size, 4) uint8.

    Raises:
        ValueError: it cannot be read as a picture.
    """
    with _opened(path) as picture:
        return np.asarray(picture.convert("RGBA").resize((size, size), Image.Resampling.LANCZOS))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        # too many pixels are refused here, so that Pillow need not warn of them
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=FORMATS)
        with picture:
            if picture.width * picture.height > MAX_FILE_PIXELS:
                raise ValueError(f"it has {picture.width}x{picture.height} pixels, too many for a texture")
            yield picture
    except MemoryError:
        raise
    except Exception as error:  # a decoder may raise anything on a broken file
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def to_linear(rgb: np.ndarray) -> np.ndarray:
    """sRGB colours in [0, 1] -> linear light."""
    return np.asarray(rgb, np.float32) ** 2.2


def hsv_to_rgb(h: float, s: float, v: float) -> np.ndarray:
    """Hue in turns, saturation, value -> (3,) sRGB in [0, 1]."""
    k = (np.array([5.0, 3.0, 1.0]) + 6 * h) % 6
    return (v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1)).astype(np.float32)


def random_color(rng: np.random.Generator) -> np.ndarray:
    """(3,) sRGB: greys and muted tones more often than saturated ones."""
    kind = rng.random()
    if kind < 0.3:
        return hsv_to_rgb(rng.random(), rng.uniform(0, 0.12), rng.uniform(0.06, 0.97))
    if kind < 0.75:
        return hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.5), rng.uniform(0.15, 0.9))
    return hsv_to_rgb(rng.random(), rng.uniform(0.5, 0.95), rng.uniform(0.25, 0.95))


def surface_color(rng: np.random.Generator) -> np.ndarray:
    """(3,) sRGB of walls, floors and landscapes: mostly muted; one in five any colour."""
    if rng.random() < 0.2:
        return random_color(rng)
    hue = rng.choice([rng.normal(0.08, 0.04), rng.normal(0.28, 0.06), rng.normal(0.58, 0.05), rng.random()])
    return hsv_to_rgb(float(hue) % 1, float(rng.beta(1.3, 4)), float(rng.beta(2, 1.6)))


def noise(rng: np.random.Generator, size: int, roughness: float = 1.5) -> np.ndarray:
    """(size, size) periodic cloud noise, about in [0, 1]; a larger `roughness` is smoother."""
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    f[0, 0] = 1
    spectrum = (rng.normal(size=f.shape) + 1j * rng.normal(size=f.shape)) * f**-roughness
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (size, size))
    return np.clip(0.5 + field / (field.std() * 4 + 1e-9), 0, 1).astype(np.float32)


def _blend(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return a * (1 - mask[..., None]) + b * mask[..., None]


def _bricks(rng: np.random.Generator, size: int) -> np.ndarray:
    rows = int(rng.choice([4, 6, 8, 12, 16]))
    columns = max(1, int(rows * rng.choice([0.25, 0.5, 1.0])))
    y, x = np.mgrid[0:size, 0:size] / size
    shift = rng.choice([0.0, 0.5]) * (np.floor(y * rows) % 2)
    u, v = (x * columns + shift) % 1, (y * rows) % 1
    joint = rng.uniform(0.02, 0.12)
    gap = (v < joint) | (u < joint * columns / rows)
    tones = rng.uniform(0.7, 1.15, (rows, columns))
    which = tones[(y * rows).astype(int) % rows, np.floor(x * columns + shift).astype(int) % columns]
    return _blend(
        surface_color(rng) * which[..., None], surface_color(rng) * np.ones((1, 1, 3)), gap.astype(float)
    )


def _clouds(rng: np.random.Generator, size: int) -> np.ndarray:
    mask = noise(rng, size, rng.uniform(0.6, 2.2))
    if rng.random() < 0.4:
        mask = np.clip((mask - 0.5) * rng.uniform(2, 12) + 0.5, 0, 1)
    return _blend(surface_color(rng) * np.ones((1, 1, 3)), surface_color(rng) * np.ones((1, 1, 3)), mask)


def _planks(rng: np.random.Generator, size: int) -> np.ndarray:
    count = int(rng.choice([4, 8, 12, 20]))
    x = np.mgrid[0:size, 0:size][1] / size
    grain = noise(rng, size, 1.2)[:: max(1, int(rng.choice([4, 8]))), :]
    grain = np.repeat(grain, -(-size // grain.shape[0]), axis=0)[:size]
    tone = rng.uniform(0.75, 1.1, count)[(x * count).astype(int) % count] * (0.75 + 0.5 * grain)
    gap = ((x * count) % 1 < 0.05).astype(float)
    picture = _blend(
        surface_color(rng) * tone[..., None], np.full((1, 1, 3), 0.05), gap * rng.uniform(0.3, 1)
    )
    return picture if rng.random() < 0.5 else picture.transpose(1, 0, 2)


def _waves(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size] / size
    bent = x * rng.integers(0, 9) + y * rng.integers(1, 9) + noise(rng, size, 2) * rng.uniform(0, 4)
    mask = 0.5 + 0.5 * np.sin(2 * np.pi * bent)
    return _blend(surface_color(rng) * np.ones((1, 1, 3)), surface_color(rng) * np.ones((1, 1, 3)), mask)


def _shapes(rng: np.random.Generator, size: int) -> np.ndarray:
    picture = Image.new("RGB", (size, size), _ink(rng))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(8, 90))):
        center, extent = rng.uniform(0, size, 2), size * rng.uniform(0.02, 0.3)
        kind = rng.random()
        if kind < 0.4:
            points = center + rng.normal(size=(int(rng.integers(3, 7)), 2)) * extent
            draw.polygon([tuple(p) for p in points], fill=_ink(rng))
        elif kind < 0.75:
            half = extent * rng.uniform(0.2, 1.2, 2)
            draw.rectangle([*(center - half), *(center + half)], fill=_ink(rng))
        else:
            draw.ellipse([*(center - extent / 2), *(center + extent / 2)], fill=_ink(rng))
    return np.asarray(picture) / 255.0


def _ink(rng: np.random.Generator) -> tuple[int, int, int]:
    r, g, b = (surface_color(rng) * 255).astype(int)
    return int(r), int(g), int(b)


def _photographed(rng: np.random.Generator, size: int) -> np.ndarray:
    """A coloured brick, grass or gravel photograph (CC0) of scikit-image.

    Raises:
        ImportError: scikit-image is not installed; a substitute would give other data from the same seed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError(
            "rendering synthetic scenes needs scikit-image: pip install 'multihmr[synthetic]'"
        ) from error
    grey = getattr(data, str(rng.choice(["brick", "grass", "gravel"])))()
    picture = np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.LANCZOS)) / 255.0
    return (np.clip(picture[..., None] * 1.6 * surface_color(rng), 0, 1) * 255).astype(np.uint8)


def procedural_tile(rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """(size, size, 3) uint8 texture: bricks, planks, clouds, waves or shapes, with noise."""
    if rng.random() < 0.06:
        return _photographed(rng, size)
    makers = (_bricks, _clouds, _planks, _waves, _shapes)
    picture = makers[int(rng.choice(len(makers), p=[0.22, 0.34, 0.18, 0.1, 0.16]))](rng, size)
    picture = picture * (1 + rng.uniform(0, 0.5) * (noise(rng, size, rng.uniform(0.2, 1.5))[..., None] - 0.5))
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _landscape(rng: np.random.Generator, size: int) -> np.ndarray:
    """Sky, then three to six ridges or roofs in front of each other, each with its own texture."""
    y = np.linspace(0, 1, size)[:, None, None]
    picture = hsv_to_rgb(0.58, rng.uniform(0, 0.5), rng.uniform(0.6, 1)) * (1 - y) + np.ones(
        3
    ) * y * rng.uniform(0.6, 1)
    picture = picture + np.zeros((1, size, 1))
    level = rng.uniform(0.1, 0.5)
    for _ in range(int(rng.integers(3, 7))):
        if rng.random() < 0.5:
            ridge = level + 0.3 * (noise(rng, size, rng.uniform(1, 2.2))[0] - 0.5)
        else:
            steps = np.repeat(rng.uniform(-0.15, 0.15, 12), -(-size // 12))[:size]
            ridge = level + np.roll(steps, int(rng.integers(size)))
        layer = (
            procedural_tile(rng, size) / 255.0
            if rng.random() < 0.4
            else surface_color(rng) * np.ones((size, size, 3))
        )
        layer = layer * (0.7 + 0.6 * noise(rng, size, rng.uniform(0.7, 1.6))[..., None])
        picture = _blend(picture, layer, (y[..., 0] > ridge[None]).astype(float))
        level += rng.uniform(0.05, 0.25)
    return picture


def procedural_backdrop(rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """(size, size, 3) uint8 background: layers and shapes, blurred as if far away."""
    y = np.linspace(0, 1, size)[:, None, None]
    picture = surface_color(rng) * (1 - y) + surface_color(rng) * y + np.zeros((1, size, 1))
    if rng.random() < 0.45:
        picture = _landscape(rng, size)
    for _ in range(int(rng.integers(0, 3))):
        mask = np.clip(
            (noise(rng, size, rng.uniform(1, 2.2)) - rng.uniform(0.3, 0.7)) * rng.uniform(2, 30), 0, 1
        )
        layer = (
            procedural_tile(rng, size) / 255.0
            if rng.random() < 0.4
            else surface_color(rng) * np.ones((1, 1, 3))
        )
        picture = _blend(picture, layer, mask)
    image: Image.Image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.4:
        shapes = Image.fromarray((_shapes(rng, size) * 255).astype(np.uint8))
        where = Image.fromarray(((noise(rng, size, 2) > rng.uniform(0.35, 0.7)) * 255).astype(np.uint8))
        image = Image.composite(shapes, image, where)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(float(rng.choice([0, 0.5, 1, 2, 4, 8])))))


def jpeg(image: np.ndarray, quality: int) -> bytes:
    """(H, W, 3) uint8 -> the bytes of a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality, subsampling=0 if quality > 88 else 2)
    return stream.getvalue()
