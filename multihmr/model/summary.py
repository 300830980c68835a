"""`summary`: a model in some lines of text, for print(model)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..runtime.network_handle import NetworkHandle


def summary(model: NetworkHandle) -> str:
    """Network, backbone, input, body, runtime and licence of a model, one a line."""
    network, config, body = model.network, model.config, model.body
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    topology = body.topology
    dtype = str(network.backbone.half_dtype or torch.float32).removeprefix("torch.")
    lines = {
        "network": f"{model.family}, {count:.1f} million parameters",
        "backbone": f"{config.backbone}, {dtype}, on {model.device}",
        "input": _input_text(model),
        "body": f"{body.name}, {len(topology.joint_names)} joints, {body.shape_count} shape and "
        f"{body.expression_count} expression values",
        "not predicted": _names_text(config.unpredicted),
        "runtime": type(model.runtime).__name__,
        "licence": model.licence,
        "fingerprint": model.fingerprint,
    }
    width = max(map(len, lines))
    rows = (f"  {name:<{width}}  {value}" for name, value in lines.items())
    return "\n".join([f"{type(model).__name__}(", *rows, ")"])


def _names_text(names: Sequence[str]) -> str:
    """The names of joints and expressions, or how many there are if that would be long."""
    if not names:
        return "-"
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} joints and expressions"


def _input_text(model: NetworkHandle) -> str:
    """What the network takes, in a few words."""
    size = model.config.image_size
    if model.network.top_down:
        return f"one crop per person, {size} pixels"
    if getattr(model.config, "rectangular", False):
        return f"image without padding, longer side {size} pixels"
    return f"letterboxed image, {size} pixels"
