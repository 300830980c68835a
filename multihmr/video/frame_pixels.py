"""Decoded frames to upright (H, W, 3) uint8 sRGB: display matrix, pixel aspect, colour tags."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..preprocessing.color import BT709 as SRGB_PRIMARIES
from ..preprocessing.color import CODED_PRIMARIES, convert_primaries
from .ffmpeg import pyav

# ITU-T H.273: matrices (table 4), transfer curves (table 3)
_UNKNOWN, _BT601, BT709 = 2, 5, 1
_LINEAR, _SRGB, _PQ, _HLG = 8, 13, 16, 18


class FrameConverter:
    """Makes upright (H, W, 3) uint8 sRGB with square pixels of the decoded frames of one stream.

    Colours without tags are those of BT.709 from 720 lines on and of BT.601 below, as players assume.
    """

    def __init__(self, stream: Any) -> None:
        self.aspect = stream.sample_aspect_ratio
        # one for all frames: preparing its table for HDR takes seconds, using it 15 ms (1280 x 720)
        self.reformatter = pyav().video.reformatter.VideoReformatter()

    def __call__(self, frame: Any) -> np.ndarray:
        """The pixels of a PyAV VideoFrame."""
        matrix = frame.colorspace
        if matrix == _UNKNOWN:
            matrix = BT709 if frame.height >= 720 else _BT601
        options: dict[str, Any] = {"format": "rgb24", "src_colorspace": matrix, "dst_color_range": "JPEG"}
        if self.aspect and self.aspect != 1:
            options["width"] = max(1, round(frame.width * float(self.aspect)))
        hdr = frame.color_trc in (_PQ, _HLG)
        if hdr:
            options |= {"dst_color_trc": _SRGB, "dst_color_primaries": BT709}
        primaries = int(frame.color_primaries)
        pixels = self.reformatter.reformat(frame, **options).to_ndarray()
        if not hdr and (primaries in CODED_PRIMARIES or frame.color_trc == _LINEAR):
            pixels = convert_primaries(
                pixels,
                CODED_PRIMARIES.get(primaries, SRGB_PRIMARIES),
                1.0 if frame.color_trc == _LINEAR else None,
            )
        return upright(pixels, display_matrix(frame))


def display_matrix(frame: Any) -> np.ndarray | None:
    """(2, 2) linear part of a frame's display matrix, from decoded (x, y) to displayed (x, y); None: none."""
    try:
        everything = list(frame.side_data)
    except ValueError:  # FFmpeg knows kinds of data that PyAV does not, and gives up at all
        turn = np.radians(getattr(frame, "rotation", 0))  # counterclockwise
        return np.round([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) if turn else None
    for data in everything:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data)[:36], np.int32)[:5].tolist()
            return np.array([[a, c], [b, d]], np.float64)
    return None


def upright(pixels: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Pixels (H, W, 3) rotated and mirrored by a display matrix (2, 2), to the nearest of the 8 ways."""
    if matrix is None:
        return pixels
    (a, c), (b, d) = matrix
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    if transposed:
        pixels, flip_x, flip_y = pixels.swapaxes(0, 1), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def primaries_to_srgb(pixels: np.ndarray, primaries: int) -> np.ndarray:
    """(H, W, 3) uint8 of these primaries, coded as sRGB is, -> uint8 sRGB; colours outside are clipped."""
    return convert_primaries(pixels, CODED_PRIMARIES[primaries])
