"""Colour management: images with an embedded ICC profile become sRGB, which networks are trained on."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

# colour space of a profile -> mode of the pixels that it describes
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_GRID = 17  # values per channel at which a profile is compared with sRGB
_TOLERANCE = 1  # levels of 255 by which sRGB's own profiles differ from each other


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
