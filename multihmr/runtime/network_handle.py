"""`NetworkHandle`: what a `Model` passes on to its network: facts, tensors, modes, device, precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..bodies.base import Body
from ..networks.backbones.base import Backbone
from ..networks.base import Network
from ..storage.fingerprint import fingerprint
from .devices import backbone_dtype
from .eager import Runtime

Handle = TypeVar("Handle", bound="NetworkHandle")


class NetworkHandle:
    """Base class of `Model`: properties and methods of its `network`, named as in torch.nn.Module."""

    network: Network
    runtime: Runtime
    licence: str

    @property
    def family(self) -> str:
        """Name of the network's architecture in `networks.registry.FAMILIES`."""
        return self.network.family

    @property
    def config(self) -> Any:
        """Architecture of the network: a frozen dataclass of networks.configs."""
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
        """The learned tensors of the network.

        Args:
            recurse: those of its parts, too.

        Examples:
            >>> sum(parameter.numel() for parameter in model.parameters()) > 1_000_000
            True
        """
        return self.network.parameters(recurse)

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The learned tensors of the network and their names, which are those of the checkpoint.

        Examples:
            >>> all(name in model.state_dict() for name, _ in model.named_parameters())
            True
        """
        return self.network.named_parameters()

    def buffers(self) -> Iterator[Tensor]:
        """The tensors of the network that are not learned.

        Examples:
            >>> any(buffer.requires_grad for buffer in model.buffers())
            False
        """
        return self.network.buffers()

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of the network by name, as in the checkpoint.

        Examples:
            >>> missing, unexpected = model.load_state_dict(model.state_dict())
            >>> missing, unexpected
            ([], [])
        """
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Tensor], strict: bool = True) -> Any:
        """Give the network these tensors, as torch.nn.Module.load_state_dict.

        Args:
            state: by name, as `state_dict` gives them.
            strict: raise for names that are missing or unknown.

        Returns:
            (missing names, unknown names).

        Raises:
            RuntimeError: a shape differs; or, if `strict`, a name is missing or unknown.

        Examples:
            >>> model.load_state_dict({}, strict=False).unexpected_keys
            []
        """
        return self.network.load_state_dict(state, strict=strict)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the weights and the config."""
        return fingerprint(self.network)

    # Modes, device and precision, as of torch.nn.Module

    def requires_grad_(self: Handle, requires_grad: bool = True) -> Handle:
        """Set whether gradients of the network's parameters are computed.

        Args:
            requires_grad: False freezes the network.

        Examples:
            >>> model.requires_grad_(False) is model
            True
            >>> any(parameter.requires_grad for parameter in model.parameters())
            False
        """
        self.network.requires_grad_(requires_grad)
        return self

    def train(self: Handle, mode: bool = True) -> Handle:
        """Set the network to training mode, or with False to evaluation mode.

        Args:
            mode: True for training.

        Examples:
            >>> model.train().training, model.train(False).training
            (True, False)
        """
        self.network.train(mode)
        return self

    def eval(self: Handle) -> Handle:
        """Set the network to evaluation mode.

        Examples:
            >>> model.eval().training
            False
        """
        return self.train(False)

    def to(self: Handle, device: str | torch.device) -> Handle:
        """Move the network to a device.

        Args:
            device: "cpu", "cuda", "cuda:1", "mps" or a torch.device; a torch.dtype sets the precision of
                the backbone instead, as `half` does.

        Raises:
            ValueError: the model computes with load_model(backend=...), which is bound to the device that it
                was loaded for.
            RuntimeError: there is no such device.

        Examples:
            >>> model.to("cpu").device
            device(type='cpu')
        """
        if isinstance(device, torch.dtype):
            return self._set_dtype(device)
        target = torch.device(device)
        moves = target.type != self.device.type or target.index not in (None, self.device.index)
        if moves and getattr(self.runtime, "network", None) is not self.network:
            raise ValueError(
                f"this model was loaded with a backend for {self.device}; "
                f"load it again with device='{target}'"
            )
        self.network.to(target)
        return self

    def cpu(self: Handle) -> Handle:
        """Move the network to the CPU.

        Examples:
            >>> model.cpu().device.type
            'cpu'
        """
        return self.to("cpu")

    def cuda(self: Handle, index: int | None = None) -> Handle:
        """Move the network to an NVIDIA GPU.

        Args:
            index: of the GPU; None takes the current one.

        Examples:
            >>> import torch
            >>> device = model.cuda().device if torch.cuda.is_available() else model.device
            >>> model.cpu() is model
            True
        """
        return self.to("cuda" if index is None else f"cuda:{index}")

    def half(self: Handle) -> Handle:
        """Compute the backbone with 16 bits: float16, on a CPU bfloat16. Weights and metres stay float32.

        Raises:
            ValueError: the model was loaded with a backend.

        Examples:
            >>> model.half().predict("street.jpg").vertices.dtype
            dtype('float32')
            >>> model.float() is model
            True
        """
        return self._set_dtype(torch.bfloat16 if self.device.type == "cpu" else torch.float16)

    def bfloat16(self: Handle) -> Handle:
        """Compute the backbone in bfloat16. Weights and metres stay float32.

        Raises:
            ValueError: the model was loaded with a backend.

        Examples:
            >>> model.bfloat16().backbone.half_dtype
            torch.bfloat16
            >>> model.float() is model
            True
        """
        return self._set_dtype(torch.bfloat16)

    def float(self: Handle) -> Handle:
        """Compute all in float32.

        Raises:
            ValueError: the model was loaded with a backend.

        Examples:
            >>> model.float().backbone.half_dtype is None
            True
        """
        return self._set_dtype(torch.float32)

    def _set_dtype(self: Handle, dtype: torch.dtype) -> Handle:
        if getattr(self.runtime, "network", None) is not self.network:
            raise ValueError("this model was loaded with a backend; load it again with dtype=...")
        self.backbone.half_dtype = backbone_dtype(dtype, self.device)
        return self
