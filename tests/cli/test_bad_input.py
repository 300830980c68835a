"""What users do wrong, and the one sentence that they get."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multihmr.preprocessing.camera import check_intrinsics
from multihmr.preprocessing.image import read_image


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
