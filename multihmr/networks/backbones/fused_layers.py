"""Layers of inference on a CPU: with their activation one operation of oneDNN, on weights reordered once.

Torch's own operations reorder the weights of a convolution in each call, compute 1 x 1 convolutions on one
thread in another way than on several, which changes the last bits of results, and write the numbers before
the activation to memory. Here the number of threads changes no bit, and there are fewer operations after
which threads wait for each other. The operations are those that torch.compile calls. Where gradients are
computed, in training mode, in other precisions and while a graph is traced, layers are torch's.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

Activation = Literal["none", "relu", "relu6", "gelu"]
# activation -> name, numbers and algorithm, as oneDNN's operations in torch take them
_FUSED: dict[Activation, tuple[str, list[float], str]] = {
    "none": ("none", [], ""),
    "relu": ("relu", [], ""),
    "relu6": ("hardtanh", [0.0, 6.0], ""),
    "gelu": ("gelu", [], "none"),
}


class _Packed(NamedTuple):
    """Weights in oneDNN's orders, and which weights they were made of.

    The best order depends on the shape of the input: in that of another shape oneDNN would reorder the
    weights in each call, which takes as long as the layers themselves. Few orders serve all shapes.
    """

    source: weakref.ref[Tensor]
    version: int
    address: int
    by_shape: dict[tuple[int, ...], Tensor]
    by_order: dict[bytes, Tensor]


_packed: dict[int, _Packed] = {}  # by the id of the weights
MOST_SHAPES = 256  # of inputs, whose orders are remembered for each layer


def convolve(
    layer: nn.Conv2d, x: Tensor, activation: Activation = "none", *, plus: Tensor | None = None
) -> Tensor:
    """The convolution of `layer`, then the activation or the sum with `plus`.

    The layer pads its input as its method `padded` does, where it has one.
    """
    if not fusible(layer, x):
        y = _activated(layer(x), activation)
        return y if plus is None else plus + y
    padded: Any = getattr(layer, "padded", None)
    return _convolved(layer, x if padded is None else padded(x), activation, plus)


def expand_and_convolve(expand: nn.Conv2d, depthwise: Any, x: Tensor) -> Tensor:
    """A 1 x 1 convolution to many channels and a depthwise convolution, each with ReLU6.

    Where the second pads its input, the few channels are padded instead of the many. depthwise: has `padded`
    and `clear_padding`.
    """
    if depthwise.stride[0] == 1 or not fusible(expand, x):
        return convolve(depthwise, convolve(expand, x, "relu6"), "relu6")
    y = _convolved(expand, depthwise.padded(x), "relu6")
    depthwise.clear_padding(y)
    return _convolved(depthwise, y, "relu6")


def _convolved(
    layer: nn.Conv2d, x: Tensor, activation: Activation = "none", plus: Tensor | None = None
) -> Tensor:
    where = layer.padding, layer.stride, layer.dilation, layer.groups
    operations: Any = torch.ops.mkldnn
    weight = _reordered(
        layer.weight, x.shape, lambda: operations._reorder_convolution_weight(layer.weight, *where, x.shape)
    )
    rest = weight, layer.bias, *where
    y: Tensor
    if plus is not None:
        assert activation == "none"
        y = operations._convolution_pointwise.binary(x, plus, *rest, "add", None, None, [], None)
    else:
        y = operations._convolution_pointwise.default(x, *rest, *_FUSED[activation])
    return y


def linear(layer: nn.Linear, x: Tensor, activation: Activation = "none") -> Tensor:
    """The linear layer, then the activation."""
    if not fusible(layer, x):
        return _activated(layer(x), activation)
    rows = x.numel() // x.shape[-1]
    weight = _reordered(
        layer.weight, (rows,), lambda: torch.ops.mkldnn._reorder_linear_weight(layer.weight, rows)
    )
    y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, layer.bias, *_FUSED[activation])
    return y


def fusible(layer: nn.Conv2d | nn.Linear, x: Tensor) -> bool:
    """Whether it is inference in float32 on a CPU. This is asked a hundred times in each prediction."""
    weight = layer.weight
    return (
        not (layer.training or torch.is_grad_enabled())
        and x.is_cpu
        and weight.is_cpu
        and x.dtype is torch.float32
        and weight.dtype is torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        and _get_current_dispatch_mode() is None  # what counts or replaces operations knows torch's
        and _has_onednn()
    )


@cache
def _has_onednn() -> bool:
    """Whether torch has these operations, on a processor for which they were measured."""
    names = "convolution_pointwise", "reorder_convolution_weight", "linear_pointwise", "reorder_linear_weight"
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and all(hasattr(torch.ops.mkldnn, f"_{name}") for name in names)
    )


def _current(known: _Packed, weight: Tensor) -> bool:
    """Whether the weights are those that were packed, unchanged."""
    return (
        known.source() is weight and known.address == weight.data_ptr() and known.version == _version(weight)
    )


def _reordered(weight: Tensor, shape: tuple[int, ...], reorder: Callable[[], Tensor]) -> Tensor:
    """The weights in the order for inputs of this shape, which are kept."""
    known = _packed.get(id(weight))
    if known is None or not _current(known, weight):
        known = _pack(weight)
    found = known.by_shape.get(shape)
    if found is None:
        made = reorder()
        found = known.by_order.setdefault(_order_of(made), made)
        if len(known.by_shape) >= MOST_SHAPES:
            known.by_shape.clear()
        known.by_shape[shape] = found
    return found


def _order_of(reordered: Tensor) -> bytes:
    """What tells oneDNN's orders apart; the same for all in versions of torch that do not say."""
    describe = getattr(torch.ops.mkldnn, "_get_mkldnn_serialized_md", None)
    return b"" if describe is None else bytes(describe(reordered).numpy().tobytes())


def _pack(weight: Tensor) -> _Packed:
    """A place for the reordered weights until the weights themselves are gone."""
    key = id(weight)
    source = weakref.ref(weight, lambda _: _packed.pop(key, None))
    _packed[key] = _Packed(source, _version(weight), weight.data_ptr(), {}, {})
    return _packed[key]


def _version(weight: Tensor) -> int:
    return -1 if weight.is_inference() else weight._version


def _activated(x: Tensor, activation: Activation) -> Tensor:
    if activation == "relu6":
        # In place saves memory in training; while a graph is traced torch would take long to undo it.
        return F.relu6(x, inplace=not torch.compiler.is_compiling())
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x) if activation == "gelu" else x
