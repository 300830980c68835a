import subprocess
import sys
from typing import Any

import pytest
import torch

from multihmr.networks.backbones.hybrid import (
    LITE,
    SEEN,
    Block,
    Hybrid,
    Lite,
    attention,
    folded,
)


@pytest.mark.slow
@pytest.mark.parametrize("size", LITE)
def test_stem_is_the_efficientnet_of_timm(size: str) -> None:
    import timm

    theirs: Any = timm.create_model(f"tf_efficientnet_{size}")
    for name, value in theirs.state_dict().items():  # norms that have seen something
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.2)
    features = timm.create_model(f"tf_efficientnet_{size}", features_only=True, out_indices=(2, 3, 4)).eval()
    features.load_state_dict(theirs.state_dict(), strict=False)
    ours = Hybrid(size, depth=1)
    ours.stem.load_state_dict(folded(theirs.state_dict(), ours.stem))
    picture = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        for seen, right in zip(ours._stages(picture), features(picture), strict=True):
            torch.testing.assert_close(seen, right, rtol=1e-4, atol=1e-4 * right.abs().max().item())


def test_another_network_is_no_stem() -> None:
    stem = Lite(LITE["lite0"])
    with pytest.raises(ValueError, match="conv_stem has weights"):
        folded({str(i): torch.zeros(8, 3, 3, 3) for i in range(6)}, stem)
    with pytest.raises(ValueError, match="the weights end before conv_stem"):
        folded({}, stem)


def test_block_is_the_block_of_timm() -> None:
    from timm.models.vision_transformer import Block as TimmBlock

    theirs, ours = TimmBlock(128, 2, qkv_bias=True), Block(128, 2)
    ours.load_state_dict(theirs.state_dict())
    tokens = torch.randn(3, 11, 128)
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-4, atol=1e-4)


def test_attention_that_learns_in_bfloat16_is_the_same() -> None:
    q, k, v = (torch.randn(2, 2, 30, 64) for _ in range(3))
    halves = [x.bfloat16().requires_grad_() for x in (q, k, v)]
    right = attention(q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(*halves)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), right, rtol=0.05, atol=0.02)
    out.float().square().sum().backward()
    wholes = [x.detach().float().requires_grad_() for x in halves]
    attention(*wholes).square().sum().backward()
    for half, whole in zip(halves, wholes, strict=True):
        assert half.grad is not None
        assert whole.grad is not None
        off = (half.grad.float() - whole.grad).norm() / whole.grad.norm()
        assert off < 0.03


def test_maps_are_at_strides_8_16_and_32() -> None:
    maps = Hybrid("lite0", depth=1)._stages(torch.zeros(1, 3, 64, 96))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (LITE["lite0"][i].width, 64 // stride, 96 // stride)
        for i, stride in zip(SEEN, (8, 16, 32), strict=True)
    ]


LOOK = """
import sys, numpy as np, multihmr, torch
from multihmr.networks.backbones.timm_backbones import create_backbone
create_backbone("dinov2_vits14", image_size=56)(torch.rand(1, 3, 56, 56))
print([name for name in ("timm", "torchvision") if name in sys.modules])
picture = np.full((64, 64, 3), 128, np.uint8)
multihmr.load_model().predict(picture, threshold=0.0, max_people=1)
print([name for name in ("timm", "torchvision", "torch._dynamo") if name in sys.modules])
multihmr.load_model("glnet-anny-hybrid").predict(picture, boxes=[[0, 0, 60, 60]])
print([name for name in ("timm", "torchvision") if name in sys.modules])
"""


@pytest.mark.slow
def test_bundled_models_and_networks_on_dinov2_do_without_timm() -> None:
    """It takes as long to import as torch, and 200 MB, and fails beside a torchvision of another torch."""
    ran = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert ran.stdout.split("\n")[:3] == ["[]", "[]", "[]"]
