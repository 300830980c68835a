"""DINOv2 in plain torch computes what timm's does, bit for bit."""

from typing import Any

import pytest
import torch

from multihmr import load_model
from multihmr.networks.backbones.dinov2 import DINOv2, resized_positions
from multihmr.networks.backbones.hybrid import _attention_in_parts, attention
from multihmr.runtime import devices


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [56, 112])
@torch.no_grad()
def test_it_is_the_dinov2_of_timm_bit_for_bit(image_size: int) -> None:
    timm: Any = pytest.importorskip("timm")
    theirs = timm.create_model(
        "vit_small_patch14_dinov2", num_classes=0, img_size=image_size, dynamic_img_size=True
    ).eval()
    for name, parameter in theirs.named_parameters():
        if ".ls" in name:  # 1e-5 would hide what the blocks compute
            parameter.uniform_(0.5, 1.5)
    ours = DINOv2("dinov2_vits14", image_size=image_size).eval()
    assert {name: value.shape for name, value in ours.vit.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }
    ours.vit.load_state_dict(theirs.state_dict())
    for height, width in ((image_size, image_size), (56, 84), (112, 42)):  # others resample the positions
        pixels = torch.rand(2, 3, height, width)
        expected = theirs.forward_features(pixels)
        assert torch.equal(ours.vit(pixels), expected)
        features = ours.extract(pixels)
        assert torch.equal(features.grid_BDhw.flatten(2).transpose(1, 2), expected[:, 1:])
        assert torch.equal(features.global_BD, expected[:, 0])
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(ours.vit(pixels), theirs.forward_features(pixels))


@pytest.mark.slow
def test_positions_are_resampled_as_timm_does_it() -> None:
    layers: Any = pytest.importorskip("timm.layers")
    table_1ND = torch.randn(1, 1 + 37**2, 6)
    assert resized_positions(table_1ND, 37, 37, 37) is table_1ND
    for size in ((32, 32), (48, 48), (18, 32)):
        expected = layers.resample_abs_pos_embed(table_1ND, list(size), old_size=[37, 37])
        assert torch.equal(resized_positions(table_1ND, 37, *size), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2_vitb14", "dinov2_vitl14"])
def test_larger_ones_have_timms_weights(name: str) -> None:
    timm: Any = pytest.importorskip("timm")
    with torch.device("meta"):
        theirs = timm.create_model(DINOv2.TIMM_NAMES[name], num_classes=0, img_size=28)
        ours = DINOv2(name, image_size=28).vit
    shapes = [{name: value.shape for name, value in vit.state_dict().items()} for vit in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert ours.blocks[0].attn.head_count == theirs.blocks[0].attn.num_heads
    assert (len(ours.blocks), ours.norm.eps) == (len(theirs.blocks), theirs.norm.eps)


def test_before_training_the_blocks_hardly_count() -> None:
    vit = DINOv2("dinov2_vits14", image_size=28).vit
    assert vit.blocks[0].ls1.gamma.eq(1e-5).all()
    assert 0.015 < float(vit.pos_embed.detach().std()) < 0.025
    assert 0.015 < float(vit.blocks[0].mlp.fc1.weight.detach().std()) < 0.025


@pytest.mark.parametrize("tokens", [5, 300])
def test_attention_in_parts_is_attention(tokens: int) -> None:
    q, k, v = torch.randn(3, 2, 3, tokens, 8, generator=torch.Generator().manual_seed(0))
    bias_N = torch.zeros(tokens)
    bias_N[-1] = 2.0
    logits = q @ k.transpose(-1, -2) / 8**0.5
    for bias in (None, bias_N):
        expected = (logits if bias is None else logits + bias).softmax(-1) @ v
        for compute in (attention, _attention_in_parts):
            torch.testing.assert_close(compute(q, k, v, bias), expected, rtol=1e-4, atol=1e-5)
            found = compute(*(x.bfloat16() for x in (q, k, v)), bias)
            assert found.dtype == torch.bfloat16
            torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.03)


def test_fast_is_bfloat16_where_the_cpu_has_it_and_a_vit_keeps_its_people(monkeypatch: Any) -> None:
    vit, cpu = DINOv2("dinov2_vits14", image_size=28), torch.device("cpu")
    for has, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda has=has: has)
        for backend in ("eager", "openvino", "onnxruntime"):
            devices.set_fast(vit, cpu, backend)
            assert vit.half_dtype == (None if backend == "onnxruntime" else expected)  # it has float32 alone
        fast = load_model(device="cpu", dtype="fast").backbone  # of the bundled model: ViT blocks alone
        assert (fast.half_dtype, fast.half_stem) == (expected, False)
        assert load_model(device="cpu").backbone.half_dtype is None
