"""Upright sRGB of every display matrix, colour matrix, range and set of primaries."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest

from multihmr.video.frame_pixels import FrameConverter, display_matrix, primaries_to_srgb, upright
from multihmr.video.reader import open_video

av = pytest.importorskip("av")
COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "grey": (90, 90, 90)}
# (a, b, c, d): displayed x = a x + c y, displayed y = b x + d y
MATRICES = [
    (1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1),
    (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0),
]  # fmt: skip


def quarters() -> np.ndarray:
    """(48, 64, 3): red, green, blue and grey quarters, row by row."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    for (row, column), color in zip(itertools.product((0, 24), (0, 32)), COLORS.values(), strict=True):
        pixels[row : row + 24, column : column + 32] = color
    return pixels


def displayed(pixels: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Every pixel moved on its own, by the definition of ISO/IEC 14496-12, 8.3.2."""
    a, b, c, d = matrix
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width]
    new_x, new_y = a * x + c * y, b * x + d * y
    new_x, new_y = new_x - new_x.min(), new_y - new_y.min()
    result = np.zeros((new_y.max() + 1, new_x.max() + 1, 3), np.uint8)
    result[new_y, new_x] = pixels
    return result


def write_with_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(), format="rgb24")))
        container.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # version 0: 40 bytes before the matrix
    a, b, c, d = (value << 16 for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_eight_display_matrices(tmp_path, matrix):
    path = write_with_matrix(tmp_path / "film.mp4", matrix)
    pixels = next(iter(open_video(path))).image.pixels
    expected = displayed(quarters(), matrix)
    assert pixels.shape == expected.shape
    for row, column in itertools.product((0.25, 0.75), repeat=2):
        at = round(row * expected.shape[0]), round(column * expected.shape[1])
        np.testing.assert_allclose(pixels[at], expected[at], atol=8)


def test_a_matrix_between_two_ways_takes_the_nearest():
    pixels = quarters()
    np.testing.assert_array_equal(upright(pixels, np.array([[0.9, -0.3], [0.3, 0.9]])), pixels)
    np.testing.assert_array_equal(upright(pixels, None), pixels)


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("color_range", [1, 2])
def test_every_colour_matrix_and_range_gives_the_same_colours(matrix, color_range):
    frame = av.VideoFrame.from_ndarray(quarters(), format="rgb24")
    coded = frame.reformat(format="yuv444p", dst_colorspace=matrix, dst_color_range=color_range)
    coded.colorspace, coded.color_range = matrix, color_range
    pixels = FrameConverter(type("Stream", (), {"sample_aspect_ratio": None}))(coded)
    np.testing.assert_allclose(pixels.astype(int), quarters().astype(int), atol=3)


@pytest.mark.parametrize(
    ("primaries", "source", "expected"),
    [
        (9, (255, 255, 255), (255, 255, 255)),  # white stays white: the same white point
        (12, (128, 128, 128), (128, 128, 128)),
        # sRGB colours in Display P3 and in BT.2020 by the matrices printed in CSS Color 4, section 18
        (12, (187, 105, 62), (200, 100, 50)),
        (9, (171, 110, 63), (200, 100, 50)),
        (12, (89, 158, 97), (60, 160, 90)),
        (9, (108, 155, 98), (60, 160, 90)),
        (12, (255, 0, 0), (255, 0, 0)),  # outside of sRGB: clipped
    ],
)
def test_wide_gamut_becomes_srgb(primaries, source, expected):
    result = primaries_to_srgb(np.array([[source]], np.uint8), primaries)
    np.testing.assert_allclose(result[0, 0].astype(int), expected, atol=2)


def test_primaries_of_a_frame_are_converted():
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), (187, 105, 62), np.uint8), format="rgb24")
    coded = frame.reformat(format="yuv444p", dst_colorspace=1, dst_color_range=1)
    coded.colorspace, coded.color_range, coded.color_primaries = 1, 1, 12
    pixels = FrameConverter(type("Stream", (), {"sample_aspect_ratio": None}))(coded)
    np.testing.assert_allclose(pixels[20, 20].astype(int), (200, 100, 50), atol=3)


def test_linear_light_is_shown_as_srgb():
    """55 of 255 of the light is the code 128 of sRGB."""
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 55, np.uint8), format="rgb24")
    coded = frame.reformat(format="yuv444p", dst_colorspace=1, dst_color_range=2)
    coded.colorspace, coded.color_range, coded.color_trc = 1, 2, 8
    pixels = FrameConverter(type("Stream", (), {"sample_aspect_ratio": None}))(coded)
    np.testing.assert_allclose(pixels[20, 20].astype(int), 128, atol=3)


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [(0, None), (-90, [[0, -1], [1, 0]]), (90, [[0, 1], [-1, 0]]), (180, [[-1, 0], [0, -1]])],
)
def test_side_data_that_pyav_does_not_know_leaves_the_rotation(rotation, expected):
    class Frame:
        def __init__(self) -> None:
            self.rotation = rotation

        @property
        def side_data(self):
            raise ValueError("31 is not a valid Type")

    found = display_matrix(Frame())
    assert (found is None) == (expected is None)
    if expected is not None:
        np.testing.assert_array_equal(found, expected)
