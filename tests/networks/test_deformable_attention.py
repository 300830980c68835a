from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from multihmr.networks.deformable_attention import DeformableAttention, sample

SIZES = ((5, 7), (3, 4))  # rows, columns of the two levels
WIDTHS = (6, 10)


def attention(seed: int = 0, **options: int) -> DeformableAttention:
    torch.manual_seed(seed)
    layer = DeformableAttention(8, WIDTHS, 12, **{"head_count": 3, "points": 2, **options})
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return layer


def question(batch: int = 2, count: int = 4) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(1)
    maps = [torch.randn(batch, width, *size) for width, size in zip(WIDTHS, SIZES, strict=True)]
    return torch.randn(batch, count, 8), torch.rand(batch, count, 2) * 1.4 - 0.2, maps


def bilinear(map_Chw: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """At (x, y) in cells, by the four cells around: zeros outside."""
    col, row = math.floor(x - 0.5), math.floor(y - 0.5)
    total = torch.zeros(map_Chw.shape[0])
    for r, c in ((row, col), (row, col + 1), (row + 1, col), (row + 1, col + 1)):
        if 0 <= r < map_Chw.shape[1] and 0 <= c < map_Chw.shape[2]:
            total += map_Chw[:, r, c] * (1 - abs(x - 0.5 - c)) * (1 - abs(y - 0.5 - r))
    return total


def naive(layer: DeformableAttention, queries, places, maps) -> torch.Tensor:
    """The definition, one query, head, level and point after the other."""
    heads, points, width = layer.head_count, layer.points, 12 // layer.head_count
    values = [conv(m) for conv, m in zip(layer.to_value, maps, strict=True)]
    out = torch.zeros(*queries.shape[:2], 12)
    for b, q in torch.cartesian_prod(*map(torch.arange, queries.shape[:2])).tolist():
        offsets = layer.to_offset(queries[b, q]).view(heads, len(maps), points, 2)
        weights = layer.to_weight(queries[b, q]).view(heads, -1).softmax(1).view(heads, len(maps), points)
        for h, level, p in torch.cartesian_prod(*map(torch.arange, weights.shape)).tolist():
            own = values[level][b, h * width : (h + 1) * width]
            rows, cols = own.shape[1:]
            x, y = (places[b, q] * torch.tensor([cols, rows]) + offsets[h, level, p]).tolist()
            out[b, q, h * width : (h + 1) * width] += weights[h, level, p] * bilinear(own, x, y)
    return layer.to_out(out)


def test_equals_the_definition_spelled_out():
    layer, asked = attention(), question()
    with torch.no_grad():
        assert (layer(*asked) - naive(layer, *asked)).abs().max() < 1e-5


def test_gradients_are_those_of_finite_differences():
    layer = attention().double()
    queries, places, maps = question(batch=1, count=1)
    inputs = [t.double().requires_grad_() for t in (queries, places, *(m[..., :3, :3] for m in maps))]
    assert torch.autograd.gradcheck(lambda q, p, *m: layer(q, p, m), inputs)


def test_centres_of_pixels_give_these_pixels():
    map_BChw = torch.randn(2, 3, 4, 6)
    y, x = torch.meshgrid((torch.arange(4) + 0.5) / 4, (torch.arange(6) + 0.5) / 6, indexing="ij")
    places = torch.stack([x, y], -1).flatten(0, 1).expand(2, -1, -1)
    assert torch.allclose(sample(map_BChw, places), map_BChw.flatten(2).transpose(1, 2), atol=1e-5)


def test_nothing_is_outside():
    far = torch.tensor([[[-0.5, 0.5], [0.5, 1.5]]])
    assert not sample(torch.ones(1, 2, 4, 4), far).any()


def test_learning_starts_in_a_ring_of_equal_weights():
    layer = DeformableAttention(8, (4,), 8, head_count=4, points=2)
    way = layer.to_offset(torch.randn(8)).view(4, 2, 2)
    expected = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert torch.allclose(way[:, 0], expected, atol=1e-6)
    assert torch.allclose(way[:, 1], 2 * expected, atol=1e-6)


def read_numbers(monkeypatch: pytest.MonkeyPatch, points: int, queries: int) -> int:
    """How many numbers are interpolated for one answer."""
    total = 0
    real = F.grid_sample

    def counted(*args, **options):
        nonlocal total
        out = real(*args, **options)
        total += out.numel()
        return out

    with monkeypatch.context() as patch:
        patch.setattr(F, "grid_sample", counted)
        attention(points=points)(*question(count=queries))
    return total


def test_cost_is_linear_in_points_and_in_queries(monkeypatch):
    one = read_numbers(monkeypatch, 1, 1)
    assert one == 2 * 2 * 12  # batch, levels, channels
    assert read_numbers(monkeypatch, 8, 1) == 8 * one
    assert read_numbers(monkeypatch, 1, 5) == 5 * one


def test_a_batch_equals_one_by_one():
    layer, (queries, places, maps) = attention(), question(batch=3)
    together = layer(queries, places, maps)
    alone = [layer(queries[i : i + 1], places[i : i + 1], [m[i : i + 1] for m in maps]) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


@pytest.mark.parametrize(("batch", "count"), [(2, 0), (0, 4)])
def test_nobody_asks(batch, count):
    assert attention()(*question(batch, count)).shape == (batch, count, 12)


@pytest.mark.slow
def test_exports():
    layer, asked = attention().eval(), question()
    program = torch.export.export(layer, asked).module()
    assert torch.allclose(program(*asked), layer(*asked), atol=1e-6)


def test_says_what_is_wrong():
    queries, places, maps = question()
    with pytest.raises(ValueError, match="expected 2 maps, one for each level, got 1"):
        attention()(queries, places, maps[:1])
    with pytest.raises(ValueError, match="out_width 12, head_count 5"):
        DeformableAttention(8, WIDTHS, 12, head_count=5)
