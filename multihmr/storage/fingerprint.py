"""Fingerprints of models: which weights and config a stored result belongs to."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn


def fingerprint(model: Any) -> str:
    """16 hexadecimal digits that change with the weights and the config of a network.

    model: a Network or a Model; of anything else only its `config` counts.
    """
    network = getattr(model, "network", model)
    digest = hashlib.sha256(repr(getattr(network, "config", None)).encode())
    state = network.state_dict() if isinstance(network, nn.Module) else {}
    for name, tensor in sorted(state.items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(name.encode() + content.numpy().tobytes())
    return digest.hexdigest()[:16]
