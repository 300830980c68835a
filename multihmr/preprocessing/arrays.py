"""Images that come as arrays and tensors: checked, and brought into (H, W, 3) uint8 RGB."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .types import ChannelOrder


def check_channels(channels: str) -> None:
    """ValueError: the order of channels is neither "rgb" nor "bgr"."""
    if channels not in ("rgb", "bgr"):
        raise ValueError(
            f"channels is the order of colours in arrays and tensors, 'rgb' or 'bgr', got {channels!r}"
        )


def array_to_pixels(image: np.ndarray, channels: ChannelOrder = "rgb") -> np.ndarray:
    """Pixels of an array.

    Args:
        image: uint8, (H, W, 3), (H, W, 4) with alpha last, (H, W) or (H, W, 1) grey.
        channels: the order of the first three.

    Returns:
        (H, W, 3) uint8 RGB; transparency over white. The same array where nothing has to change.

    Raises:
        ValueError: it has another type or shape; the message tells how to convert it.
    """
    image = np.asarray(image)  # of matrices, masked arrays and the like the plain values
    shape = image.shape
    flat = image[..., 0] if image.ndim == 3 and shape[2] == 1 else image
    if image.dtype != np.uint8 or not (flat.ndim == 2 or (flat.ndim == 3 and shape[2] in (3, 4))):
        raise ValueError(_wrong_form("(H, W, 3) uint8 or a path", image.dtype, shape, _array_cures(image)))
    if 0 in shape:
        raise ValueError(f"image has no pixels, got {shape}")
    if flat.ndim == 2:
        return np.repeat(flat[..., None], 3, axis=2)
    colours = flat[..., :3]
    if shape[2] == 4:
        colours = over_white(colours, flat[..., 3])
    return np.ascontiguousarray(colours[..., ::-1]) if channels == "bgr" else colours


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with (H, W) opacity 0 to 255 -> (H, W, 3) uint8 in front of white."""
    image = Image.fromarray(np.dstack([colours, alpha]))  # by Pillow, as for files: to the same pixel
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


def _array_cures(image: np.ndarray) -> list[str]:
    shape, cures = image.shape, []
    if image.dtype.kind in "USO" and image.ndim == 1:
        return ["give paths one by one, or to predict_batch as a list"]
    if image.dtype == bool or (image.dtype.kind == "f" and image.size and not image.max() > 1):
        cures.append("multiply by 255")
    elif image.dtype == np.uint16:
        cures.append("divide by 257")
    if image.dtype != np.uint8 and image.dtype.kind in "biufO":
        cures.append("convert with .astype(np.uint8)")
    if image.ndim == 3 and shape[0] == 3:
        cures.append("move channels last")
    elif image.ndim == 4:
        cures.append("give the images one by one, or to predict_batch")
    return cures


def tensor_to_pixels(image: Tensor, channels: ChannelOrder = "rgb") -> np.ndarray:
    """Pixels of a tensor.

    Args:
        image: (3, H, W), (4, H, W) with alpha last, (1, H, W) or (H, W) grey, as `torchvision.io` reads
            them; uint8 or float in [0, 1], on any device.
        channels: the order of the first three.

    Returns:
        (H, W, 3) uint8 RGB; transparency over white.

    Raises:
        ValueError: it has another type, shape or range; the message tells how to convert it.
    """
    shape = tuple(image.shape)
    float_or_byte = image.is_floating_point() or image.dtype == torch.uint8
    fits = image.ndim == 2 or (image.ndim == 3 and shape[0] in (1, 3, 4))
    if not fits or not float_or_byte:
        cures = [] if float_or_byte else ["convert to uint8"]
        if image.ndim == 3 and shape[2] == 3:
            cures.append("move channels first with .permute(2, 0, 1)")
        elif image.ndim == 4:
            cures.append("give the images one by one, or to predict_batch")
        dtype = str(image.dtype).removeprefix("torch.")
        raise ValueError(_wrong_form("(3, H, W), uint8 or float in [0, 1], as a tensor", dtype, shape, cures))
    if 0 in shape:
        raise ValueError(f"image has no pixels, got {shape}")
    if image.is_meta:
        raise ValueError("image is a tensor without data, on the device meta")
    image = image.detach().to_dense().cpu()
    if image.is_floating_point():
        image = image.float()
        if not image.isfinite().all():
            raise ValueError("image contains NaN or infinite pixels")
        low, high = float(image.min()), float(image.max())
        if low < -1e-3 or high > 1 + 1e-3:
            raise ValueError(
                f"image must be in [0, 1] as a float tensor, got {low:.3g} to {high:.3g}; divide by 255 "
                "or undo the normalisation"
            )
        image = image.clamp(0, 1).mul(255).round().to(torch.uint8)
    pixels = image.numpy() if image.ndim == 2 else image.permute(1, 2, 0).numpy()
    return np.ascontiguousarray(array_to_pixels(pixels, channels))


def _wrong_form(expected: str, dtype: object, shape: tuple[int, ...], cures: list[str]) -> str:
    cure = "; " + " and ".join(cures) if cures else ""
    return f"image must be {expected}, got {dtype} {shape}{cure}"
