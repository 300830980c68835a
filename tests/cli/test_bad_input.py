"""What users do wrong, and the one sentence that they get."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multihmr.preprocessing.camera import check_intrinsics
from multihmr.preprocessing.image import load_image, read_image
from multihmr.storage.paths import user_path


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((200, 200), 50).convert("RGB").save(file, "JPEG")
    return file.getvalue()


FILES = {
    "text": (b"hello, I am no picture", "is no picture of a known format"),
    "empty": (b"", r"is empty \(0 bytes\)"),
    "cut short": (jpeg()[:3000], "is cut short or damaged"),
    "header only": (jpeg()[:30], "is no picture of a known format"),
    "bomb": (png(20_000, 20_000), "has more than 178 megapixels"),
    "no pixels": (png(0, 10), "is no picture|has no pixels|is cut short"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pip install pillow-heif|is no picture"),
    "web page": (
        b"<!DOCTYPE html><html>404</html>",
        "of a known format: it is a web page, perhaps the answer",
    ),
    "drawing": (b'<?xml version="1.0"?><svg width="9"/>', r"a drawing \(SVG\); save it as PNG"),
    "pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "`git lfs pull`"),
    "PDF": (b"%PDF-1.7\n", "a PDF document; save its page as"),
    "Photoshop": (b"8BPS\0\1", "a Photoshop document, which is not read"),
    "JPEG XL": (b"\xff\x0a" + bytes(99), "JPEG XL, which is not read; save it as PNG or JPEG"),
    "camera raw": (b"II*\0\x10\0\0\0CR\x02\0" + bytes(99), "camera raw data, which is not read"),
    "other TIFF": (b"MM\0*" + bytes(99), "TIFF of an unknown kind, as camera raw or colours of 32 bits"),
    "archive": (b"PK\3\4" + bytes(99), "an archive or compressed; unpack it first"),
    "array": (b"\x93NUMPY\1\0", r"a NumPy array; give np\.load\(path\)"),
    "video": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "a video; `multihmr video` and predict_video read"),
    "zeros": (bytes(5000), "full of zeros, as after a copy that was cut short"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "is no picture of a known format"),
}


@pytest.mark.parametrize("kind", FILES)
def test_bad_files(kind: str, tmp_path: Path) -> None:
    data, sentence = FILES[kind]
    (tmp_path / "x.jpg").write_bytes(data)
    for form in (tmp_path / "x.jpg", data):
        with pytest.raises((ValueError, ImportError), match=sentence) as caught:
            read_image(form)
        assert "\n" not in str(caught.value)
    with pytest.raises((ValueError, ImportError), match=r"x\.jpg"):
        read_image(tmp_path / "x.jpg")


def test_folders_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"ftypisom")
    with pytest.raises(ValueError, match=r"film\.mp4 is a video; predict_video\("):
        read_image(tmp_path / "film.mp4")
    with pytest.raises(IsADirectoryError, match=r"is a folder; predict_many\("):
        read_image(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_image(tmp_path / "nobody.jpg")
    (tmp_path / "link.jpg").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=r"link\.jpg does not exist: it is a link to nowhere"):
        read_image(tmp_path / "link.jpg")
    with pytest.raises(ValueError, match="an empty name is no image"):
        read_image("")


@pytest.mark.parametrize("address", ["s3://bucket/a.jpg", "ftp://host/a.jpg", Path("gs://bucket/a.jpg")])
def test_addresses_of_other_kinds_keep_their_slashes(address: str | Path) -> None:
    whole = str(address).replace(":/", "://").replace(":///", "://")
    with pytest.raises(
        ValueError, match=f"^{whole} cannot be read: addresses may be http, https and file; download"
    ):
        read_image(address)


def test_files_by_address_by_home_folder_and_through_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = tmp_path / "a b ü.png"
    Image.effect_noise((9, 7), 50).convert("RGB").save(path)
    expected = read_image(path)
    for form in (
        path.as_uri(),
        "~/a b ü.png",
        Path("~/a b ü.png"),
        path.as_uri().replace("///", "//localhost/"),
    ):
        np.testing.assert_array_equal(read_image(form), expected)
    assert user_path("~nobody-of-that-name/a.png") == Path("~nobody-of-that-name/a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_pipe_is_read_as_a_file(tmp_path: Path) -> None:
    """As `<(...)` in a shell."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(jpeg(),))
    writer.start()
    assert read_image(tmp_path / "pipe").shape == (200, 200, 3)
    writer.join()


def test_a_file_that_was_read_before_says_so() -> None:
    file = io.BytesIO(jpeg())
    assert read_image(file).shape == (200, 200, 3)
    with pytest.raises(ValueError, match=r"has been read to its end; go back with \.seek\(0\)"):
        read_image(file)


def test_tensors_of_grey_and_of_colours_with_opacity_are_those_of_arrays() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    for array in (rgba, rgba[..., :3], rgba[..., :1]):
        tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
        np.testing.assert_array_equal(read_image(tensor), read_image(array))
        np.testing.assert_array_equal(read_image(tensor / 255), read_image(array))
        np.testing.assert_array_equal(read_image(tensor.to_sparse()), read_image(array))
        bgr = load_image(tensor, channels="bgr").pixels
        np.testing.assert_array_equal(bgr, load_image(array, channels="bgr").pixels)
    np.testing.assert_array_equal(read_image(torch.from_numpy(rgba[..., 0].copy())), read_image(rgba[..., 0]))


def test_advice_for_arrays_is_right() -> None:
    with pytest.raises(ValueError, match=r"\(8, 8, 3\); convert with \.astype\(np\.uint8\)$"):
        read_image(np.full((8, 8, 3), 200.0))
    with pytest.raises(ValueError, match=r"multiply by 255 and convert with \.astype"):
        read_image(np.ones((8, 8, 3), bool))
    with pytest.raises(ValueError, match=r"\(1,\); give paths one by one, or to predict_batch as a list"):
        read_image(np.array(["a.jpg"]))


def test_the_bomb_is_never_allocated() -> None:
    lazy = Image.new("RGB", (1, 1))
    lazy._size = (20_000, 20_000)
    with pytest.raises(ValueError, match=r"has 400 megapixels \(20000x20000\); at most 178"):
        read_image(lazy)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((3, 720, 1280), np.float32), "multiply by 255 and .* move channels last"),
        (np.zeros((72, 128, 3), np.float32), r"\(H, W, 3\) uint8 or a path, got float32 \(72, 128, 3\)"),
        (np.zeros((72, 128, 5), np.uint8), r"must be \(H, W, 3\) uint8"),
        (np.zeros((72, 128, 2), np.uint8), r"got uint8 \(72, 128, 2\)"),
        (np.zeros((2, 72, 128, 3), np.uint8), "predict_batch"),
        (np.zeros((72, 128, 3), np.uint16), "divide by 257"),
        (np.zeros((0, 0, 3), np.uint8), "no pixels"),
        (torch.zeros(72, 128, 3, dtype=torch.uint8), r"\.permute\(2, 0, 1\)"),
        (torch.zeros(3, 72, 128, dtype=torch.int64), "convert to uint8"),
        (torch.full((3, 72, 128), 255.0), "divide by 255"),
        (torch.full((3, 72, 128), float("nan")), "NaN or infinite pixels"),
        (torch.zeros(3, 0, 0), "no pixels"),
        (torch.zeros(3, 8, 8, device="meta"), "a tensor without data, on the device meta"),
        (torch.zeros(2, 8, 8), r"must be \(3, H, W\)"),
        (Image.new("RGB", (0, 0)), "no pixels"),
        (Image.new("F", (8, 8)), "32-bit float"),
        (Image.new("I", (8, 8), -5), "32-bit pixels"),
        (io.StringIO("hello"), "opened as text"),
        ([np.zeros((8, 8, 3), np.uint8)], "predict_batch"),
        (None, "got NoneType"),
    ],
)
def test_wrong_forms(image: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_image(image)


GOOD = np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]])


def changed(row: int, column: int, value: float) -> np.ndarray:
    K = GOOD.copy()
    K[row, column] = value
    return K


@pytest.mark.parametrize(
    ("K", "sentence"),
    [
        (np.eye(4), r"K must be \(3, 3\).*got \(4, 4\)"),
        ("camera", "array of numbers"),
        (changed(0, 0, np.nan), "not finite"),
        (changed(0, 0, 0), "cannot be inverted"),
        (changed(1, 1, -800), "must be positive"),
        (GOOD.T, "is it transposed"),
        (changed(2, 2, 2), r"K must be \[\[fx"),
        (changed(0, 2, 2048), r"principal point \(2048, 240\) outside the 640x480 image"),
        ([[1.2, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]], "must be in pixels"),
    ],
)
def test_wrong_intrinsics(K: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_intrinsics(K, 480, 640)
