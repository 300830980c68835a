"""Landmark networks of hands and faces with the weights that come with the package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..bodies.loading import float32_on_cpu
from ..networks.landmarks.face import FaceLandmarks, FacialActions
from ..networks.landmarks.hand import HandLandmarks
from ..storage.atomic import atomic_path
from ..storage.paths import bundled_file
from .checkpoint import Unpacked

FILE = "hands-and-faces.safetensors"
PARTS: dict[str, Any] = {"hand": HandLandmarks, "face": FaceLandmarks, "actions": FacialActions}


class LandmarkNetworks(NamedTuple):
    """The networks that read hands and faces from crops."""

    hand: HandLandmarks
    face: FaceLandmarks
    actions: FacialActions


@cache
@float32_on_cpu()
def load_landmark_networks(device: str = "cpu") -> LandmarkNetworks:
    """The networks of MediaPipe in the package, in eval mode; loaded once per device.

    Raises:
        FileNotFoundError: the file of their weights is missing from the package.
        ValueError: it is damaged.
    """
    path = bundled_file(FILE)
    try:
        with safe_open(path, "pt") as file:
            tensors = Unpacked({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}; install multihmr again") from error
    networks: dict[str, Any] = {
        name: _filled(name, make(), tensors, path).to(device, torch.float32) for name, make in PARTS.items()
    }
    return LandmarkNetworks(**networks)


def _filled(part: str, network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    own = {key.partition(".")[2]: tensors[key].float() for key in tensors if key.startswith(f"{part}.")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"{path} has other weights than {type(network).__name__} needs: {error}") from error
    return network.eval().requires_grad_(False)


def write_landmark_weights(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write the file that `load_landmark_networks` reads: weights by part and name, packed or not."""
    header = {"origin": "MediaPipe, Google", "licence": "Apache-2.0"}
    with atomic_path(Path(path)) as draft:
        save_file({key: value.contiguous() for key, value in tensors.items()}, draft, header)
