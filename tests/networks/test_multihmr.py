import pytest
import torch
from toys import tiny_anny_network, tiny_network

from multihmr.geometry import default_intrinsics, project
from multihmr.networks.attention import PerceptionLayer
from multihmr.networks.backbones.timm_backbones import create_backbone
from multihmr.networks.configs import MultiHMRConfig
from multihmr.networks.detection import Centers

VARIANTS = {
    "multihmr": {},
    "as released in 2024": {"read_joints": (), "released": True},
    "iterative head": {"head": "iterative"},
    "everybody alone": {"people_attention": False},
    "rays as they are": {"camera_embedding": "linear"},
    "no rays": {"camera_embedding": "none"},
    "hrnet": {"backbone": "hrnet_w32"},
    "lite2": {"backbone": "hybrid_lite2"},
    "two looks": {"refine": True},
}


@pytest.fixture(scope="module", params=[*VARIANTS, "anny of 2026"])
def model(request):
    return tiny_anny_network() if request.param == "anny of 2026" else tiny_network(**VARIANTS[request.param])


def cells(*people: tuple[int, int, int]) -> Centers:
    index, row, col = torch.tensor(people, dtype=torch.long).reshape(-1, 3).unbind(1)
    return Centers(index, row, col, torch.ones(len(people)))


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("attention", [True, False])
def test_people_of_one_image_see_each_other_where_they_may(attention):
    sizes = {"head_count": 2, "head_width": 4, "mlp_width": 8}
    layer = PerceptionLayer(8, 6, people_attention=attention, **sizes)
    people, context, mask = torch.rand(1, 2, 8), torch.rand(1, 5, 6), torch.ones(1, 2, dtype=torch.bool)
    changed = torch.cat([people[:, :1], torch.rand(1, 1, 8)], dim=1)
    first, again = (layer(x, mask, context)[0, 0] for x in (people, changed))
    assert torch.equal(first, again) != attention


@pytest.mark.parametrize("head", ["perception", "iterative"])
def test_an_iterative_head_sees_nothing_but_the_cell(head):
    model = tiny_network(head=head).head
    mean = 3 * 6 + 2 if head == "perception" else 0  # the mean pose and shape, beside the cell
    context = torch.rand(1, model.to_token.in_features - mean, 4, 4)
    elsewhere = context.clone()
    elsewhere[:, :, 3, 3] += 1
    depth, other = (model(grid, cells((0, 1, 1)))[3] for grid in (context, elsewhere))
    assert torch.equal(depth, other) == (head == "iterative")


@pytest.mark.parametrize("kind", ["fourier", "linear", "none"])
def test_only_embedded_cameras_change_poses(kind):
    model = tiny_network(camera_embedding=kind)
    cameras = (default_intrinsics(64, 64, fov)[None] for fov in (40.0, 90.0))
    narrow, wide = (model(pictures(1), K, centers=cells((0, 1, 1))).pose_PR33 for K in cameras)
    assert ((narrow - wide).abs().max() > 1e-7) == (kind != "none")


def test_an_iterative_head_corrects_its_corrections():
    once, thrice = (tiny_network(head="iterative", iterations=count) for count in (1, 3))
    thrice.load_state_dict(once.state_dict())
    answers = [model(pictures(1), centers=cells((0, 1, 1))).pose_PR33 for model in (once, thrice)]
    assert (answers[0] - answers[1]).abs().max() > 1e-6


def test_settings_change_a_config_by_name():
    changed = MultiHMRConfig().changed("head=iterative, people_attention=no,ray_bands=8,threshold=0.5")
    expected = {"head": "iterative", "people_attention": False, "ray_bands": 8, "threshold": 0.5}
    assert changed == MultiHMRConfig(**expected)
    assert MultiHMRConfig().changed("") == MultiHMRConfig()
    for wrong in ("heads=iterative", "ray_bands", "people_attention=perhaps", "read_joints=1"):
        with pytest.raises(ValueError, match="sets nothing of the network"):
            MultiHMRConfig().changed(wrong)
    with pytest.raises(ValueError, match="head must be one of perception, iterative, got 'mlp'"):
        MultiHMRConfig().changed("head=mlp")


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_hrnet_sees_at_stride_16_in_any_multiple_of_32():
    backbone = create_backbone("hrnet_w32", image_size=64).eval()
    features = backbone(torch.rand(1, 3, 96, 64))
    assert features.grid_BDhw.shape == (1, 384, 6, 4)
    assert features.global_BD.shape == (1, 384)


@pytest.mark.slow
def test_a_vit_starts_from_imagenet_with_its_own_pixels(monkeypatch):
    """Pictures normalised as DINOv2 has them give what the ViT of ImageNet says of pixels in [-1, 1]."""
    import timm

    made, create = [], timm.create_model

    def create_random(name, *, pretrained=False, **options):
        made.append((name, pretrained, create(name, **options)))
        return made[-1][2]

    monkeypatch.setattr(timm, "create_model", create_random)
    backbone = create_backbone("dinov2_vits14", image_size=28, pretrained="imagenet").eval()
    name, pretrained, source = made[0]
    assert (name, pretrained) == ("vit_small_patch16_224.augreg_in21k_ft_in1k", True)
    picture = torch.rand(1, 3, 28, 28)
    expected = source.eval().forward_features((picture - 0.5) / 0.5)
    torch.testing.assert_close(backbone(picture).global_BD, expected[:, 0], atol=1e-4, rtol=1e-4)


def test_backbones_refuse_what_they_cannot_take():
    with pytest.raises(ValueError, match="True, False or 'imagenet'"):
        create_backbone("dinov2_vits14", image_size=28, pretrained="imagenot")
    with pytest.raises(ValueError, match="multiples of 14"):
        create_backbone("dinov2_vits14", image_size=100)
    with pytest.raises(ValueError, match="known: dinov2_vits14"):
        create_backbone("resnet50", image_size=224)


@pytest.mark.parametrize(("nms_3d_distance", "count"), [((0.0, 0.0), 16), ((1e3, 1e3), 1)])
def test_cells_are_one_person_when_they_stand_in_one_place(nms_3d_distance, count):
    """With a threshold that all 16 cells pass: everybody stays, or only the best of them."""
    model = tiny_network(nms_3d_distance=nms_3d_distance).eval()
    pred = model(pictures(1), threshold=0.0)
    assert len(pred.centers) == len(pred.vertices_PV3) == count
    if count == 1:
        assert pred.centers.scores_P == pred.logits_Bhw.sigmoid().amax()


def test_the_best_people_of_each_image_are_kept_after_duplicates_are_gone():
    model = tiny_network(nms_3d_distance=(0.0, 0.0)).eval()
    assert model(pictures(2), threshold=0.0, max_people=3).centers.image_index_P.tolist() == [0] * 3 + [1] * 3
