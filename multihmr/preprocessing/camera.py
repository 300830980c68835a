"""Camera intrinsics of an image: a given K, the focal length in EXIF, or a field of view."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..geometry import default_intrinsics
from .types import IntrinsicsLike

_FOCAL_MM, _FOCAL_35MM = 0x920A, 0xA405
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_PLANE_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_FILM_DIAGONAL_MM = math.hypot(36, 24)


def exif_focal(exif: Mapping[int, Any], height: int, width: int) -> float | None:
    """Focal length in pixels by the tags of an image's Exif IFD.

    FocalLengthIn35mmFilm counts against the diagonal of the film, 43.27 mm, as CIPA DCG-001 defines it;
    else FocalLength with FocalPlaneXResolution. Sizes are compared as (longer, shorter), so a turn does not
    matter. A file that was resized since the shot is followed; one that was cropped (its sides have another
    ratio than those that EXIF names) tells nothing any more.

    Args:
        exif: tags by number.
        height: of the image as it is, in pixels.
        width: of the image as it is, in pixels.

    Returns:
        The focal length; None if the tags do not tell it, or tell nonsense.
    """
    longer, shorter = max(height, width), min(height, width)
    shot = sorted([_number(exif, _PIXEL_WIDTH), _number(exif, _PIXEL_HEIGHT)])
    known_size = shot[0] > 0
    if known_size and abs(shot[1] * shorter - shot[0] * longer) > 0.02 * shot[1] * shorter + shot[1]:
        return None
    film, lens = _number(exif, _FOCAL_35MM), _number(exif, _FOCAL_MM)
    resolution = _number(exif, _PLANE_RESOLUTION)
    if film > 0:
        focal = film / _FILM_DIAGONAL_MM * math.hypot(height, width)
    elif lens > 0 and resolution > 0:
        unit_mm = _UNIT_MM.get(int(_number(exif, _PLANE_UNIT) or 2), 25.4)
        focal = lens * resolution / unit_mm * (longer / shot[1] if known_size else 1.0)
    else:
        return None
    # 136 to 1 degrees over the longer side: beyond that the tag is wrong, not the lens
    return focal if 0.2 * longer < focal < 50 * longer else None


def check_fov(fov: float) -> float:
    """A field of view in degrees as a float; ValueError if it is no number between 1 and 179."""
    wanted = "fov is the field of view in degrees over the longer side, a number between 1 and 179"
    if isinstance(fov, (bool, str, bytes)):
        raise ValueError(f"{wanted}, got {fov!r}")
    try:
        value = float(fov)
    except (TypeError, ValueError):
        raise ValueError(f"{wanted}, got {type(fov).__name__}") from None
    if not 1 < value < 179:
        raise ValueError(f"{wanted}, got {fov}")
    return value


def check_intrinsics(K: IntrinsicsLike, height: int, width: int) -> np.ndarray:
    """Check that K can be the camera of a `height` x `width` image.

    Args:
        K: (3, 3) in pixels.
        height: of the image in pixels.
        width: of the image in pixels.

    Returns:
        (3, 3) float32.

    Raises:
        ValueError: it cannot; the message tells why.
    """
    if isinstance(K, Tensor):
        K = K.detach().cpu().numpy()
    try:
        if np.iscomplexobj(K):
            raise TypeError
        K = np.asarray(K, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            "K must be a (3, 3) array of numbers: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]"
        ) from None
    if K.shape != (3, 3):
        raise ValueError(f"K must be (3, 3): [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]; got {K.shape}")
    if not np.isfinite(K).all():
        raise ValueError("K contains numbers that are not finite")
    if np.abs(K[2] - (0, 0, 1)).max() > 1e-6 or K[1, 0] != 0:
        raise ValueError(
            f"K must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]]; got {K.tolist()}; is it transposed?"
        )
    focal = min(K[0, 0], K[1, 1])
    if focal <= 0:
        raise ValueError(
            f"K has a focal length of {focal:g}, so it cannot be inverted or mirrors the image; "
            "both must be positive pixels"
        )
    if focal < 0.02 * max(height, width):
        raise ValueError(
            f"K has a focal length of {focal:g} pixels, too short for the {width}x{height} image; "
            "K must be in pixels, not in shares of the image"
        )
    if not (0 <= K[0, 2] <= width and 0 <= K[1, 2] <= height):
        raise ValueError(
            f"K has its principal point ({K[0, 2]:g}, {K[1, 2]:g}) outside the {width}x{height} image; "
            "K must belong to the image as given"
        )
    return K.astype(np.float32)


def _warn_of_another_size(K: np.ndarray, height: int, width: int) -> None:
    """UserWarning where K is centred in an image of other sides: of another scale, or turned by 90 degrees.

    It may be right all the same, in a crop.
    """
    share = K[:2, 2] / (width / 2, height / 2)
    turned = K[:2, 2] / (height / 2, width / 2)
    if abs(share[0] - share[1]) < 0.02 * share[0] and abs(share[0] - 1) > 0.2:
        size = f"{2 * K[0, 2]:.0f}x{2 * K[1, 2]:.0f}"
    elif np.abs(turned - 1).max() < 0.02 and np.abs(share - 1).max() > 0.2:
        size = f"{height}x{width}"
    else:
        return
    warnings.warn(
        f"the principal point of K ({K[0, 2]:g}, {K[1, 2]:g}) is the centre of a {size} image, but this "
        f"one is {width}x{height}; K must be scaled or turned with the image",
        stacklevel=2,
    )


def _number(exif: Mapping[int, Any], tag: int) -> float:
    """A tag as a finite number; 0, which EXIF uses for "unknown", where it is anything else."""
    try:
        value = float(exif.get(tag, 0))
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return value if math.isfinite(value) else 0.0


def resolve_camera(
    height: int,
    width: int,
    K: IntrinsicsLike | None = None,
    *,
    fov: float | None = None,
    exif_focal: float | None = None,
) -> tuple[Tensor | None, str]:
    """Choose the camera of an image: `K`, else `fov`, else the focal length from EXIF, else the network's.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        K: (3, 3) intrinsics in pixels of the image.
        fov: field of view over the longer side [degrees].
        exif_focal: focal length [pixels].

    Returns:
        (3, 3) intrinsics in pixels of the image and their `K_source`; (None, "predicted") leaves the camera
        to the network.

    Raises:
        ValueError: K cannot belong to the image, or `fov` is no such angle.
    """
    if K is not None:
        checked = check_intrinsics(K, height, width)
        _warn_of_another_size(checked, height, width)
        return torch.from_numpy(checked), "given"
    if fov is not None:
        return default_intrinsics(height, width, check_fov(fov)), "given"
    if exif_focal is not None:
        camera = default_intrinsics(height, width)
        camera[0, 0] = camera[1, 1] = exif_focal
        return camera, "exif"
    return None, "predicted"
