"""Decode image files: any common format to upright (H, W, 3) uint8 sRGB pixels and EXIF tags."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import PIL
from PIL import Image, features

from .color import coded_color_space, convert_primaries, tagged_color_space, to_srgb
from .file_kinds import HEAD_BYTES, kind_of_file

MAX_MEGAPIXELS = 178  # Pillow's own limit; checked before pixels are allocated

# What may come as a file. Not EPS and its kind: Pillow opens those by starting Ghostscript.
_FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO",
    "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")  # among the compatible ones of a file whose own brand is mif1

_ORIENTATION, _EXIF_IFD, _INTEROPERABILITY_IFD = 0x0112, 0x8769, 0xA005
_TIFF_PHOTOMETRIC, _YCBCR = 262, 6
_OF_SEVERAL = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")  # formats of animations and pages
_HEAD_BYTES = 1 << 20  # in which colour tags lie
_GREY_BITS = (8, 10, 12, 14, 16)  # that sensors give
DEFECTIVE = 1e-4  # share of pixels that may be brighter than the bits in use

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodedImage(NamedTuple):
    """(H, W, 3) uint8 sRGB pixels, upright, and the tags of the file and of its Exif IFD.

    pictures: how many there are in an animation or a file of several pages; these pixels are the first.
    """

    pixels: np.ndarray
    exif: dict[int, Any]
    pictures: int = 1


def decode_file(file: BinaryIO, name: str) -> DecodedImage:
    """Decode an open, seekable file.

    Args:
        file: at its beginning.
        name: what messages call it.

    Raises:
        ValueError: it is empty, no image of a known format, damaged or too large.
        ImportError: it is HEIC, and pillow-heif is missing.
    """
    register_heic(file, name)
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
            raise ValueError(f"{name} is no picture of a known format{_what_it_is(file)}") from error
    return decode_pil(image, name)


def _what_it_is(file: BinaryIO) -> str:
    file.seek(0)
    kind = kind_of_file(file.read(HEAD_BYTES))
    return f": it is {kind}" if kind else ""


def decode_pil(image: Image.Image, name: str) -> DecodedImage:
    """Decode a PIL image whose data may not be loaded yet.

    The first frame of an animation, turned upright as EXIF says, in sRGB by its ICC profile, transparency
    over white, 16-bit grey and colours scaled to 8 bits by the bits in use.

    Args:
        image: of any mode.
        name: what messages call it.

    Raises:
        ValueError: it is damaged, too large, without pixels, or of an unknown range.
    """
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 1e6:
        raise ValueError(
            f"{name} has {width * height / 1e6:.0f} megapixels ({width}x{height}); at most {MAX_MEGAPIXELS} "
            "are read, make it smaller first"
        )
    if not width or not height:
        raise ValueError(f"{name} has no pixels ({width}x{height})")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # first, because EXIF of a PNG loads the pixels
        deep, code_points, count = _bytes_of_deep_color(image), _code_points(image), _count(image)
        exif = _exif(image)  # libtiff closes the file with the pixels; other formats keep EXIF behind them
        try:
            _prepare_tiff(image)
            image.load()
        except Exception as error:
            raise ValueError(f"{name} is cut short or damaged: {error}") from error
        exif = {**_exif(image), **exif}
        orientation = exif.get(_ORIENTATION, 1)
        profile = None if code_points and image.format == "PNG" else image.info.get("icc_profile")
        space = None
        if code_points and not profile:
            space = coded_color_space(*code_points)
        elif not profile:
            space = tagged_color_space(image.info, exif, _interoperability(image))
        if deep is not None:
            image = _stretched_by_bits_in_use(image, deep, name)
        image = _to_rgb(image, name, profile)
        if space is not None:
            image = Image.fromarray(convert_primaries(np.asarray(image), *space))
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    return DecodedImage(np.asarray(image), exif, count)


def _prepare_tiff(image: Image.Image) -> None:
    """Let libtiff decode uncompressed YCbCr, of which Pillow's own reader expects four bytes a pixel."""
    tags: Any = getattr(image, "tag_v2", {})
    tiles: Any = getattr(image, "tile", [])
    raw = len(tiles) > 0 and tiles[0][0] == "raw"
    if raw and tags.get(_TIFF_PHOTOMETRIC) == _YCBCR and features.check("libtiff"):
        # Pillow 13 tells the decoder no compression, and does not say at once that its pixels will be RGB.
        is_13 = int(PIL.__version__.partition(".")[0]) >= 13
        arguments = ("RGBX", False, tags.offset) if is_13 else ("RGBX", "raw", False, tags.offset)
        image._mode = "RGB"
        tile: Any = ("libtiff", (0, 0, *image.size), 0, arguments)
        named = type(tiles[0])  # a named tuple from Pillow 11 on
        image.tile = [named(*tile) if hasattr(named, "_fields") else tile]  # type: ignore[attr-defined]
        image.use_load_libtiff = True  # type: ignore[attr-defined]


def _to_rgb(image: Image.Image, name: str, profile: bytes | None) -> Image.Image:
    if image.mode.startswith("I"):
        image = _grey_by_bits_in_use(image, name)
    elif image.mode == "F":
        raise ValueError(f"{name} has 32-bit float pixels, whose range is unknown; save it with 8 or 16 bits")
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            colours = to_srgb(image.convert("RGB"), profile).convert("RGBA")
            colours.putalpha(image.getchannel("A"))
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, colours).convert("RGB")
        if image.mode not in ("RGB", "L", "CMYK", "LAB"):
            image = image.convert("RGB")
        return to_srgb(image, profile).convert("RGB")
    except ValueError as error:
        raise ValueError(f"{name} has pixels of kind {image.mode!r}; save it as RGB") from error


def _grey_by_bits_in_use(image: Image.Image, name: str) -> Image.Image:
    """16-bit grey -> 8 bits; of a sensor's 10, 12 or 14 bits the whole range, which would be nearly black."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"{name} has 32-bit pixels, whose range is unknown; save it with 8 or 16 bits")
    return _by_bits_in_use(values)


def _by_bits_in_use(values: np.ndarray) -> Image.Image:
    """Pixels of 16 bits -> 8 bits; defective pixels of a sensor, which are at its end, do not count."""
    few = DEFECTIVE * values.size
    bits = next(bits for bits in _GREY_BITS if bits == 16 or np.count_nonzero(values >= 1 << bits) <= few)
    full = (1 << bits) - 1
    return Image.fromarray(((np.minimum(values, full) * 255 + full // 2) // full).astype(np.uint8))


def _bytes_of_deep_color(image: Image.Image) -> bytes | None:
    """The whole file of a colour image of 16 bits a channel, of which Pillow reads the upper 8; else None."""
    tiles: Any = getattr(image, "tile", [])
    file: Any = getattr(image, "fp", None)
    if image.mode not in ("RGB", "RGBA") or not tiles or file is None or ";16" not in str(tiles[0][3]):
        return None
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return bytes(content)


def _count(image: Image.Image) -> int:
    """How many pictures the file has; those beside the picture in a JPEG (MPO) are not meant to be seen."""
    if image.format not in _OF_SEVERAL:
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # what is damaged behind the first picture does not matter
        return 1


def _code_points(image: Image.Image) -> tuple[int, int] | None:
    """Primaries and transfer curve of ITU-T H.273 that a PNG (cICP), AVIF or HEIC file (nclx) names, or None.

    In PNG they go before an ICC profile, in the others behind it.
    """
    nclx = image.info.get("nclx_profile")  # of pillow-heif
    if isinstance(nclx, dict):
        return int(nclx.get("color_primaries", 2)), int(nclx.get("transfer_characteristics", 2))
    file: Any = getattr(image, "fp", None)
    if file is None or image.format not in ("PNG", "AVIF"):
        return None
    place = file.tell()
    file.seek(0)
    head = bytes(file.read(_HEAD_BYTES))
    file.seek(place)
    if image.format == "AVIF":
        at = head.find(b"colrnclx")
        return struct.unpack(">HH", head[at + 8 : at + 12]) if 0 <= at <= len(head) - 12 else None
    at = 8
    while at + 12 <= len(head):
        length, kind = struct.unpack(">I4s", head[at : at + 8])
        if kind == b"cICP" and length == 4:
            return head[at + 8], head[at + 9]
        if kind == b"IDAT":
            return None
        at += 12 + length
    return None


def _stretched_by_bits_in_use(image: Image.Image, content: bytes, name: str) -> Image.Image:
    """Of a sensor's 10, 12 or 14 bits within 16 the whole range, which would be nearly black.

    PyAV reads the 16 bits; ValueError without it.
    """
    counts = np.array(image.convert("RGB").histogram()).reshape(3, 256).sum(0)  # by the upper 8 bits
    if counts[1:].sum() == 0 or counts[1 << (_GREY_BITS[-2] - 8) :].sum() > DEFECTIVE * counts.sum():
        return image
    try:
        import av

        with av.open(io.BytesIO(content)) as container:
            values = next(container.decode(video=0)).to_ndarray(format="rgb48le").astype(np.int64)
    except ImportError:
        raise ValueError(
            f"{name} has colours of 16 bits of which only some are used, and would be nearly black: "
            "pip install 'multihmr[video]' reads them, or save it with 8 bits"
        ) from None
    except Exception:  # kinds of TIFF that FFmpeg does not know
        return image
    return _by_bits_in_use(values)


def _interoperability(image: Image.Image) -> Any:
    """The InteroperabilityIndex of EXIF, None without."""
    try:
        return image.getexif().get_ifd(_INTEROPERABILITY_IFD).get(1)
    except Exception:
        return None


def _exif(image: Image.Image) -> dict[int, Any]:
    """The tags of the file and of its Exif IFD in one dict; damaged EXIF counts as none."""
    try:
        exif = image.getexif()
        return {**exif, **exif.get_ifd(_EXIF_IFD)}
    except Exception:  # EXIF is a remark beside the picture: never a reason to refuse it
        return {}


def register_heic(file: BinaryIO, name: str) -> None:
    """Let Pillow read HEIC if an open file is such a picture, and go back to its beginning.

    Args:
        file: at its beginning.
        name: what messages call it.

    Raises:
        ValueError: it is empty.
        ImportError: it is HEIC, and pillow-heif is missing.
    """
    head = file.read(64)
    file.seek(0)
    if not head:
        raise ValueError(f"{name} is empty (0 bytes)")
    if head[4:8] != b"ftyp" or head[8:12] not in _HEIC_BRANDS or any(b in head[16:] for b in _AVIF_BRANDS):
        return
    try:
        import pillow_heif
    except ImportError:
        raise ImportError(
            f"{name} is a HEIC picture, which needs pillow-heif: pip install pillow-heif"
        ) from None
    pillow_heif.register_heif_opener()
