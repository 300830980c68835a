"""padding="thin": sixteen tokens of padding become one that counts sixteenfold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from multihmr import load_model
from multihmr.bodies.loading import load_body
from multihmr.model import Model
from multihmr.networks.backbones.dinov2 import SIZES, DINOv2, Size
from multihmr.networks.backbones.merged_padding import content_patches, merge_padding
from multihmr.networks.configs import MultiHMRConfig
from multihmr.networks.multihmr import MultiHMR
from multihmr.preprocessing.letterbox import Letterbox
from multihmr.runtime.backends import make_runtime, set_padding
from multihmr.runtime.cuda_graphs import CudaGraphRuntime

OPTIONS = {"threshold": 0.0, "max_people": 2}


@pytest.fixture(scope="module")
def network() -> MultiHMR:
    torch.manual_seed(0)
    config = MultiHMRConfig(backbone="dinov2_vits14", image_size=112)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "dinov2_vits14", Size(384, 2, 6))  # two blocks show all that twelve do
        network = MultiHMR(config, load_body(config.body)).eval()
    for name, parameter in network.backbone.named_parameters():
        if ".ls" in name:
            torch.nn.init.ones_(parameter)
    return network


@pytest.fixture
def thin(network: MultiHMR) -> Iterator[Model]:
    set_padding(network, "thin")
    yield Model(network)
    set_padding(network, "whole")


def noise(*shapes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


@pytest.mark.parametrize(
    "shown", [(0, 7, 32, 25), (0, 0, 32, 32), (9, 0, 24, 32), (3, 4, 20, 11), (0, 1, 32, 31), (5, 5, 5, 5)]
)
def test_every_patch_has_one_token_and_those_of_the_image_have_their_own(shown: tuple[int, ...]) -> None:
    left, top, right, bottom = shown
    merged = merge_padding(32, 32, shown)
    inside = {row * 32 + col for row in range(top, bottom) for col in range(left, right)}
    first = [set(four.tolist()) for four in merged.members_M4]
    later = [set().union(*(first[token] for token in four.tolist())) for four in merged.members_L4]
    assert [len(some) for some in later] == merged.log_count_L.exp().round().int().tolist()
    for patches in (first, later):
        assert sorted(patch for some in patches for patch in some) == list(range(32 * 32))
        assert inside <= {patch for some in patches if len(some) == 1 for patch in some}
        single = sum(len(some) == 1 for some in patches) - len(inside)
        assert single <= 4 * 9  # three in a corner of a strip, and what a strip of one row leaves
    assert all(patch in later[token] for patch, token in enumerate(merged.token_N.tolist()))
    assert sum(len(some) == 4 for some in later) <= 4 * 12  # of each strip, what is left of squares and lines


def test_a_picture_of_16_to_9_keeps_two_thirds_of_its_tokens() -> None:
    letterbox = Letterbox.whole(720, 1280, 448)
    shown = content_patches(letterbox.content(720, 1280), 14)
    assert shown == (0, 7, 32, 25)
    merged = merge_padding(32, 32, shown)
    assert len(merged.members_M4) == 18 * 32 + 14 * 32 // 4
    assert len(merged.members_L4) == 18 * 32 + 14 * 32 // 16
    rows, cols = (merged.token_N == merged.token_N[0]).view(32, 32).nonzero().T
    assert rows.tolist() == [row for row in range(4) for _ in range(4)]
    assert cols.tolist() == [*range(4)] * 4


@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (300, 300)])
def test_content_is_where_the_letterbox_draws_the_image(shape: tuple[int, int]) -> None:
    letterbox = Letterbox.whole(*shape, 112)
    left, top, right, bottom = letterbox.content(*shape)
    drawn = (letterbox.apply(np.full((*shape, 3), 255, np.uint8)) != 128).any(-1)
    expected = np.zeros((112, 112), bool)
    expected[top:bottom, left:right] = True
    assert (drawn == expected).all()


@torch.no_grad()
def test_tokens_that_are_equal_can_be_merged_without_any_error() -> None:
    """The law behind it: with positions of zero all tokens of padding are one and the same."""
    torch.manual_seed(0)
    backbone = DINOv2("dinov2_vits14", image_size=112).eval()
    backbone.vit.pos_embed.zero_()
    for name, parameter in backbone.named_parameters():
        if ".ls" in name:
            parameter.fill_(1.0)
    pixels = torch.full((1, 3, 112, 112), 0.5)
    pixels[:, :, 35:70] = torch.rand(3, 35, 112)
    expected = backbone(pixels)
    backbone.padding = "thin"
    found = backbone(pixels, [(0, 35, 112, 70)])
    torch.testing.assert_close(found.grid_BDhw, expected.grid_BDhw, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.global_BD, expected.global_BD, rtol=1e-4, atol=1e-4)
    assert torch.equal(backbone(pixels).grid_BDhw, expected.grid_BDhw)  # nothing is known to be padding


def test_a_mixed_batch_predicts_as_each_image_alone(thin: Model) -> None:
    images = noise((48, 64), (64, 48), (64, 64), (24, 64), (48, 64))
    together = thin.predict_batch(images, **OPTIONS)
    for image, found in zip(images, together, strict=True):
        alone = thin.predict(image, **OPTIONS)
        np.testing.assert_allclose(found.vertices, alone.vertices, atol=1e-4)
    thin.network.backbone.padding = "whole"
    whole = thin.predict_batch(images, **OPTIONS)
    np.testing.assert_allclose(whole[2].vertices, together[2].vertices, atol=1e-4)  # a square has no padding
    moved = np.abs(whole[3].vertices - together[3].vertices).max()
    assert 1e-5 < moved < 0.5


def test_recorded_predictions_are_recorded_for_each_padding(thin: Model) -> None:
    images = noise((48, 64), (64, 48), (48, 64))
    expected = thin.predict_batch(images, **OPTIONS)
    thin.runtime = CudaGraphRuntime(thin.network)
    for one, other in zip(thin.predict_batch(images, **OPTIONS), expected, strict=True):
        np.testing.assert_allclose(one.vertices, other.vertices, atol=2e-3)  # pixels are resized elsewhere
    assert {key[-1] for key in thin.runtime._recordings} == {(0, 14, 112, 98), (14, 0, 98, 112)}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of graphs, in which the second runtime finds the ONNX file that the first has made."""
    return tmp_path_factory.mktemp("graphs")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_other_runtimes_take_any_padding_with_one_graph(name: str, thin: Model, graphs: Path) -> None:
    pytest.importorskip("onnxscript"), pytest.importorskip(name)
    images = noise((48, 64), (64, 48), (64, 64), (24, 64))
    expected = thin.predict_batch(images, **OPTIONS)
    thin.runtime = make_runtime(thin.network, name, folder=graphs)
    for one, other in zip(thin.predict_batch(images, **OPTIONS), expected, strict=True):
        np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-4)
    assert len(list(graphs.glob("*.onnx"))) == 1


def test_only_vits_that_see_whole_pictures_can() -> None:
    with pytest.raises(ValueError, match="is for networks on DINOv2"):
        load_model(device="cpu", padding="thin")
    with pytest.raises(ValueError, match="by torch's attention"):
        load_model(device="cpu", padding="thin", attention="xformers")
    with pytest.raises(ValueError, match="'whole' or 'thin'"):
        load_model(device="cpu", padding="thick")
    assert math.isclose(math.exp(float(merge_padding(2, 2, (0, 0, 0, 0)).log_count_L[0])), 4, rel_tol=1e-6)
