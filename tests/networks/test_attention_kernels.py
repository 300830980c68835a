"""xformers' attention in ViT backbones: by a stand-in with its layout, and by itself if installed."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from multihmr.model import load_model
from multihmr.networks.backbones.attention_kernels import set_attention
from multihmr.networks.backbones.dinov2 import Size, VisionTransformer
from multihmr.networks.backbones.hybrid import Block

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


@pytest.fixture
def xformers(monkeypatch) -> list[tuple[int, ...]]:
    """A stand-in for the package; the shapes that its attention was called with."""
    shapes: list[tuple[int, ...]] = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(q.shape))
        return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    install(monkeypatch, attend)
    return shapes


def install(monkeypatch: pytest.MonkeyPatch, attend: Any) -> None:
    package, operators = ModuleType("xformers"), ModuleType("xformers.ops")
    operators.memory_efficient_attention = attend  # type: ignore[attr-defined]
    package.ops = operators  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", operators)


@pytest.mark.parametrize("kind", ["hybrid", "dinov2"])
def test_every_block_attends_by_xformers_with_the_same_result(xformers, kind):
    torch.manual_seed(0)
    if kind == "hybrid":
        network: torch.nn.Module = torch.nn.Sequential(Block(32, 4), Block(32, 4))
        x = torch.randn(2, 9, 32)
    else:
        network, x = VisionTransformer(Size(32, 2, 4), grid_size=3, patch=14), torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        expected = network(x)
        set_attention(network, "xformers", **CPU)
        xformers.clear()
        assert torch.allclose(network(x), expected, atol=1e-5)
    tokens = 9 + (kind == "dinov2")
    assert xformers == [(2, tokens, 4, 8)] * 2  # (B, N, heads, D)
    set_attention(network, "torch", **CPU)
    with torch.no_grad():
        assert torch.equal(network(x), expected)
    assert len(xformers) == 2


def test_without_xformers_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers", None)
    with pytest.raises(ImportError, match=r"pip install 'multihmr\[xformers\]'"):
        load_model(attention="xformers", device="cpu")


def test_without_a_kernel_for_the_device_a_sentence(monkeypatch):
    def attend(*_: Any) -> None:
        raise NotImplementedError(
            "No operator found for `memory_efficient_attention_forward` with inputs:\n..."
        )

    install(monkeypatch, attend)
    with pytest.raises(ValueError, match="xformers has no attention kernel for cpu, float32 and heads of 8 "):
        set_attention(Block(32, 4), "xformers", **CPU)


def test_what_cannot_be_is_refused(xformers):
    with pytest.raises(ValueError, match="attention must be one of torch, xformers, got 'flash'"):
        load_model(attention="flash", device="cpu")
    with pytest.raises(ValueError, match="has its own attention"):
        load_model(attention="xformers", backend="openvino")
    with pytest.raises(ValueError, match="is for ViT backbones"):
        set_attention(torch.nn.Linear(2, 2), "xformers", **CPU)


def test_the_installed_xformers_is_said_to_have_no_kernel_for_a_cpu():
    """None of the kernels of 0.0.35 is for a CPU."""
    pytest.importorskip("xformers")
    with pytest.raises(ValueError, match="no attention kernel for cpu, float32"):
        set_attention(Block(32, 4), "xformers", **CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_features_are_those_of_torch():
    pytest.importorskip("xformers")
    network = Block(64, 1).cuda().half()
    x = torch.randn(2, 257, 64, device="cuda", dtype=torch.float16)
    with torch.no_grad():
        expected = network(x)
        set_attention(network, "xformers", device=x.device, dtype=x.dtype)
        assert torch.allclose(network(x), expected, atol=5e-3)
