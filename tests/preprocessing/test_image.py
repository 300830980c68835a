from __future__ import annotations

import io
import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from multihmr.geometry import default_intrinsics, project
from multihmr.preprocessing.camera import check_intrinsics, exif_focal, resolve_camera
from multihmr.preprocessing.image import load_image, read_image
from multihmr.preprocessing.letterbox import Letterbox

WINDOWS = {
    "wide": Letterbox.whole(333, 1001, 448),
    "tall": Letterbox.whole(4000, 1500, 322),
    "box": Letterbox.box(-50.3, 20.7, 700.2, 300.9, 224),
    "mirrored": Letterbox.box(40, 20, 700, 300, 224, flip=True),
    "released": Letterbox.official_2024(333, 1001, 448),
}


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth colours, different at every corner."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (255 * np.stack([x, y, 0.5 + 0.5 * np.sin(5 * x * y)], -1)).astype(np.uint8)


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def exif_with(orientation: int = 1, **tags: float) -> Image.Exif:
    numbers = {
        "width": 0xA002,
        "height": 0xA003,
        "film": 0xA405,
        "lens": 0x920A,
        "plane": 0xA20E,
        "unit": 0xA210,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, value in tags.items():
        exif.get_ifd(0x8769)[numbers[name]] = value
    return exif


def test_every_form_of_a_picture_gives_the_same_pixels(tmp_path: Path) -> None:
    pixels = picture()
    pil = Image.fromarray(pixels)
    pil.save(tmp_path / "a.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = [pixels, pil, saved(pil), io.BytesIO(saved(pil)), tmp_path / "a.png", str(tmp_path / "a.png")]
    forms += [tensor, tensor.float() / 255, tensor.half() / 255, load_image(pixels)]
    for form in forms:
        np.testing.assert_array_equal(read_image(form), pixels)
    with (tmp_path / "a.png").open("rb") as file:
        np.testing.assert_array_equal(read_image(file), pixels)
    assert load_image(tmp_path / "a.png").name == "a.png"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    upright = picture()
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[
        orientation
    ]  # PIL's transpose that makes the file
    stored = Image.fromarray(upright)
    stored = stored if undo is None else stored.transpose(Image.Transpose(undo))
    data = saved(stored, exif=exif_with(orientation))
    np.testing.assert_array_equal(read_image(data), upright)


def test_modes_become_rgb() -> None:
    rgb = Image.fromarray(picture())
    grey = np.asarray(rgb.convert("L"))
    sixteen = Image.fromarray(grey.astype(np.uint16) * 257)
    for image in (Image.fromarray(grey), sixteen, Image.open(io.BytesIO(saved(sixteen)))):
        np.testing.assert_array_equal(read_image(image), np.repeat(grey[..., None], 3, -1))
    palette = rgb.quantize(64)
    np.testing.assert_array_equal(read_image(saved(palette)), np.asarray(palette.convert("RGB")))
    assert np.abs(read_image(saved(rgb.convert("CMYK"), "TIFF")).astype(int) - picture()).max() <= 2
    assert read_image(rgb.convert("1")).shape == (48, 64, 3)


def test_transparency_shows_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (read_image(saved(clear)) == 255).all()
    half = read_image(Image.new("LA", (4, 4), (0, 128)))
    assert np.abs(half.astype(int) - 127).max() <= 1


def test_first_picture_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(data)[0, 0], [255, 0, 0])


def test_focal_from_exif() -> None:
    # 26 mm on film, whose diagonal is 43.27 mm, seen by a 4:3 sensor
    assert exif_focal({0xA405: 26}, 3000, 4000) == pytest.approx(26 / 43.2666 * 5000, rel=1e-4)
    # 5 mm before pixels of 2.5 um
    tags = {0x920A: 5.0, 0xA20E: 400.0, 0xA210: 4, 0xA002: 4000, 0xA003: 3000}
    assert exif_focal(tags, 3000, 4000) == pytest.approx(2000)
    assert exif_focal(tags, 4000, 3000) == pytest.approx(2000)  # turned
    assert exif_focal(tags, 750, 1000) == pytest.approx(500)  # resized
    assert exif_focal(tags, 1000, 1000) is None  # cropped
    for nonsense in ({}, {0xA405: 0}, {0xA405: 1}, {0xA405: "x"}, {0x920A: 5.0}, {0xA405: float("nan")}):
        assert exif_focal(nonsense, 3000, 4000) is None


def test_focal_comes_with_path_bytes_and_pil_only() -> None:
    data = saved(Image.fromarray(picture()), "JPEG", exif=exif_with(6, film=35.0))
    photo = load_image(data)
    assert photo.pixels.shape == (64, 48, 3)
    assert photo.focal == pytest.approx(35 / 43.2666 * 80, rel=1e-4)
    assert load_image(Image.open(io.BytesIO(data))).focal == photo.focal
    assert load_image(photo.pixels).focal is None


def test_broken_exif_is_no_reason_to_refuse() -> None:
    data = bytearray(saved(Image.fromarray(picture()), "JPEG", exif=exif_with(6, film=35.0)))
    at = data.index(b"Exif\0\0") + 6
    data[at : at + 30] = b"\xff" * 30
    assert read_image(bytes(data)).shape == (48, 64, 3)


@pytest.mark.parametrize("name", WINDOWS)
def test_points_and_intrinsics_move_alike(name: str) -> None:
    letterbox = WINDOWS[name]
    points = torch.randn(20, 3) + torch.tensor([0.0, 0, 5])
    K = torch.tensor([[800.0, 3, 500], [0, 820, 160], [0, 0, 1]])
    moved = letterbox.points(project(points, K))
    mirror = torch.tensor([-1.0, 1, 1]) if letterbox.flip else 1
    torch.testing.assert_close(project(points * mirror, letterbox.intrinsics(K)), moved, atol=1e-2, rtol=1e-5)
    torch.testing.assert_close(letterbox.inverse_points(moved), project(points, K), atol=1e-2, rtol=1e-5)
    torch.testing.assert_close(letterbox.image_intrinsics(letterbox.intrinsics(K)), K, atol=1e-3, rtol=1e-5)
    np.testing.assert_allclose(letterbox.intrinsics(K.numpy()), letterbox.intrinsics(K).numpy(), rtol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(200, 300), (301, 97)])
def test_pixels_land_where_points_land(size: tuple[int, int], flip: bool) -> None:
    """The colour of a ramp tells where in the image a window pixel comes from."""
    height, width = size
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    ramp = np.stack(np.broadcast_arrays(x[None] / width, y[:, None] / height, 1.0), -1)
    letterbox = Letterbox.box(10.3, -20.6, width + 5.2, height + 9.1, 112, flip=flip)
    pixels = letterbox.to_tensor((255 * ramp).round().astype(np.uint8))
    at = torch.tensor([[47, 40], [56, 56], [62, 60]])
    source = letterbox.inverse_points(at + 0.5)
    seen = pixels[:2, at[:, 1], at[:, 0]].T * torch.tensor([width, height])
    torch.testing.assert_close(seen, source, atol=1.0, rtol=0)


def test_whole_image_is_centred_and_padded_with_grey() -> None:
    pixels = Letterbox.whole(50, 100, 64).to_tensor(np.full((50, 100, 3), 255, np.uint8))
    assert (pixels[:, 16:48] == 1).all()
    assert (pixels[:, :16] == 128 / 255).all()
    assert (pixels[:, 48:] == 128 / 255).all()


def test_twice_the_resolution_looks_the_same() -> None:
    small = picture(300, 400)
    large = np.asarray(Image.fromarray(small).resize((800, 600), Image.Resampling.BICUBIC))
    difference = Letterbox.whole(300, 400, 224).to_tensor(small) - Letterbox.whole(600, 800, 224).to_tensor(
        large
    )
    assert difference[:, 29:-29].abs().mean() < 0.004


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 3), (2, 3)])
def test_tiny_and_thin_images_have_a_window(size: tuple[int, int]) -> None:
    pixels = Letterbox.whole(*size, 224).to_tensor(np.zeros((*size, 3), np.uint8))
    assert pixels.shape == (3, 224, 224)


def test_window_beside_the_image_is_grey() -> None:
    assert (Letterbox.box(500, 500, 600, 600, 32).to_tensor(picture()) == 128 / 255).all()
    with pytest.raises(ValueError, match="x1 > x0"):
        Letterbox.box(5, 5, 5, 9, 32)


def test_good_intrinsics_come_back_as_float32() -> None:
    K = [[800, 0, 320], [0, 800, 240], [0, 0, 1]]
    for form in (K, np.array(K), torch.tensor(K)):
        checked = check_intrinsics(form, 480, 640)
        assert checked.dtype == np.float32
        np.testing.assert_array_equal(checked, K)


# --- forms that users have --------------------------------------------------------------------------------


def test_grey_and_transparent_arrays_are_read_as_files_are() -> None:
    pixels = picture()
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    for array in (grey, grey[..., None]):
        np.testing.assert_array_equal(read_image(array), read_image(saved(Image.fromarray(grey))))
    rgba = np.dstack([pixels, np.linspace(0, 255, pixels.shape[0] * pixels.shape[1]).reshape(48, 64, 1)])
    rgba = rgba.astype(np.uint8)
    np.testing.assert_array_equal(read_image(rgba), read_image(saved(Image.fromarray(rgba))))


def test_arrays_in_the_order_of_opencv() -> None:
    pixels = picture()
    bgr = pixels[..., ::-1]
    tensor = torch.from_numpy(bgr.copy()).permute(2, 0, 1)
    for form in (
        bgr,
        tensor,
        tensor.float() / 255,
        np.dstack([bgr, np.full(pixels.shape[:2], 255, np.uint8)]),
    ):
        np.testing.assert_array_equal(load_image(form, channels="bgr").pixels, pixels)
    for form in (Image.fromarray(pixels), saved(Image.fromarray(pixels))):  # know their own order
        np.testing.assert_array_equal(load_image(form, channels="bgr").pixels, pixels)
    with pytest.raises(ValueError, match="'rgb' or 'bgr', got 'rgba'"):
        load_image(bgr, channels="rgba")  # type: ignore[arg-type]


def test_lists_tell_what_to_do_instead() -> None:
    for several in (["a.jpg", "b.jpg"], ("a.jpg",), (path for path in ["a.jpg"]), [picture()]):
        with pytest.raises(ValueError, match="for several images use predict_batch"):
            load_image(several)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"np\.array\(image, np\.uint8\)"):
        load_image(picture().tolist())  # type: ignore[arg-type]


@pytest.mark.parametrize("fov", ["50", b"50", True, float("nan"), 0.5, 180, [50], None])
def test_fields_of_view_that_are_none(fov: object) -> None:
    if fov is None:
        assert resolve_camera(48, 64)[1] == "predicted"
        return
    with pytest.raises(ValueError, match=r"fov is the field of view in degrees .*, got"):
        resolve_camera(48, 64, fov=fov)  # type: ignore[arg-type]


def test_a_field_of_view_may_be_any_number() -> None:
    for fov in (60, np.float32(60), torch.tensor(60.0)):
        K, source = resolve_camera(48, 64, fov=fov)  # type: ignore[arg-type]
        assert source == "given"
        torch.testing.assert_close(K, default_intrinsics(48, 64))


# --- pixels of unusual files ------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_a_sensor_uses_the_whole_range(bits: int) -> None:
    grey = np.asarray(Image.fromarray(picture()).convert("L"))
    full = (1 << bits) - 1
    values = np.round(grey / 255 * full).astype(np.uint16)
    values[0, 0] = full
    for form in ("PNG", "TIFF"):
        shown = read_image(saved(Image.fromarray(values), form))
        assert np.abs(shown[1:, :, 0].astype(int) - grey[1:]).max() <= 1
        assert shown[0, 0, 0] == 255


def test_defective_pixels_do_not_darken_the_others() -> None:
    grey = np.asarray(Image.fromarray(picture()).convert("L").resize((200, 150)))
    values = np.round(grey / 255 * 1023).astype(np.uint16)
    values[0, :2] = 65535
    shown = read_image(saved(Image.fromarray(values), "PNG"))
    assert np.abs(shown[1:, :, 0].astype(int) - grey[1:]).max() <= 1
    assert (shown[0, :2] == 255).all()


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_tiff_in_ycbcr(compression: str | None) -> None:
    smooth = Image.fromarray(picture(96, 128))
    options = {} if compression is None else {"compression": compression}
    shown = read_image(saved(smooth.convert("YCbCr"), "TIFF", **options))
    assert np.abs(shown.astype(int) - np.asarray(smooth)).mean() < 2


def tiff_with_focal(compression: str | None) -> bytes:
    """A TIFF whose Exif IFD lies behind the pixels, as cameras' programs write it."""
    tifffile = pytest.importorskip("tifffile")
    content = b""
    for _ in range(2):  # the place of the Exif IFD is known when the rest is written
        file = io.BytesIO()
        # under another number, as tifffile leaves this one out
        place = (34000, "I", 1, len(content) + len(content) % 2, True)
        tifffile.imwrite(file, picture(), compression=compression, photometric="rgb", extratags=[place])
        content = file.getvalue()
    entry = struct.pack("<HHIHH", 0xA405, 3, 1, 35, 0)  # 35 mm on film
    content = content.replace(struct.pack("<HHI", 34000, 4, 1), struct.pack("<HHI", 34665, 4, 1), 1)
    return content + bytes(len(content) % 2) + struct.pack("<H", 1) + entry + bytes(4)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_focal_length_of_a_tiff(compression: str | None, tmp_path: Path) -> None:
    data = tiff_with_focal(compression)
    (tmp_path / "a.tif").write_bytes(data)
    with Image.open(tmp_path / "a.tif") as opened:
        for form in (data, tmp_path / "a.tif", opened):
            assert load_image(form).focal == pytest.approx(35 / 43.2666 * 80, rel=1e-4)
    np.testing.assert_array_equal(read_image(data), picture())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_focal_length_of_other_files(form: str) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    exif = exif_with(1, film=35.0)
    exif[0x010F] = "maker"
    data = saved(Image.fromarray(picture()), form, exif=exif)
    assert load_image(data).focal == pytest.approx(35 / 43.2666 * 80, rel=1e-4)


def deep_file(values: np.ndarray, codec: str, layout: str) -> bytes:
    """(H, W, 3) uint16 as a file of 16 bits a channel."""
    av = pytest.importorskip("av")
    frame = av.VideoFrame.from_ndarray(values, format="rgb48le").reformat(format=layout)
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = values.shape[1], values.shape[0], layout
    encoder.time_base = Fraction(1, 1)
    return b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "layout"), [("png", "rgb48be"), ("png", "rgba64be"), ("tiff", "rgb48le")])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_colours_of_a_sensor_use_the_whole_range(codec: str, layout: str, bits: int) -> None:
    wanted = np.random.default_rng(0).integers(0, 256, (12, 20, 3))
    wanted[0, 0] = 255
    values = (wanted * ((1 << bits) - 1) / 255).round().astype(np.uint16)
    found = load_image(deep_file(values, codec, layout)).pixels
    assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.slow
def test_colours_of_a_sensor_without_pyav_say_what_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    content = deep_file(np.full((4, 4, 3), 1000, np.uint16), "png", "rgb48be")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"nearly black: pip install 'multihmr\[video\]' reads them"):
        load_image(content)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_avif(orientation: int) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:20, :32], pixels[20:, 32:] = (200, 60, 40), (30, 120, 220)
    found = []
    for form in ("AVIF", "PNG"):
        exif, buffer = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(buffer, form, exif=exif, quality=95)
        found.append(load_image(buffer.getvalue()).pixels.astype(int))
    assert found[0].shape == found[1].shape
    assert np.abs(found[0] - found[1]).mean() < 8


@pytest.mark.parametrize("kind", ["mirrored", "fortran", "read-only", "masked", "every second"])
def test_arrays_in_any_memory_layout(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    array = {
        "mirrored": pixels[:, ::-1][:, ::-1],
        "fortran": np.asfortranarray(pixels),
        "read-only": np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape),
        "masked": np.ma.masked_array(pixels),
        "every second": np.repeat(pixels, 2, 0)[::2],
    }[kind]
    found = load_image(array).pixels
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(load_image(array, channels="bgr").pixels, pixels[..., ::-1])


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (480, 640), (90, 160), (333, 500)])
def test_letterboxes_are_drawn_as_pillow_draws_them(height: int, width: int) -> None:
    """To two levels, also of read-only pixels; networks that want Pillow's exact results get them."""
    import torch.nn.functional as F

    coarse = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    pixels = (smooth[0].permute(1, 2, 0) * 255).byte().numpy()
    pixels.flags.writeable = False
    for letterbox in (
        Letterbox.whole(height, width, 224),
        Letterbox.rectangle(height, width, 352, 32),
        Letterbox.official_2024(height, width, 224),
    ):
        left, top, right, bottom = letterbox.content(height, width)
        size = (right - left, bottom - top)
        (*_, x0, x1), (*_, y0, y1) = letterbox.span(width, 0), letterbox.span(height, 1)
        whole = Image.fromarray(pixels)
        expected = np.asarray(whole.resize(size, Image.Resampling.BICUBIC, (x0, y0, x1, y1)))
        drawn = letterbox.apply(pixels)[top:bottom, left:right]
        difference = np.abs(drawn.astype(int) - expected)
        assert difference.max() <= (0 if letterbox.reducing_gap is None else 2)
        assert (difference > 0).mean() < 0.02
