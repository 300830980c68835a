"""The same people in graphs of fixed shapes as in eager prediction, whatever is in the pictures."""

import pytest
import torch
from toys import tiny_anny_network, tiny_network

from multihmr.geometry import default_intrinsics
from multihmr.networks.detection import FixedCenters, find_centers, nms_3d, nms_3d_fixed, topk_centers

VARIANTS = {
    "multihmr": {},
    "as released in 2024": {"read_joints": (), "released": True},
    "told apart in space": {"nms_3d_distance": (0.2, 0.2)},
    "two looks, told apart": {"refine": True, "nms_3d_distance": (0.2, 0.2)},
    "iterative head": {"head": "iterative", "people_attention": False},
}
FIELDS = ("pose_PR33", "shape_PS", "expression_PE", "translation_P3", "vertices_PV3", "joints_PJ3")


@pytest.fixture(scope="module", params=[*VARIANTS, "anny of 2026"])
def model(request):
    return tiny_anny_network() if request.param == "anny of 2026" else tiny_network(**VARIANTS[request.param])


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("people", [1, 3, 40])
@torch.no_grad()
def test_fixed_shapes_say_what_forward_says(model, batch, people):
    images = torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(batch))
    scores = model._encode(images, None).logits_Bhw.sigmoid().flatten().sort().values
    K = torch.full((batch, 3, 3), torch.nan)
    K[0] = default_intrinsics(64, 64, 50.0)
    counts = set()
    for threshold in (0.0, float(scores[-4]), float(scores[len(scores) // 2]), 1.0):  # all, few, many, nobody
        options = {"threshold": threshold}
        asked, fixed = (
            model(images, K, max_people=people, **options),
            model.forward_fixed(images, K, people=people, **options),
        )
        assert fixed.centers.mask_BQ.shape == (batch, min(people, 16))
        order = torch.argsort(asked.centers.image_index_P * 2 - asked.centers.scores_P, stable=True)
        there = fixed.centers.mask_BQ.flatten()
        assert torch.equal(asked.centers.image_index_P[order], fixed.centers.image_index_P[there])
        for field in FIELDS:
            torch.testing.assert_close(
                getattr(asked, field)[order], getattr(fixed, field)[there], atol=2e-5, rtol=1e-4
            )
        counts.add(len(order))
    assert 0 in counts
    assert len(counts) > 1


def test_best_cells_are_those_that_are_found():
    scores = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    scores[1] = 0
    found = find_centers(scores, threshold=0.4, max_people=6)
    slots = topk_centers(scores, 6, threshold=0.4)
    cells = [
        set(
            zip(
                c.image_index_P.tolist(), c.row_P.tolist(), c.col_P.tolist(), c.scores_P.tolist(), strict=True
            )
        )
        for c in (found, slots)
    ]
    assert not slots.mask_BQ[1].any()
    assert cells[0] == {cell for cell in cells[1] if cell[3] > 0}
    assert len(cells[0]) == slots.mask_BQ.sum()
    everybody = find_centers(scores, threshold=0.4)
    counts = [int((everybody.image_index_P == i).sum()) for i in range(3)]
    for slot_count in (*counts, max(counts) - 1):
        full_B = topk_centers(scores, slot_count, threshold=0.4).full_B
        assert full_B.tolist() == [count > slot_count for count in counts]


@pytest.mark.parametrize("spread", [0.05, 0.3, 1.0], ids=["a chain", "a crowd", "strangers"])
def test_slots_in_the_same_place_are_one_person_as_in_eager_prediction(spread):
    generator = torch.Generator().manual_seed(1)
    places = torch.randn(24, 3, generator=generator) * spread + torch.tensor([0.0, 0, 4])
    places[:12, 0] = torch.arange(12) * 0.2  # each in the place of the next alone
    scores = torch.linspace(0.9, 0.1, 12).repeat(2)
    image, zeros = torch.arange(2).repeat_interleave(12), torch.zeros(24, dtype=torch.long)
    there = torch.ones(2, 12, dtype=torch.bool)
    slots = FixedCenters(image, zeros, zeros, scores, there, torch.zeros(2, dtype=torch.bool))
    for at_most in (1, 3, 12):
        expected = nms_3d(places, slots, nms_3d_distance=(0.25, 0.2), at_most=at_most).nonzero()[:, 0]
        kept, where = nms_3d_fixed(places, slots, nms_3d_distance=(0.25, 0.2), at_most=at_most)
        everybody = nms_3d(places, slots, nms_3d_distance=(0.25, 0.2)).unflatten(0, (2, 12)).sum(1)
        assert kept.full_B.tolist() == (everybody > at_most).tolist()
        assert where[kept.mask_BQ.flatten()].tolist() == expected.tolist()


def test_slots_are_taken_by_image_alone():
    zeros = torch.zeros(2, dtype=torch.long)
    there = torch.ones(1, 2, dtype=torch.bool)
    slots = FixedCenters(zeros, zeros, zeros, zeros.float(), there, torch.zeros(1, dtype=torch.bool))
    with pytest.raises(TypeError, match="picked"):
        slots[zeros]
