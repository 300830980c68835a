"""Images in: read any picture; `Window`, how its pixels and its camera move into a network's frame.

Pixels are (x, y), the centre of the top-left pixel is (0.5, 0.5); sizes are (height, width). Pictures are
uint8 RGB. A window gives RGB in [0, 1], not normalised: mean and standard deviation belong to the network.
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .camera import exif_focal, resolve_camera

MAX_MEGAPIXELS = 178  # Pillow's own limit; asked before a pixel is allocated

# What may come as a file. Not EPS and its kind: Pillow opens those by starting Ghostscript.
_FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO",
    "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """pixels (H, W, 3) uint8 RGB, upright; focal in pixels where EXIF tells it; name: the file's, or ""."""

    pixels: np.ndarray
    focal: float | None = None
    name: str = ""

    def camera(self, K: Any = None, *, fov: float | None = None) -> tuple[Tensor | None, str]:
        """Its intrinsics (3, 3) and their `K_source`, as `camera.resolve_camera` chooses them."""
        height, width = self.pixels.shape[:2]
        return resolve_camera(height, width, K, fov=fov, exif_focal=self.focal)


def read_image(image: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright, from whatever `load_image` takes."""
    return load_image(image).pixels


def load_image(image: Any) -> LoadedImage:
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
    if isinstance(image, LoadedImage):
        return image
    if isinstance(image, (str, os.PathLike)):
        return _read_path(Path(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _read_file(io.BytesIO(image), "the image")
    if isinstance(image, Image.Image):
        return _decode(image, image, Path(_filename(image)).name)
    if isinstance(image, np.ndarray):
        return LoadedImage(_check_array(image))
    if isinstance(image, Tensor):
        return LoadedImage(_tensor_to_array(image))
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


def _read_path(path: Path) -> LoadedImage:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the pictures in it one by one")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    with path.open("rb") as file:
        return _read_file(file, str(path))


def _read_file(file: BinaryIO, name: str) -> LoadedImage:
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


def _decode(image: Image.Image, label: object, name: str) -> LoadedImage:
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
    return LoadedImage(pixels, exif_focal(exif, *pixels.shape[:2]), name)


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
