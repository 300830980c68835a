"""Images in: read any picture; `Window`, how its pixels and its camera move into a network's frame.

Pixels are (x, y), the centre of the top-left pixel is (0.5, 0.5); sizes are (height, width). Pictures are
uint8 RGB. A window gives RGB in [0, 1], not normalised: mean and standard deviation belong to the network.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MAX_MEGAPIXELS = 178  # Pillow's own limit; asked before a pixel is allocated
PADDING = 128  # grey around the image in a window, in all three channels
PERSON_ROOM = 1.25  # side of a window on one person, in longer sides of their box
SMALLEST_CROP = 8.0  # [pixels of the image]: of less nothing is seen

# What may come as a file. Not EPS and its kind: Pillow opens those by starting Ghostscript.
_FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO",
    "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769
_FOCAL_MM, _FOCAL_35MM = 0x920A, 0xA405
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_PLANE_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_FILM_DIAGONAL_MM = math.hypot(36, 24)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Array = TypeVar("Array", np.ndarray, Tensor)


@dataclass(frozen=True, eq=False)
class Photo:
    """pixels (H, W, 3) uint8 RGB, upright; focal in pixels where EXIF tells it; name: the file's, or ""."""

    pixels: np.ndarray
    focal: float | None = None
    name: str = ""


def read_image(image: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright, from whatever `read_photo` takes."""
    return read_photo(image).pixels


def read_photo(image: Any) -> Photo:
    """Read a picture that comes as any of

    - a path (str or Path), bytes, a binary file object, or a PIL image: turned upright as EXIF says, the
      first picture of an animation, transparency over white, 16-bit grey scaled to 8 bits;
    - a numpy array (H, W, 3) uint8, RGB;
    - a torch tensor (3, H, W), RGB, uint8 or float in [0, 1], on any device;
    - a Photo, given back as it is.

    The same picture gives the same pixels in every form. The focal length is known only where EXIF came
    along: path, bytes, file and PIL image. ValueError, FileNotFoundError and IsADirectoryError say in one
    sentence why it cannot be read; ImportError: HEIC without pillow-heif.
    """
    if isinstance(image, Photo):
        return image
    if isinstance(image, (str, os.PathLike)):
        return _read_path(Path(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _read_file(io.BytesIO(image), "the image")
    if isinstance(image, Image.Image):
        return _decode(image, image, Path(_filename(image)).name)
    if isinstance(image, np.ndarray):
        return Photo(_check_array(image))
    if isinstance(image, Tensor):
        return Photo(_tensor_to_array(image))
    if hasattr(image, "read"):
        data = image.read()
        if not isinstance(data, bytes):
            raise ValueError("image is a file opened as text; open it with mode 'rb'")
        return _read_file(io.BytesIO(data), _filename(image) or "the image")
    hint = "; for several images use predict_batch" if isinstance(image, (list, tuple)) else ""
    raise ValueError(
        "image must be a path, bytes, a PIL image, a (H, W, 3) uint8 array or a (3, H, W) tensor, "
        f"got {type(image).__name__}{hint}"
    )


def exif_focal(exif: Mapping[int, Any], height: int, width: int) -> float | None:
    """Focal length in pixels of a `height` x `width` image by the tags of its Exif IFD, or None.

    FocalLengthIn35mmFilm counts against the diagonal of the film, 43.27 mm, as CIPA DCG-001 defines it;
    else FocalLength with FocalPlaneXResolution. Sizes are compared as (longer, shorter), so a turn does not
    matter. A file that was resized since the shot is followed; one that was cropped (its sides have another
    ratio than those that EXIF names) tells nothing any more.
    """
    longer, shorter = max(height, width), min(height, width)
    shot = sorted([_number(exif, _PIXEL_WIDTH), _number(exif, _PIXEL_HEIGHT)])
    known_size = shot[0] > 0
    if known_size and abs(shot[1] * shorter - shot[0] * longer) > 0.02 * shot[1] * shorter + shot[1]:
        return None
    film, lens = _number(exif, _FOCAL_35MM), _number(exif, _FOCAL_MM)
    resolution = _number(exif, _PLANE_RESOLUTION)
    if film > 0:
        focal = film / _FILM_DIAGONAL_MM * math.hypot(height, width)
    elif lens > 0 and resolution > 0:
        unit_mm = _UNIT_MM.get(int(_number(exif, _PLANE_UNIT) or 2), 25.4)
        focal = lens * resolution / unit_mm * (longer / shot[1] if known_size else 1.0)
    else:
        return None
    # 136 to 1 degrees over the longer side: beyond that the tag is wrong, not the lens
    return focal if 0.2 * longer < focal < 50 * longer else None


@dataclass(frozen=True)
class Window:
    """A square view of `size` pixels onto an image: scale * image + shift, then mirrored if `flip`.

    Pixels move, metres do not: with `intrinsics(K)` a 3D point falls where `points` moves its pixel. In a
    mirrored window that holds for the mirrored world, in which every x has the other sign. `scale` is (x, y);
    the two differ by less than a window pixel over the image, and only in `released` windows.
    """

    scale: tuple[float, float]
    shift: tuple[float, float]
    size: int
    flip: bool = False
    padding: int = PADDING
    reducing_gap: float | None = 3.0  # large pictures are first shrunk by whole pixels: quicker, as good

    @classmethod
    def whole(cls, height: int, width: int, size: int) -> Window:
        """The whole image, undistorted, in the middle of the window."""
        return cls.box(0, 0, width, height, size)

    @classmethod
    def released(cls, height: int, width: int, size: int) -> Window:
        """The whole image as the checkpoints of 2024 were trained: whole pixels of content, black around."""
        longer = max(height, width)
        content = [round(side / longer * size) for side in (width, height)]  # half to even, as theirs
        margins = [round((size - side) * 0.5) for side in content]
        scale = (max(content[0], 1) / width, max(content[1], 1) / height)
        return cls(scale, (margins[0], margins[1]), size, padding=0, reducing_gap=None)

    @classmethod
    def box(cls, x0: float, y0: float, x1: float, y1: float, size: int, *, flip: bool = False) -> Window:
        """The box from (x0, y0) to (x1, y1) [image pixels], undistorted, centred; it may leave the image."""
        side = max(x1 - x0, y1 - y0)
        if not (x1 > x0 and y1 > y0 and math.isfinite(side)) or size < 1:
            raise ValueError(
                f"a window needs x1 > x0, y1 > y0, size >= 1; got {(x0, y0, x1, y1)}, size {size}"
            )
        scale = size / side
        shift = (size / 2 - scale * (x0 + x1) / 2, size / 2 - scale * (y0 + y1) / 2)
        return cls((scale, scale), shift, size, flip)

    @classmethod
    def person(cls, x0: float, y0: float, x1: float, y1: float, size: int) -> Window:
        """A person's box with room around it, as networks for one person look at it: 1.25 times its longer
        side, at least `SMALLEST_CROP` pixels of the image."""
        half = max(PERSON_ROOM * max(x1 - x0, y1 - y0), SMALLEST_CROP) / 2
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        return cls.box(x - half, y - half, x + half, y + half, size)

    def pixels(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, size, size) float32 in [0, 1]: `picture` as networks take it."""
        return torch.from_numpy(self.picture(image)).permute(2, 0, 1).float().div(255).contiguous()

    def picture(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (size, size, 3) uint8, `padding` where the image does not reach.

        Bicubic, with the filter widened when shrinking, so that a picture of twice the size looks the same.
        """
        canvas = np.full((self.size, self.size, 3), self.padding, np.uint8)
        height, width = image.shape[:2]
        (left, right, x0, x1) = self.span(width, 0)
        (top, bottom, y0, y1) = self.span(height, 1)
        if right > left and bottom > top:
            resized = Image.fromarray(np.ascontiguousarray(image)).resize(
                (right - left, bottom - top),
                Image.Resampling.BICUBIC,
                (x0, y0, x1, y1),
                reducing_gap=self.reducing_gap,
            )
            canvas[top:bottom, left:right] = np.asarray(resized)
        return np.ascontiguousarray(canvas[:, ::-1]) if self.flip else canvas

    def span(self, length: int, axis: int) -> tuple[int, int, float, float]:
        """Along one side: the window pixels that the image fills, and the image pixels that they show."""
        scale, shift = self.scale[axis], self.shift[axis]
        first = max(0, math.ceil(shift - 1e-6))
        last = min(self.size, math.floor(shift + scale * length + 1e-6))
        start, end = ((edge - shift) / scale for edge in (first, last))
        return first, last, max(start, 0.0), min(end, float(length))

    def intrinsics(self, K: Array) -> Array:
        """(..., 3, 3) intrinsics of the image -> of the window; the only place where K follows pixels."""
        moved = K * 1.0  # a copy, for arrays and tensors alike
        moved[..., 0, :] = moved[..., 0, :] * self.scale[0]
        moved[..., 1, :] = moved[..., 1, :] * self.scale[1]
        moved[..., 0, 2] += self.shift[0]
        moved[..., 1, 2] += self.shift[1]
        if self.flip:
            moved[..., 0, 1] *= -1
            moved[..., 0, 2] = self.size - moved[..., 0, 2]
        return moved

    def image_intrinsics(self, K: Array) -> Array:
        """(..., 3, 3) intrinsics of the window -> of the image: the inverse of `intrinsics`."""
        moved = K * 1.0
        if self.flip:
            moved[..., 0, 1] *= -1
            moved[..., 0, 2] = self.size - moved[..., 0, 2]
        moved[..., 0, 2] -= self.shift[0]
        moved[..., 1, 2] -= self.shift[1]
        moved[..., 0, :] = moved[..., 0, :] / self.scale[0]
        moved[..., 1, :] = moved[..., 1, :] / self.scale[1]
        return moved

    def points(self, xy: Array) -> Array:
        """(..., 2) pixels of the image -> pixels of the window."""
        moved = xy * 1.0
        moved[..., 0] = moved[..., 0] * self.scale[0] + self.shift[0]
        moved[..., 1] = moved[..., 1] * self.scale[1] + self.shift[1]
        if self.flip:
            moved[..., 0] = self.size - moved[..., 0]
        return moved

    def inverse_points(self, xy: Array) -> Array:
        """(..., 2) pixels of the window -> pixels of the image."""
        moved = xy * 1.0
        if self.flip:
            moved[..., 0] = self.size - moved[..., 0]
        moved[..., 0] = (moved[..., 0] - self.shift[0]) / self.scale[0]
        moved[..., 1] = (moved[..., 1] - self.shift[1]) / self.scale[1]
        return moved


def check_intrinsics(K: Any, height: int, width: int) -> np.ndarray:
    """K as a (3, 3) float32 array, if it can be the camera of a `height` x `width` image; else ValueError."""
    if isinstance(K, Tensor):
        K = K.detach().cpu().numpy()
    try:
        K = np.asarray(K, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            "K must be a (3, 3) array of numbers: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]"
        ) from None
    if K.shape != (3, 3):
        raise ValueError(f"K must be (3, 3): [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]; got {K.shape}")
    if not np.isfinite(K).all():
        raise ValueError("K contains numbers that are not finite")
    if np.abs(K[2] - (0, 0, 1)).max() > 1e-6 or K[1, 0] != 0:
        raise ValueError(
            f"K must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]]; got {K.tolist()}; is it transposed?"
        )
    focal = min(K[0, 0], K[1, 1])
    if focal <= 0:
        raise ValueError(
            f"K has a focal length of {focal:g}, so it cannot be inverted or mirrors the image; "
            "both must be positive pixels"
        )
    if focal < 0.02 * max(height, width):
        raise ValueError(
            f"K has a focal length of {focal:g} pixels, too short for the {width}x{height} image; "
            "K must be in pixels, not in shares of the image"
        )
    if not (0 <= K[0, 2] <= width and 0 <= K[1, 2] <= height):
        raise ValueError(
            f"K has its principal point ({K[0, 2]:g}, {K[1, 2]:g}) outside the {width}x{height} image; "
            "K must belong to the image as given"
        )
    return K.astype(np.float32)


def _read_path(path: Path) -> Photo:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the pictures in it one by one")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    with path.open("rb") as file:
        return _read_file(file, str(path))


def _read_file(file: BinaryIO, name: str) -> Photo:
    """Decode an open, seekable file; `name` is what messages call it."""
    head = file.read(16)
    file.seek(0)
    if not head:
        raise ValueError(f"{name} is empty (0 bytes)")
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        _register_heic(name)
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what matters is raised
        try:
            image = Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN])
        except Image.DecompressionBombError:
            raise ValueError(
                f"{name} has more than {MAX_MEGAPIXELS} megapixels, which are not read; make it smaller first"
            ) from None
        except Exception as error:  # a parser may stumble over a broken file in any way
            raise ValueError(f"{name} is no picture of a known format") from error
    return _decode(image, name, Path(name).name if name != "the image" else "")


def _decode(image: Image.Image, label: object, name: str) -> Photo:
    """Pixels and focal length of a PIL image whose data may not be loaded yet. `label` is for messages."""
    label = label if isinstance(label, str) else name or "the image"
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 1e6:
        raise ValueError(
            f"{label} has {width * height / 1e6:.0f} megapixels ({width}x{height}); at most {MAX_MEGAPIXELS} "
            "are read, make it smaller first"
        )
    if not width or not height:
        raise ValueError(f"{label} has no pixels ({width}x{height})")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image.load()
        except Exception as error:
            raise ValueError(f"{label} is cut short or damaged: {error}") from error
        exif = _exif(image)
        orientation = exif.get(_ORIENTATION, 1)
        image = _to_rgb(image, label)
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    pixels = np.asarray(image)
    return Photo(pixels, exif_focal(exif, *pixels.shape[:2]), name)


def _to_rgb(image: Image.Image, label: str) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"{label} has 32-bit pixels, whose range is unknown; save it with 8 or 16 bits")
        grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise ValueError(
            f"{label} has 32-bit float pixels, whose range is unknown; save it with 8 or 16 bits"
        )
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        raise ValueError(f"{label} has pixels of kind {image.mode!r}; save it as RGB") from error


def _exif(image: Image.Image) -> dict[int, Any]:
    """The tags of the file and of its Exif IFD in one dict; damaged EXIF counts as none."""
    try:
        exif = image.getexif()
        return {**exif, **exif.get_ifd(_EXIF_IFD)}
    except Exception:  # EXIF is a remark beside the picture: never a reason to refuse it
        return {}


def _number(exif: Mapping[int, Any], tag: int) -> float:
    """A tag as a finite number; 0, which EXIF uses for "unknown", where it is anything else."""
    try:
        value = float(exif.get(tag, 0))
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return value if math.isfinite(value) else 0.0


def _register_heic(name: str) -> None:
    try:
        import pillow_heif
    except ImportError:
        raise ImportError(
            f"{name} is a HEIC picture, which needs pillow-heif: pip install pillow-heif"
        ) from None
    pillow_heif.register_heif_opener()


def _filename(image: Any) -> str:
    """The name that PIL images and files may carry, if it is text."""
    name = getattr(image, "filename", None) or getattr(image, "name", None)
    return name if isinstance(name, str) else ""


def _check_array(image: np.ndarray) -> np.ndarray:
    shape = image.shape
    if image.dtype == np.uint8 and image.ndim == 3 and shape[2] == 3:
        if 0 in shape:
            raise ValueError(f"image has no pixels, got {shape}")
        return image
    cures = []
    if np.issubdtype(image.dtype, np.floating):
        cures.append("multiply by 255")
    elif image.dtype == np.uint16:
        cures.append("divide by 257")
    if image.dtype != np.uint8:
        cures.append("convert with .astype(np.uint8)")
    if image.ndim == 2 or (image.ndim == 3 and shape[2] == 1):
        cures.append("repeat the grey channel three times")
    elif image.ndim == 3 and shape[0] == 3:
        cures.append("move channels last")
    elif image.ndim == 3 and shape[2] == 4:
        cures.append("drop the fourth channel with image[..., :3]")
    elif image.ndim == 4:
        cures.append("give the images one by one, or to predict_batch")
    raise ValueError(_wrong_form("(H, W, 3) uint8 or a path", image.dtype, shape, cures))


def _tensor_to_array(image: Tensor) -> np.ndarray:
    shape = tuple(image.shape)
    float_or_byte = image.is_floating_point() or image.dtype == torch.uint8
    if image.ndim != 3 or shape[0] != 3 or not float_or_byte:
        cures = [] if float_or_byte else ["convert to uint8"]
        if image.ndim == 3 and shape[2] == 3:
            cures.append("move channels first with .permute(2, 0, 1)")
        elif image.ndim == 4:
            cures.append("give the images one by one, or to predict_batch")
        dtype = str(image.dtype).removeprefix("torch.")
        raise ValueError(_wrong_form("(3, H, W), uint8 or float in [0, 1], as a tensor", dtype, shape, cures))
    if 0 in shape:
        raise ValueError(f"image has no pixels, got {shape}")
    image = image.detach().cpu()
    if image.is_floating_point():
        image = image.float()
        if not image.isfinite().all():
            raise ValueError("image contains NaN or infinite pixels")
        low, high = float(image.min()), float(image.max())
        if low < -1e-3 or high > 1 + 1e-3:
            raise ValueError(
                f"image must be in [0, 1] as a float tensor, got {low:.3g} to {high:.3g}; divide by 255 "
                "or undo the normalisation"
            )
        image = image.clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _wrong_form(expected: str, dtype: object, shape: tuple[int, ...], cures: list[str]) -> str:
    cure = "; " + " and ".join(cures) if cures else ""
    return f"image must be {expected}, got {dtype} {shape}{cure}"
