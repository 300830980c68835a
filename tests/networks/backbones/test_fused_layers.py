"""oneDNN's fused operations say what torch's layers say, and the number of threads changes no bit."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from multihmr.evaluation.speed.machine import threads
from multihmr.networks.backbones import fused_layers
from multihmr.networks.backbones.fused_layers import convolve, linear
from multihmr.networks.backbones.hybrid import Conv
from multihmr.networks.backbones.movenet import Inverted
from multihmr.networks.backbones.timm_backbones import create_backbone

pytestmark = pytest.mark.skipif(
    not fused_layers._has_onednn(), reason="torch has no such operations on this processor"
)
ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "relu6": F.relu6, "gelu": F.gelu}


def layers() -> list[tuple[nn.Conv2d, torch.Tensor]]:
    torch.manual_seed(0)
    x = torch.randn(2, 48, 18, 22).contiguous(memory_format=torch.channels_last)
    kinds = Conv(48, 24, 1), Conv(48, 48, 3, groups=48), Conv(48, 48, 5, stride=2, groups=48)
    kinds += nn.Conv2d(48, 16, 2, stride=2, bias=False), nn.Conv2d(48, 16, 3, padding=1)
    return [(kind.eval().to(memory_format=torch.channels_last), x) for kind in kinds]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@torch.inference_mode()
def test_convolutions_and_linear_layers_say_what_those_of_torch_say(activation: str) -> None:
    for layer, x in layers():
        wanted = ACTIVATIONS[activation](layer(x))
        for _ in range(2):  # the second time with weights from before
            torch.testing.assert_close(convolve(layer, x, activation), wanted, rtol=1e-5, atol=1e-5)
    layer, x = nn.Linear(48, 96).eval(), torch.randn(2, 33, 48)
    wanted = ACTIVATIONS[activation](layer(x))
    for rows in (x, x[:, :5]):  # weights are reordered for the first number of rows
        torch.testing.assert_close(
            linear(layer, rows, activation), wanted[:, : rows.shape[1]], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@torch.inference_mode()
def test_inverted_residuals_say_what_separate_layers_say(stride: int, kernel: int) -> None:
    torch.manual_seed(0)
    block = Inverted(24, 24, stride, kernel=kernel).eval().to(memory_format=torch.channels_last)
    assert block.expand is not None
    assert block.project is not None
    block.expand.bias.fill_(3)  # so that padding is no zero behind this layer
    x = torch.randn(2, 24, 18, 22).contiguous(memory_format=torch.channels_last)
    wanted = block.project(F.relu6(block.depthwise(F.relu6(block.expand(x)))))
    wanted = x + wanted if stride == 1 else wanted
    before = x.clone()
    torch.testing.assert_close(block(x), wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, before)


@torch.inference_mode()
def test_weights_are_reordered_once_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order for another shape a layer took twice as long."""
    layer = Conv(48, 24, 1).eval().to(memory_format=torch.channels_last)
    images = [torch.randn(1, 48, *size) for size in ((18, 22), (4, 5), (18, 22), (4, 5))]
    made = []
    reordered = fused_layers._reordered

    def counted(weight: torch.Tensor, shape: tuple[int, ...], reorder: object) -> torch.Tensor:
        return reordered(weight, shape, lambda: made.append(shape) or reorder())  # type: ignore[operator]

    monkeypatch.setattr(fused_layers, "_reordered", counted)
    for x in images:
        x = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(convolve(layer, x), layer(x), rtol=1e-5, atol=1e-5)
    assert made == [(1, 48, 18, 22), (1, 48, 4, 5)]
    known = fused_layers._packed[id(layer.weight)]
    assert 1 <= len(known.by_order) <= 2
    monkeypatch.setattr(fused_layers, "MOST_SHAPES", 1)
    convolve(layer, torch.randn(1, 48, 8, 8).contiguous(memory_format=torch.channels_last))
    assert len(known.by_shape) == 1


@torch.no_grad()
def test_changed_weights_count_and_are_forgotten_with_the_layer() -> None:
    for change in (
        lambda layer: layer.weight.mul_(2),
        lambda layer: setattr(layer.weight, "data", 2 * layer.weight.data),
        lambda layer: layer.load_state_dict({k: 2 * v for k, v in layer.state_dict().items()}),
        lambda layer: setattr(layer, "weight", nn.Parameter(2 * layer.weight)),
    ):
        layer, x = layers()[0]
        before = convolve(layer, x)
        change(layer)
        now = convolve(layer, x)
        torch.testing.assert_close(now, layer(x), rtol=1e-5, atol=1e-5)
        assert (now - before).abs().max() > 0.1
        other = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
        torch.testing.assert_close(convolve(other, x), now)
        keys = {id(layer.weight), id(other.weight)}
        assert keys <= set(fused_layers._packed)
        del layer, other
        gc.collect()
        assert not keys & set(fused_layers._packed)


def test_training_gradients_other_precisions_and_counters_have_torchs_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, x = layers()[0]

    def refuse(*_: object) -> None:
        raise AssertionError("fused")

    monkeypatch.setattr(fused_layers, "_pack", refuse)
    fused_layers._packed.clear()
    assert convolve(layer, x).requires_grad
    with torch.no_grad():
        assert torch.equal(convolve(layer.train(), x), layer(x))
        layer.eval()
        with torch.autocast("cpu", torch.bfloat16):
            assert convolve(layer, x).dtype == torch.bfloat16
        assert convolve(layer.double(), x.double()).dtype == torch.float64
        layer.float()
        with FlopCounterMode(display=False) as counter:
            convolve(layer, x)
        assert counter.get_total_flops() == 2 * 2 * 18 * 22 * 48 * 24
        with pytest.raises(AssertionError, match="fused"):
            convolve(layer, x)


@torch.inference_mode()
def test_threads_change_no_bit_of_the_backbone() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("hybrid_movenet_lightning", image_size=96).eval()
    images_B3HW = torch.rand(1, 3, 96, 128)
    with threads(1):
        alone = backbone(images_B3HW)
    with threads(2):
        together = backbone(images_B3HW)
    assert torch.equal(alone.grid_BDhw, together.grid_BDhw)
    assert torch.equal(alone.scales[0], together.scales[0])
