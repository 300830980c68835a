from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageCms

from multihmr.preprocessing.color import to_srgb
from multihmr.preprocessing.image import read_image

from .icc import DISPLAY_P3, SRGB, cmyk_profile, grey_profile, in_profile, rgb_profile


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """Colours that the usual screens show."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (60 + 150 * np.stack([x, y, 0.5 + 0.5 * np.sin(5 * x * y)], -1)).astype(np.uint8)


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def distance(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_a_display_p3_picture_equals_its_srgb_version(form: str) -> None:
    pixels = picture()
    stored = in_profile(pixels, DISPLAY_P3)
    assert distance(stored, pixels) > 15  # the profile matters
    options = {"lossless": True} if form == "WEBP" else {}
    data = saved(Image.fromarray(stored), form, icc_profile=rgb_profile(DISPLAY_P3), **options)
    assert distance(read_image(data), pixels) <= 1
    assert distance(read_image(Image.open(io.BytesIO(data))), pixels) <= 1
    palette = Image.fromarray(stored).quantize(200)
    expected = read_image(saved(palette.convert("RGB"), icc_profile=rgb_profile(DISPLAY_P3)))
    assert distance(read_image(saved(palette, icc_profile=rgb_profile(DISPLAY_P3))), expected) == 0


def test_srgb_by_any_name_changes_no_pixel() -> None:
    every = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    theirs = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (rgb_profile(SRGB), theirs):
        image = Image.fromarray(every)
        assert to_srgb(image, profile) is image
        np.testing.assert_array_equal(read_image(saved(image, icc_profile=profile)), every)


def test_transparency_survives_the_conversion() -> None:
    pixels, profile = picture(), rgb_profile(DISPLAY_P3)
    image = Image.fromarray(in_profile(pixels, DISPLAY_P3)).convert("RGBA")
    image.putpixel((0, 0), (9, 9, 9, 0))
    shown = read_image(saved(image, icc_profile=profile))
    assert (shown[0, 0] == 255).all()
    assert distance(shown[1:], pixels[1:]) <= 1


def test_grey_profiles() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    stored = np.round(255 * (grey / 255) ** 1.0).astype(np.uint8)
    shown = read_image(saved(Image.fromarray(stored), icc_profile=grey_profile(1.0)))  # linear light
    assert (shown[..., 0] == shown[..., 2]).all()
    middle = shown[8, 0, 0]  # level 128 of linear light is 188 in sRGB
    assert abs(int(middle) - 188) <= 1
    # grey pixels with a monitor's profile
    both = saved(Image.fromarray(grey), icc_profile=rgb_profile(DISPLAY_P3))
    assert distance(read_image(both)[..., 0], grey) <= 1
    # 16 bits, and a profile for colour where the pixels are grey
    sixteen = saved(Image.fromarray(grey.astype(np.uint16) * 257), icc_profile=grey_profile(1.0))
    np.testing.assert_array_equal(read_image(sixteen), shown)


def test_printing_profiles() -> None:
    inks = Image.new("CMYK", (8, 8), (0, 0, 0, 255))
    assert read_image(saved(inks, "TIFF", icc_profile=cmyk_profile())).max() <= 3
    paper = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert read_image(saved(paper, "TIFF", icc_profile=cmyk_profile())).min() >= 252
    half = read_image(saved(Image.new("CMYK", (8, 8), (0, 0, 0, 128)), "TIFF", icc_profile=cmyk_profile()))
    assert 110 <= half.min() <= half.max() <= 128  # L* of 50 is level 119
    plain = read_image(saved(Image.new("CMYK", (8, 8), (0, 0, 0, 128)), "TIFF"))
    assert (plain == 127).all()


@pytest.mark.parametrize("profile", [b"x", b"\0" * 128, rgb_profile(DISPLAY_P3)[:300], grey_profile(2.2)])
def test_profiles_that_are_broken_or_of_other_pixels_are_ignored(profile: bytes) -> None:
    pixels = picture()
    np.testing.assert_array_equal(read_image(saved(Image.fromarray(pixels), icc_profile=profile)), pixels)


def test_the_profile_of_a_phone_costs_little() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8))
    profile = rgb_profile(SRGB)
    to_srgb(image, profile)
    start = time.process_time()
    to_srgb(image, profile)
    assert time.process_time() - start < 0.01
