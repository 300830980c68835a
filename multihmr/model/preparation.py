"""Prepares networks for prediction: device, precision, window, attention and the runtime."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch

from ..bodies.loading import float32_on_cpu
from ..networks.backbones.attention_kernels import set_attention
from ..networks.base import Network
from ..runtime.devices import (
    CPU_BACKENDS,
    backbone_dtype,
    pick_device,
    set_fast,
    set_threads,
)
from ..runtime.eager import EagerRuntime, Runtime
from ..runtime.spinning import limit_spinning_if_busy


@dataclass(frozen=True)
class PreparedNetwork:
    """A network in evaluation mode on its device, with what a `Model` is made of.

    Attributes:
        network: with weights.
        runtime: computes it in prediction.
        licence: of the weights.
    """

    network: Network
    runtime: Runtime
    licence: str


def prepare_network(
    name: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str = "auto",
    smplx: str | os.PathLike[str] | None = None,
    backend: str = "eager",
    calibrate: str | os.PathLike[str] | None = None,
    attention: str = "torch",
    image_size: int | None = None,
    padding: Literal["whole", "thin"] = "whole",
    threads: int | None = None,
) -> PreparedNetwork:
    """The network of a name or file, ready to predict; arguments and errors are those of `load_model`."""
    from ..hub.loading import load_network
    from ..networks.resize_embeddings import at_image_size, check_image_size
    from ..runtime.backends import check_backend, make_runtime, set_padding
    from ..storage.paths import cache_folder

    if attention != "torch" and backend in CPU_BACKENDS:
        raise ValueError(f"backend {backend!r} has its own attention; leave out attention={attention!r}")
    if attention != "torch" and padding != "whole":
        raise ValueError(f"padding={padding!r} is computed by torch's attention; leave out {attention!r}")
    set_threads(threads)
    target = pick_device("cpu" if device is None and backend in CPU_BACKENDS else device)
    if target.type == "cpu":
        limit_spinning_if_busy()
    precision = backbone_dtype(dtype, target)
    if backend != "eager":
        check_backend(backend, device=target.type, calibrate=calibrate)
    elif calibrate is not None:
        raise ValueError("calibrate is for backend 'openvino-int8'; leave it away with 'eager'")
    if isinstance(name, str) and name.startswith("hf:"):
        from ..hub.huggingface import fetch_checkpoint

        name = fetch_checkpoint(name.removeprefix("hf:"), smplx=smplx)
    network, licence = load_network(name, smplx=smplx)
    if image_size is not None and image_size != network.config.image_size:
        check_image_size(network, image_size)
        with float32_on_cpu():
            network = at_image_size(network, image_size)
    network.backbone.half_dtype = precision
    if dtype == "fast":
        set_fast(network.backbone, target, backend)
    set_padding(network, padding)
    network.to(target).eval()
    set_attention(
        network.backbone, attention, device=target, dtype=network.backbone.half_dtype or torch.float32
    )
    runtime: Runtime = EagerRuntime(network)
    if backend != "eager":
        runtime = make_runtime(network, backend, folder=cache_folder() / "graphs", calibrate=calibrate)
    return PreparedNetwork(network, runtime, licence)
