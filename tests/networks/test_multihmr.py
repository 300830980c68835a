import pytest
import torch
from toys import tiny_anny_model, tiny_model

from multihmr.geometry import default_intrinsics, project
from multihmr.networks.backbones import create_backbone
from multihmr.networks.centers import Centers


@pytest.fixture(scope="module", params=["multihmr", "as released in 2024", "anny of 2026"])
def model(request):
    if request.param == "anny of 2026":
        return tiny_anny_model()
    return tiny_model() if request.param == "multihmr" else tiny_model(read_joints=(), released=True)


def cells(*people: tuple[int, int, int]) -> Centers:
    index, row, col = torch.tensor(people, dtype=torch.long).reshape(-1, 3).unbind(1)
    return Centers(index, row, col, torch.ones(len(people)))


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "people",
    [[(0, 1, 1)], [(0, 1, 1), (3, 2, 2)], [(2, 0, 0), (2, 1, 3), (2, 3, 1)], []],
    ids=["last empty", "two empty neighbours", "all in one image", "nobody"],
)
def test_batches_with_empty_images(model, people):
    pred = model(pictures(4), centers=cells(*people))
    assert pred.vertices_PV3.shape == (len(people), 12, 3)
    assert pred.pose_PR33.shape == (len(people), 3, 3, 3)
    assert pred.vertices_PV3.isfinite().all()


def test_a_batch_is_its_images_one_by_one(model):
    images, people = pictures(3), [(0, 1, 1), (0, 2, 3), (2, 3, 0)]
    together = model(images, centers=cells(*people)).vertices_PV3
    first = model(images[:1], centers=cells((0, 1, 1), (0, 2, 3))).vertices_PV3
    last = model(images[2:], centers=cells((0, 3, 0))).vertices_PV3
    torch.testing.assert_close(together, torch.cat([first, last]), atol=1e-5, rtol=1e-5)


def test_the_order_of_people_does_not_matter(model):
    forth = model(pictures(1), centers=cells((0, 1, 1), (0, 2, 3))).joints_PJ3
    back = model(pictures(1), centers=cells((0, 2, 3), (0, 1, 1))).joints_PJ3
    torch.testing.assert_close(forth, back.flip(0), atol=1e-5, rtol=1e-5)


def test_people_of_one_image_see_each_other(model):
    alone = model(pictures(1), centers=cells((0, 1, 1))).joints_PJ3[0]
    beside = model(pictures(1), centers=cells((0, 1, 1), (0, 2, 3))).joints_PJ3[0]
    assert (alone - beside).abs().max() > 1e-7


def test_the_head_lies_on_the_ray_of_its_cell(model):
    K = default_intrinsics(64, 64, 50.0)[None]
    pred = model(pictures(1), K, centers=cells((0, 1, 2)))
    expected = (torch.tensor([2.5, 1.5]) + pred.offset_P2[0]) * 16
    torch.testing.assert_close(project(pred.joints_PJ3[:, 2], K[0])[0], expected)


def test_the_camera_is_the_given_one_or_the_networks_own(model):
    K = default_intrinsics(64, 64, 50.0)
    unknown = torch.full((3, 3), float("nan"))
    pred = model(pictures(2), torch.stack([K, unknown]), centers=cells())
    torch.testing.assert_close(pred.K_B33[0], K)
    torch.testing.assert_close(pred.K_B33[1, 0, 0], 32 / torch.tan(pred.fov_B[1] / 2))


def test_a_longer_lens_puts_the_same_picture_farther_away(model):
    near = model(pictures(1), default_intrinsics(64, 64, 90.0)[None], centers=cells((0, 1, 1)))
    far = model(pictures(1), default_intrinsics(64, 64, 20.0)[None], centers=cells((0, 1, 1)))
    assert far.translation_P3[0, 2] > near.translation_P3[0, 2]


def test_gradients_reach_the_whole_network(model):
    pred = model(pictures(2), centers=cells((0, 1, 1)))
    (pred.vertices_PV3.sum() + pred.logits_Bhw.sum() + pred.fov_B.sum() + pred.expression_PE.sum()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


def test_a_window_of_another_size_is_refused(model):
    with pytest.raises(ValueError, match="64x64"):
        model(torch.zeros(1, 3, 96, 96))


def test_dinov2_takes_any_multiple_of_its_patch():
    backbone = create_backbone("dinov2_vits14", image_size=56).eval()
    features = backbone(torch.rand(1, 3, 84, 56))
    assert features.grid_BDhw.shape == (1, 384, 6, 4)
    assert features.global_BD.shape == (1, 384)


def test_backbones_refuse_what_they_cannot_take():
    with pytest.raises(ValueError, match="multiples of 14"):
        create_backbone("dinov2_vits14", image_size=100)
    with pytest.raises(ValueError, match="known: dinov2_vits14"):
        create_backbone("resnet50", image_size=224)
