from __future__ import annotations

import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from multihmr.preprocessing.color import to_srgb
from multihmr.preprocessing.image import load_image, read_image

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


def png_with(pixels: np.ndarray, **chunks: bytes) -> bytes:
    """A PNG file with these chunks behind its header."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    content, added = buffer.getvalue(), b""
    for name, data in chunks.items():
        body = name.encode() + data
        added += struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    return content[:33] + added + content[33:]


def chromaticities(*numbers: float) -> bytes:
    return struct.pack(">8I", *(round(100_000 * number) for number in numbers))


GAMMA_SRGB, LINEAR = struct.pack(">I", 45455), struct.pack(">I", 100_000)
SRGB_SPACE = chromaticities(0.3127, 0.329, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ADOBE_SPACE = chromaticities(0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ({"gAMA": GAMMA_SRGB}, (128, 60, 200)),
        ({"gAMA": GAMMA_SRGB, "cHRM": SRGB_SPACE}, (128, 60, 200)),
        ({"gAMA": LINEAR}, (188, 132, 229)),  # 255 * (1.055 * (128 / 255) ** (1 / 2.4) - 0.055) = 188
        ({"sRGB": b"\0", "gAMA": LINEAR}, (128, 60, 200)),  # sRGB goes before gAMA, says the standard
        ({"gAMA": b"\0\0\0\0"}, (128, 60, 200)),  # which is no gamma
        ({"cHRM": bytes(32)}, (128, 60, 200)),
    ],
)
def test_gamma_and_primaries_of_png(chunks: dict[str, bytes], expected: tuple[int, int, int]) -> None:
    pixels = np.full((4, 4, 3), (128, 60, 200), np.uint8)
    found = load_image(png_with(pixels, **chunks)).pixels[0, 0]
    assert np.abs(found.astype(int) - expected).max() <= 1, found


def test_adobe_rgb_by_chunks_and_by_exif_are_those_of_its_profile() -> None:
    """Values of Adobe RGB (1998), of which sRGB's red (255, 0, 0) is (219, 0, 0)."""
    pixels = np.full((16, 16, 3), (219, 0, 0), np.uint8)
    assert (
        np.abs(load_image(png_with(pixels, cHRM=ADOBE_SPACE)).pixels[8, 8].astype(int) - (255, 0, 0)).max()
        <= 5
    )
    exif = Image.Exif()
    exif._ifds[0x8769] = {0xA001: 65535, 0xA005: {1: "R03"}}
    grey_and_red = np.zeros((16, 32, 3), np.uint8)
    grey_and_red[:, :16], grey_and_red[:, 16:] = 128, (219, 0, 0)
    for form, options in (("PNG", {}), ("JPEG", {"quality": 100, "subsampling": 0}), ("TIFF", {})):
        buffer = io.BytesIO()
        Image.fromarray(grey_and_red).save(
            buffer, form, exif=exif.tobytes() if form != "TIFF" else exif, **options
        )
        found = load_image(buffer.getvalue()).pixels.astype(int)
        if form == "TIFF" and (found[8, 24] == (219, 0, 0)).all():
            continue  # this Pillow does not write the tag into a TIFF
        assert np.abs(found[8, 24] - (255, 0, 0)).max() <= 4, (form, found[8, 24])
        assert np.abs(found[8, 4] - 128).max() <= 2  # grey stays grey
    exif._ifds[0x8769] = {0xA001: 1, 0xA005: {1: "R98"}}  # sRGB
    buffer = io.BytesIO()
    Image.fromarray(grey_and_red).save(buffer, "PNG", exif=exif.tobytes())
    np.testing.assert_array_equal(load_image(buffer.getvalue()).pixels, grey_and_red)


@pytest.mark.parametrize("mode", ["LAB", "CMYK"])
def test_modes_of_print_without_a_profile(mode: str) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4], pixels[4:] = (200, 60, 40), (30, 120, 220)
    image: Image.Image | None = Image.fromarray(pixels)
    if mode == "LAB":
        spaces = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        image = ImageCms.applyTransform(image, ImageCms.buildTransform(*spaces, "RGB", "LAB"))
    else:
        image = image.convert("CMYK")
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    assert np.abs(load_image(buffer.getvalue()).pixels.astype(int) - pixels).max() <= 4


def with_cicp(data: bytes, *points: int) -> bytes:
    """A PNG file with a chunk cICP behind its header."""
    body = b"cICP" + bytes(points)
    chunk = struct.pack(">I", len(points)) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


def test_png_colours_by_cicp_become_srgb() -> None:
    pixels = picture()
    stored = Image.fromarray(in_profile(pixels, DISPLAY_P3))
    assert distance(read_image(with_cicp(saved(stored), 12, 13, 0, 1)), pixels) <= 1
    # it goes before an ICC profile of another colour space
    data = with_cicp(saved(stored, icc_profile=rgb_profile(SRGB)), 12, 13, 0, 1)
    assert distance(read_image(data), pixels) <= 1
    for same in ((1, 13, 0, 1), (2, 2, 0, 1), (12, 13)):  # sRGB, unknown, damaged
        np.testing.assert_array_equal(read_image(with_cicp(saved(stored), *same)), np.asarray(stored))
    linear = Image.fromarray(np.full((4, 4, 3), 55, np.uint8))  # (55 / 255) of the light is 128 in sRGB
    assert distance(read_image(with_cicp(saved(linear), 1, 8, 0, 1)), np.full((4, 4, 3), 128)) <= 1


@pytest.mark.parametrize(("transfer", "white"), [(16, 0.5807), (18, 0.75)])
def test_white_of_hdr_pictures_is_white(transfer: int, white: float) -> None:
    """BT.2408: the reference white of graphics lies at 58 % (PQ) or 75 % (HLG) of the code."""
    values = np.array([[[0] * 3, [round(255 * white)] * 3, [255] * 3]], np.uint8)
    found = read_image(with_cicp(saved(Image.fromarray(values)), 9, transfer, 0, 1))
    assert distance(found, np.array([[[0] * 3, [255] * 3, [255] * 3]])) <= 3


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_colours_by_nclx_become_srgb() -> None:
    pixels = picture()
    data = saved(Image.fromarray(in_profile(pixels, DISPLAY_P3)), "AVIF", quality=100, subsampling="4:4:4")
    at = data.find(b"colrnclx")
    assert at > 0
    tagged = data[: at + 8] + struct.pack(">HH", 12, 13) + data[at + 12 :]
    assert np.abs(read_image(tagged).astype(int) - pixels).mean() < 2
    assert np.abs(read_image(data).astype(int) - pixels).mean() > 5


@pytest.mark.parametrize(("code_points", "space"), [((12, 13), DISPLAY_P3), ((1, 13), None), ((2, 2), None)])
def test_heic_colours_by_nclx_become_srgb(code_points: tuple[int, int], space: Any) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    pixels = picture()
    stored = Image.fromarray(pixels if space is None else in_profile(pixels, space))
    data = saved(
        stored,
        "HEIF",
        quality=-1,
        chroma=444,
        color_primaries=code_points[0],
        transfer_characteristics=code_points[1],
    )
    assert np.abs(read_image(data).astype(int) - pixels).mean() < 2
