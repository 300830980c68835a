"""Colour management: images of other colour spaces become sRGB, which networks are trained on."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

# colour space of a profile -> mode of the pixels that it describes
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_GRID = 17  # values per channel at which a profile is compared with sRGB
_COLOR_SPACE = 0xA001  # of EXIF; 1 is sRGB
_TOLERANCE = 1  # levels of 255 by which sRGB's own profiles differ from each other

Chromaticities = tuple[tuple[float, float], ...]  # x, y of red, green, blue and white
D65 = (0.3127, 0.3290)
BT709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65)  # sRGB's, too
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65)
ADOBE_GAMMA = 563 / 256
# ITU-T H.273, table 2: primaries -> x, y of red, green, blue and white; BT.709 and unknown ones are sRGB's
CODED_PRIMARIES: dict[int, Chromaticities] = {
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65),  # BT.601, 625 lines
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),  # BT.601, 525 lines
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),  # SMPTE 240M
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # P3 of cinemas
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),  # Display P3
}
# table 3, transfer curves that are not shown as sRGB's
_CODED_TRANSFER: dict[int, float | str] = {4: 2.2, 5: 2.8, 8: 1.0, 16: "pq", 18: "hlg"}
_SRGB_GAMMA = 1 / 0.45455  # what writers of PNG files put down for sRGB
_STEPS = 4095  # of the table from linear light back to 8 bits
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def tagged_color_space(info: dict[Any, Any], exif: dict[int, Any], interoperability: Any) -> Any:
    """The colour space that a file without an ICC profile names.

    Args:
        info: of a Pillow image; of PNG "srgb", "gamma" and "chromaticity".
        exif: tags of the file and its Exif IFD.
        interoperability: the InteroperabilityIndex of EXIF, "R03" for Adobe RGB (DCF 2.0).

    Returns:
        (chromaticities, gamma), where gamma None is the curve of sRGB; None where the file is sRGB or says
        nothing.
    """
    if isinstance(interoperability, bytes):
        interoperability = interoperability.decode("latin-1")
    if str(interoperability).strip("\0 ") == "R03" and exif.get(_COLOR_SPACE) != 1:
        return ADOBE_RGB, ADOBE_GAMMA
    if "srgb" in info or not ("gamma" in info or "chromaticity" in info):
        return None
    gamma: float | None = 1 / float(info["gamma"]) if info.get("gamma") else None
    if gamma is not None and (not 0.2 < gamma < 10 or abs(gamma - _SRGB_GAMMA) < 0.01):
        gamma = None
    chromaticities: Chromaticities = BT709
    if len(info.get("chromaticity") or ()) == 8:
        white, *colors = zip(*[iter(map(float, info["chromaticity"]))] * 2, strict=True)
        chromaticities = (*colors, white)
    if not all(0 < y < 1 and 0 <= x < 1 for x, y in chromaticities):
        chromaticities = BT709
    if gamma is None and np.abs(np.subtract(chromaticities, BT709)).max() < 0.005:
        return None
    return chromaticities, gamma


def coded_color_space(primaries: int, transfer: int) -> tuple[Chromaticities, float | str | None] | None:
    """What code points of ITU-T H.273 name, as in PNG's cICP and AVIF's nclx; None where that is sRGB.

    Args:
        primaries: a number of table 2; unknown ones are those of BT.709.
        transfer: a number of table 3; those of BT.709 and its kind are shown as sRGB.

    Returns:
        (chromaticities, gamma) for `convert_primaries`.
    """
    chromaticities, gamma = CODED_PRIMARIES.get(primaries, BT709), _CODED_TRANSFER.get(transfer)
    return None if chromaticities == BT709 and gamma is None else (chromaticities, gamma)


def convert_primaries(
    pixels: np.ndarray, chromaticities: Chromaticities, gamma: float | str | None = None
) -> np.ndarray:
    """(H, W, 3) uint8 of these primaries and white -> uint8 sRGB; colours outside are clipped.

    Args:
        pixels: coded by a power function.
        chromaticities: x, y of red, green, blue and white; the white becomes that of sRGB (Bradford).
        gamma: exponent from code to linear light; None is the curve of sRGB, "pq" and "hlg" those of HDR
            (BT.2100), of which white at 203 cd/m2 becomes white and what is brighter is clipped.
    """
    to_linear, matrix, to_code = _conversion(chromaticities, gamma)
    linear = to_linear[pixels] @ matrix.T
    return to_code[np.clip(linear * _STEPS + 0.5, 0, _STEPS).astype(np.uint16)]


@lru_cache
def _conversion(
    chromaticities: Chromaticities, gamma: float | str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Table 8 bits to linear light, (3, 3) matrix of linear light to that of sRGB, table back to 8 bits."""
    code, light = np.arange(256) / 255, np.arange(_STEPS + 1) / _STEPS
    to_linear = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    if isinstance(gamma, str):
        to_linear = _hdr_light(code, gamma)
    elif gamma is not None:
        to_linear = code**gamma
    to_code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    whites = [_BRADFORD @ _xyz(space[3]) for space in (chromaticities, BT709)]
    adapt = np.linalg.inv(_BRADFORD) @ np.diag(whites[1] / whites[0]) @ _BRADFORD
    matrix = np.linalg.inv(_rgb_to_xyz(BT709)) @ adapt @ _rgb_to_xyz(chromaticities)
    return to_linear.astype(np.float32), matrix.astype(np.float32), (to_code * 255).round().astype(np.uint8)


def _hdr_light(code: np.ndarray, curve: str) -> np.ndarray:
    """Linear light in which reference white is 1, of codes of BT.2100 (tables 4 and 5) from 0 to 1."""
    if curve == "pq":
        root = code ** (1 / 78.84375)
        nits = 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (
            1 / 0.1593017578125
        )
        return np.asarray(nits / 203)
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return np.asarray((scene / 0.265) ** 1.2)  # white is at 75 % of the code, screens of 1000 cd/m2


def _rgb_to_xyz(chromaticities: Chromaticities) -> np.ndarray:
    """(3, 3) linear RGB -> XYZ of primaries and white given as (x, y) (SMPTE RP 177)."""
    matrix = np.stack([_xyz(color) for color in chromaticities[:3]], 1)
    return matrix * np.linalg.solve(matrix, _xyz(chromaticities[3]))


def _xyz(chromaticity: tuple[float, float]) -> np.ndarray:
    x, y = chromaticity
    return np.array([x / y, 1.0, (1 - x - y) / y])


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an image to sRGB by its ICC profile.

    Args:
        image: of mode RGB, L, CMYK, or LAB, loaded.
        profile: the bytes of an ICC profile, as Pillow gives in `image.info["icc_profile"]`.

    Returns:
        An RGB image; the same object where the profile is sRGB's own, describes another kind of pixels, is
        damaged, or is None.
    """
    if not profile:
        return image
    mode = _mode_of(profile)
    if mode == "RGB" and image.mode == "L":  # grey pixels in a file with the profile of a monitor
        image = image.convert("RGB")
    if mode is None or mode != image.mode:
        return image
    transform = _transform(profile, mode)
    if transform is None:
        return image
    try:
        return ImageCms.applyTransform(image, transform) or image
    except ImageCms.PyCMSError:  # a profile is a remark beside the pixels: never a reason to refuse them
        return image


@lru_cache(maxsize=32)
def _mode_of(profile: bytes) -> str | None:
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return _MODES.get(opened.profile.xcolor_space.strip())
    except Exception:  # damaged bytes may fail anywhere in the parser
        return None


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None if it changes nothing, or cannot be used."""
    # Printing profiles are made to be read perceptually; monitors' have one table for all intents.
    intent = ImageCms.Intent.PERCEPTUAL if mode == "CMYK" else ImageCms.Intent.RELATIVE_COLORIMETRIC
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.buildTransform(source, target, mode, "RGB", renderingIntent=intent)
        if mode in ("RGB", "L") and _changes_nothing(transform, mode):
            return None
        return transform
    except Exception:
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether all colours of a grid stay what they are: the profile is sRGB's, under whatever name."""
    if mode == "L":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    else:
        levels = np.linspace(0, 255, _GRID).round().astype(np.uint8)
        probe = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(_GRID, -1, 3))
    changed = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int)
    return bool(np.abs(changed - np.asarray(probe.convert("RGB"))).max() <= _TOLERANCE)
