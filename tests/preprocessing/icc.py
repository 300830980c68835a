"""Small ICC profiles, written from the specification (ICC.1:2010): matrix, grey and printing ones."""

from __future__ import annotations

import struct

import numpy as np

# columns: red, green, blue in XYZ, adapted to D50
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
DISPLAY_P3 = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
D50 = (0.9642, 1.0, 0.8249)


def srgb_to_linear(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def in_profile(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """sRGB pixels (H, W, 3) uint8 as a file of another matrix profile with sRGB's curve stores them."""
    linear = srgb_to_linear(pixels / 255) @ (np.linalg.inv(matrix) @ SRGB).T
    return np.round(255 * linear_to_srgb(linear)).astype(np.uint8)


def rgb_profile(matrix: np.ndarray, gamma: float | None = None) -> bytes:
    """A monitor's profile with these colorants, and sRGB's curve or a power."""
    curve = _srgb_curve() if gamma is None else _power(gamma)
    tags = {b"wtpt": _xyz(D50), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    tags |= {name: _xyz(matrix[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _xyz(D50), b"kTRC": _power(gamma)})


def cmyk_profile(lightness: float = 1.0) -> bytes:
    """A printer whose paper has this lightness (of 1), black ink and colours that change lightness alone."""
    lab = []
    for corner in np.ndindex(2, 2, 2, 2):  # the last channel varies fastest
        ink = min(1.0, sum(corner))
        lab += [round(255 * lightness * (1 - ink)), 128, 128]
    identity = np.arange(256, dtype=np.uint8).tobytes()
    matrix = b"".join(_s15(x) for x in np.eye(3).ravel())
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + bytes(lab) + identity * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _xyz(D50), b"A2B0": lut})


def _s15(x: float) -> bytes:
    return struct.pack(">i", round(x * 65536))


def _xyz(values: object) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(_s15(float(x)) for x in np.asarray(values, float))


def _power(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def _srgb_curve() -> bytes:
    table = np.round(65535 * srgb_to_linear(np.linspace(0, 1, 1024))).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", len(table)) + table.tobytes()


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"a profile of the tests\0"
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78), **tags}
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0"
    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content
    head = (
        struct.pack(">II", offset + len(data), 0) + struct.pack(">I", 0x02400000) + kind + space + connection
    )
    head += bytes(12) + b"acsp" + bytes(28) + b"".join(_s15(x) for x in D50)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + data
