"""What a `Model` passes on to the network that it holds, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..bodies.base import Body
from ..networks.backbones.base import Backbone
from ..networks.base import Network
from ..storage.fingerprint import fingerprint


class NetworkHandle:
    """Base class of what holds a `network`: its facts and tensors, named as in torch."""

    network: Network

    @property
    def family(self) -> str:
        """Name of the network's architecture in `networks.registry.FAMILIES`."""
        return self.network.family

    @property
    def config(self) -> Any:
        """Everything that rebuilds the network around its weights: a frozen dataclass."""
        return self.network.config

    @property
    def body(self) -> Body:
        """The parametric body that the network drives."""
        return self.network.body

    @property
    def backbone(self) -> Backbone:
        """The network's image features."""
        return self.network.backbone

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.network.device

    @property
    def training(self) -> bool:
        """Whether the network is in training mode."""
        return self.network.training

    def parameters(self, recurse: bool = True) -> Iterator[torch.nn.Parameter]:
        """The learned tensors of the network."""
        return self.network.parameters(recurse)

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The learned tensors of the network and their names, which are those of the checkpoint."""
        return self.network.named_parameters()

    def buffers(self) -> Iterator[Tensor]:
        """The tensors of the network that are not learned."""
        return self.network.buffers()

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of the network by name, as in the checkpoint."""
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Tensor], strict: bool = True) -> Any:
        """Give the network these tensors, as torch.nn.Module.load_state_dict."""
        return self.network.load_state_dict(state, strict=strict)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the weights and the config."""
        return fingerprint(self.network)
