"""Weights and activations of 8 bits: OpenVINO's own quantisation (NNCF), calibrated on pictures.

Only the backbone gets them. What it costs is most of the network, and the numbers that become metres keep
their digits.
"""

from __future__ import annotations

import os
import random
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..networks.base import Network
from ..preprocessing.image import load_image
from .optional_imports import needed, quiet

PICTURES = 200  # at most; NNCF's own default is 300
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def check_int8(network: Network) -> None:
    """ValueError for networks on convolutions, which lose too much with 8 bits and gain nothing.

    The bundled default then moves people by 0.2 m on average (docs/speed.md).
    """
    if str(getattr(network.config, "backbone", "")).startswith("hybrid"):
        raise ValueError(
            f"8 bits are not for networks on {network.config.backbone}, as the bundled default: people move "
            "by decimetres, and backend='openvino' with dtype='fast' is faster"
        )


def quantized(
    onnx: Path, network: Network, folder: str | os.PathLike[str], *, kept: str | None = None
) -> Any:
    """The graph in `onnx`, an openvino.Model of 8 bits.

    Args:
        onnx: file with inputs "pixels" and perhaps "K".
        network: whose letterbox the pictures go through.
        folder: of pictures, see `pictures`.
        kept: a regular expression; operations with such names keep their precision.

    Raises:
        ValueError: there is no picture in the folder. ImportError: nncf is missing.
    """
    openvino, nncf = needed("openvino"), needed("nncf")
    _keep_to_ourselves(nncf)
    graph = openvino.Core().read_model(str(onnx))
    names = [value.any_name for value in graph.inputs]

    def inputs(letterbox: np.ndarray) -> dict[str, np.ndarray]:
        unknown = np.full((1, 3, 3), np.nan, np.float32)
        return {name: {"pixels": letterbox, "K": unknown}[name] for name in names}

    letterboxes = [_letterboxed(network, picture) for picture in pictures(folder)]
    scope = nncf.IgnoredScope(patterns=[kept], validate=False) if kept else None
    with warnings.catch_warnings(), quiet("nncf"):
        warnings.simplefilter("ignore")  # of NNCF to itself
        return nncf.quantize(
            graph,
            nncf.Dataset(letterboxes, inputs),
            subset_size=len(letterboxes),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=scope,
        )


def _keep_to_ourselves(nncf: Any) -> None:
    """NNCF tells its makers that it is used, unless told otherwise; not from within this package."""
    with suppress(AttributeError):
        nncf.telemetry.telemetry._impl.consent = False


def pictures(folder: str | os.PathLike[str], count: int = PICTURES) -> list[bytes]:
    """At most `count` pictures from the files and the shards (.tar) in a folder, the same ones each time.

    ValueError: there are none.
    """
    paths = sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []
    random.Random(0).shuffle(paths)
    found = list(islice((picture for path in paths for picture in _pictures(path)), count))
    if not found:
        raise ValueError(
            f"{folder} holds no pictures to calibrate with: a folder of {', '.join(sorted(SUFFIXES))} files "
            "or of shards (.tar) that `multihmr generate` writes is needed"
        )
    return found


def _pictures(path: Path) -> Iterator[bytes]:
    """The picture in a file, those in a shard, or none."""
    if path.suffix.lower() in SUFFIXES:
        yield path.read_bytes()
    elif path.suffix.lower() == ".tar":
        with tarfile.open(path) as tar:
            for member in tar:
                suffixes = Path(member.name).suffixes
                content = tar.extractfile(member)
                if len(suffixes) == 1 and suffixes[0].lower() in SUFFIXES and content:  # no masks, no depths
                    yield content.read()


def _letterboxed(network: Network, picture: bytes) -> np.ndarray:
    pixels = load_image(picture).pixels
    return torch.stack([network.letterbox(*pixels.shape[:2], square=True).to_tensor(pixels)]).numpy()
