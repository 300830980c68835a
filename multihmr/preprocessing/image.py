"""Load images: whatever users have (path, URL, bytes, PIL, array, tensor) as (H, W, 3) uint8 RGB pixels.

Pixel coordinates are (x, y), the centre of the top-left pixel is (0.5, 0.5); sizes are (height, width).
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from .arrays import array_to_pixels, check_channels, tensor_to_pixels
from .camera import exif_focal, resolve_camera
from .decode import MAX_MEGAPIXELS, DecodedImage, decode_file, decode_pil
from .image_files import VIDEO_SUFFIXES
from .sources import MAX_BYTES, as_url, image_of_text, is_elsewhere, path_of, read_url, shorten
from .types import ChannelOrder, ImageLike, IntrinsicsLike

_LONGEST_PATH = 4096

__all__ = ["MAX_MEGAPIXELS", "LoadedImage", "load_image", "read_image"]


@dataclass(frozen=True, eq=False, repr=False)
class LoadedImage:
    """An image in memory.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        focal: focal length in pixels, where EXIF tells it.
        name: of the file; "" if it came without one.
        count: of pictures in the file, of which this is the first: frames of an animation, pages of a TIFF.
    """

    pixels: np.ndarray
    focal: float | None = None
    name: str = ""
    count: int = 1

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        focal = "" if self.focal is None else f", focal length {self.focal:.0f} pixels"
        return f"LoadedImage({self.name!r}, {width}x{height}{focal})"

    def camera(
        self, K: IntrinsicsLike | None = None, *, fov: float | None = None
    ) -> tuple[Tensor | None, str]:
        """Its intrinsics (3, 3) and their `K_source`, as `camera.resolve_camera` chooses them."""
        height, width = self.pixels.shape[:2]
        return resolve_camera(height, width, K, fov=fov, exif_focal=self.focal)


def read_image(image: ImageLike) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright, from whatever `load_image` takes."""
    return load_image(image).pixels


def load_image(image: ImageLike, *, channels: ChannelOrder = "rgb") -> LoadedImage:
    """Load an image.

    The same picture gives the same pixels in every form. Files are turned upright as EXIF says, converted to
    sRGB by their ICC profile, and shown over white where they are transparent; of an animation the first
    frame is taken, and 16-bit grey is scaled to 8 bits. The focal length is known only where EXIF came along.

    Args:
        image: any of

            - a path (str or Path), also with "~"; an http, https or file address; a data URI; base64 text
              of an image file;
            - the bytes of an image file, or a binary file object;
            - a PIL image;
            - a numpy array (H, W, 3), (H, W, 4) or (H, W), uint8;
            - a torch tensor (3, H, W), (4, H, W), (1, H, W) or (H, W), uint8 or float in [0, 1], on any
              device;
            - a LoadedImage, given back as it is.
        channels: "bgr" for arrays and tensors in OpenCV's order; files and PIL images know theirs.

    Returns:
        Pixels, focal length and name.

    Raises:
        ValueError: it cannot be read; the message tells why in one sentence.
        FileNotFoundError: there is no such file or address.
        IsADirectoryError: it is a folder.
        ConnectionError, TimeoutError: the address cannot be read.
        ImportError: HEIC without pillow-heif.
    """
    check_channels(channels)
    if isinstance(image, LoadedImage):
        return image
    if isinstance(image, str):
        return _load_text(image)
    if isinstance(image, os.PathLike):
        url = as_url(image)
        return _load_path(path_of(os.fspath(image))) if url is None else _load_url(url)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _loaded(decode_file(io.BytesIO(image), "the image"))
    if isinstance(image, Image.Image):
        name = Path(_filename(image)).name
        return _loaded(decode_pil(image, name or "the image"), name)
    if isinstance(image, np.ndarray):
        return LoadedImage(array_to_pixels(image, channels))
    if isinstance(image, Tensor):
        return LoadedImage(tensor_to_pixels(image, channels))
    if hasattr(image, "read"):
        data = image.read()
        if not isinstance(data, bytes):
            raise ValueError("image is a file opened as text; open it with mode 'rb'")
        path = _filename(image)
        if not data and hasattr(image, "tell") and image.tell() > 0:
            raise ValueError(f"{path or 'the image'} has been read to its end; go back with .seek(0)")
        return _loaded(decode_file(io.BytesIO(data), path or "the image"), Path(path).name)
    raise ValueError(
        "image must be a path, bytes, a PIL image, a (H, W, 3) uint8 array or a (3, H, W) tensor, "
        f"got {type(image).__name__}{_hint(image)}"
    )


def _hint(image: Any) -> str:
    if isinstance(image, (list, tuple)):
        if image and isinstance(image[0], (list, tuple, int)):
            return "; turn nested numbers into an array with np.array(image, np.uint8)"
        return "; for several images use predict_batch"
    if hasattr(image, "__iter__"):
        return "; for several images use predict_batch"
    return ""


def _load_text(text: str) -> LoadedImage:
    url = as_url(text)
    if url is not None:
        return _load_url(url)
    if not text.strip():
        raise ValueError(f"an empty name is no image, got {text!r}")
    data = image_of_text(text)
    if data is None:
        return _load_path(path_of(text))
    try:
        return _loaded(decode_file(io.BytesIO(data), f"the image in {shorten(text, 40)}"))
    except ValueError:
        if is_elsewhere(text) or len(text) > _LONGEST_PATH:
            raise
        raise FileNotFoundError(
            f"{shorten(text)} does not exist, and is no base64 text of an image"
        ) from None


def _load_url(url: str) -> LoadedImage:
    name = url.partition("?")[0].partition("#")[0].rpartition("/")[2]
    return _loaded(decode_file(io.BytesIO(read_url(url)), shorten(url)), name)


def _load_path(path: Path) -> LoadedImage:
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; predict_many({str(path)!r}) predicts what is in it")
        if not path.exists():
            leads = f": it is a link to {os.readlink(path)}" if path.is_symlink() else ""
            raise FileNotFoundError(f"{shorten(str(path))} does not exist{leads}")
    except ValueError as error:  # a null character
        raise FileNotFoundError(f"{shorten(str(path))!r} is no path: {error}") from None
    except OSError as error:
        if isinstance(error, (IsADirectoryError, FileNotFoundError)):
            raise
        raise FileNotFoundError(
            f"{shorten(str(path))} is neither a path nor the base64 text of an image"
        ) from None
    with _seekable(path) as file:
        try:
            return _loaded(decode_file(file, str(path)), path.name)
        except ValueError as error:
            if path.suffix.lower() in VIDEO_SUFFIXES:
                reason = f"{path} is a video; predict_video({str(path)!r}) predicts its frames"
                raise ValueError(reason) from error
            raise


def _seekable(path: Path) -> BinaryIO:
    """The open file; a pipe, as of `<(...)` in a shell, is read whole."""
    if path.is_file():
        return path.open("rb")
    with path.open("rb") as pipe:
        data = pipe.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES / 2**20:g} MB, which are not read")
    return io.BytesIO(data)


def _loaded(decoded: DecodedImage, name: str = "") -> LoadedImage:
    focal = exif_focal(decoded.exif, *decoded.pixels.shape[:2])
    return LoadedImage(decoded.pixels, focal, name, decoded.pictures)


def _filename(image: Any) -> str:
    """The name that PIL images and files may carry, if it is text."""
    name = getattr(image, "filename", None) or getattr(image, "name", None)
    return name if isinstance(name, str) else ""
