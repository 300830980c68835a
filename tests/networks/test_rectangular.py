"""Rectangular windows: the square without its padding, in training and in prediction."""

import dataclasses

import numpy as np
import pytest
import torch

from multihmr.bodies.loading import load_body
from multihmr.model import Model
from multihmr.networks.backbones.hybrid import sine_positions
from multihmr.networks.backbones.timm_backbones import create_backbone
from multihmr.networks.base import own_camera
from multihmr.networks.configs import MultiHMRConfig
from multihmr.networks.joint_heatmaps import patch_middles
from multihmr.networks.multihmr import MultiHMR
from multihmr.preprocessing.letterbox import Letterbox

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("height", "width", "shape"),
    [
        (1080, 1920, (160, 288)),  # content 162 rows high: drawn 1.2 % smaller rather than padded by 30 rows
        (1920, 1080, (288, 160)),
        (480, 640, (224, 288)),
        (1000, 1500, (192, 288)),
        (512, 512, (288, 288)),
        (500, 512, (288, 288)),
        (200, 4000, (160, 288)),  # no thinner than half
        (7, 5, (288, 224)),
    ],
)
def test_the_smallest_window_that_holds_the_picture(height, width, shape):
    box = Letterbox.rectangle(height, width, 288, 32)
    assert box.shape == shape
    corners = box.points(np.array([[0.0, 0.0], [width, height]]))
    assert (corners[0] >= -1e-6).all()
    assert (corners[1] <= np.array(shape[::-1]) + 1e-6).all()
    np.testing.assert_allclose(corners.sum(0), shape[::-1])  # in the middle
    assert (corners[1] - corners[0]).max() >= 0.98 * 288
    np.testing.assert_allclose(box.inverse_points(corners), [[0, 0], [width, height]], atol=1e-6)


def test_pixels_are_those_of_the_square_without_its_padding():
    image = np.random.default_rng(0).integers(0, 256, (192, 288, 3), dtype=np.uint8)
    square = Letterbox.whole(192, 288, 288).apply(image)
    np.testing.assert_array_equal(Letterbox.rectangle(192, 288, 288, 32).apply(image), square[48:240])


def test_a_cut_moves_points_camera_and_pixels_alike():
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    whole = Letterbox.box(20, 30, 320, 330, 128)
    part = whole.cut(32, 16, (64, 96))
    np.testing.assert_array_equal(part.apply(image), whole.apply(image)[16:80, 32:128])
    xy = np.array([[100.0, 120.0]])
    np.testing.assert_allclose(part.points(xy), whole.points(xy) - (32, 16))
    K = np.array([[300.0, 0, 200], [0, 300, 150], [0, 0, 1]])
    np.testing.assert_allclose(part.intrinsics(K)[:2, 2], whole.intrinsics(K)[:2, 2] - (32, 16))
    np.testing.assert_allclose(part.image_intrinsics(part.intrinsics(K)), K)
    with pytest.raises(ValueError, match="mirroring letterbox cannot be cut"):
        dataclasses.replace(whole, flip=True).cut(0, 0, (64, 64))


def test_positions_rays_and_cameras_are_those_of_the_middle_of_the_square():
    square = sine_positions(6, 6, 32, CPU).unflatten(0, (6, 6))
    torch.testing.assert_close(sine_positions(4, 6, 32, CPU).unflatten(0, (4, 6)), square[1:5])
    torch.testing.assert_close(sine_positions(6, 2, 32, CPU).unflatten(0, (6, 2)), square[:, 2:4])
    middles = patch_middles(6, 6, CPU)[1:5] - torch.tensor([0, 1 / 6])
    torch.testing.assert_close(patch_middles(4, 6, CPU), middles)
    fov = torch.tensor([1.0])
    K = own_camera(fov, None, 288)
    thin = own_camera(fov, None, (160, 288))
    assert torch.equal(thin[0, :2, :2], K[0, :2, :2])
    assert thin[0, :2, 2].tolist() == [144, 80]


def network(**fields) -> MultiHMR:
    torch.manual_seed(0)
    config = MultiHMRConfig(backbone="hybrid_lite0", image_size=96, rectangular=True, **fields)
    return MultiHMR(config, load_body("anny")).eval()


def test_queries_know_their_place_in_the_square():
    """Rows and columns of the learned tables are those of the cell in the square around the window."""
    model = network()
    head = model.head
    rows = torch.arange(6.0)[:, None].expand(6, head.query_rows.shape[1])
    head.query_rows.data.copy_(rows)
    centers = type("C", (), {"row_P": torch.tensor([0, 3]), "col_P": torch.tensor([1, 5])})
    row_P, col_P = head._square_cells(centers, torch.zeros(1, 8, 4, 6))
    assert row_P.tolist() == [1, 4]
    assert col_P.tolist() == [1, 5]


@pytest.mark.parametrize("shape", [(96, 64), (64, 96), (96, 96)])
@torch.no_grad()
def test_all_shapes_go_through_the_network(shape):
    model = network(read_joints=(0, 1, 2))
    predictions = model(torch.rand(2, 3, *shape), threshold=0.0, max_people=2)
    assert predictions.logits_Bhw.shape == (2, shape[0] // 16, shape[1] // 16)
    assert predictions.vertices_PV3.isfinite().all()
    assert predictions.K_B33[0, :2, 2].tolist() == [shape[1] / 2, shape[0] / 2]


@torch.no_grad()
def test_other_shapes_are_refused_in_one_sentence():
    with pytest.raises(
        ValueError, match="longer side is 96 pixels and whose sides are multiples of 32, got 64x64"
    ):
        network()(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="multiples of 32, got 96x80"):
        network()(torch.rand(1, 3, 96, 80))
    square = MultiHMR(MultiHMRConfig(image_size=96), load_body("anny"))
    with pytest.raises(ValueError, match="windows of 96x96 pixels, got 96x64"):
        square(torch.rand(1, 3, 96, 64))
    with pytest.raises(ValueError, match="rectangular windows need a hybrid backbone"):
        MultiHMRConfig(rectangular=True, backbone="dinov2_vits14", image_size=448)
    with pytest.raises(ValueError, match="image sizes that are multiples of 32, got 100"):
        MultiHMRConfig(rectangular=True, image_size=100)


@torch.no_grad()
def test_refinement_samples_maps_at_the_joints_of_rectangular_windows():
    """A map whose value is its column, then its row: sampled at a place, it gives that place back."""
    from multihmr.networks.backbones.base import Features
    from multihmr.networks.refinement import _by_axis

    grid = torch.zeros(1, 2, 4, 8)
    places = torch.tensor([[[0.5, 0.25], [1.0, 0.5]]])  # in longer sides: the middle, the lower right corner
    by_axis = _by_axis(places, Features(grid, torch.zeros(1, 2)))
    torch.testing.assert_close(by_axis, torch.tensor([[[0.5, 0.5], [1.0, 1.0]]]))
    refined = network(refine=True, read_joints=(0, 1, 2))
    found = refined(torch.rand(1, 3, 64, 96), threshold=0.0, max_people=1)
    assert found.vertices_PV3.isfinite().all()


def test_pictures_of_all_shapes_in_one_batch_are_predicted_as_alone():
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((90, 160), (96, 96), (45, 80), (120, 80))
    ]
    model = Model(network())
    shapes = []
    forward = model.network.forward
    model.network.forward = lambda x, *args, **more: (
        shapes.append(tuple(x.shape)),
        forward(x, *args, **more),
    )[1]
    together = model.predict_batch(images, threshold=0.0, max_people=2)
    assert sorted(shapes) == [(1, 3, 96, 64), (1, 3, 96, 96), (2, 3, 64, 96)]
    for image, humans in zip(images, together, strict=True):
        alone = model.predict(image, threshold=0.0, max_people=2)
        np.testing.assert_allclose(humans.vertices, alone.vertices, atol=1e-4)
        np.testing.assert_allclose(humans.K, alone.K, rtol=1e-5)
        assert humans.image_size == image.shape[:2]


def test_a_runtime_of_squares_gets_squares():
    model = Model(network())
    shapes = []
    run = model.runtime.__class__.__call__

    class Squares(model.runtime.__class__):
        def __call__(self, images, letterboxes, *args):
            shapes.extend(box.shape for box in letterboxes)
            return run(self, images, letterboxes, *args)

    model.runtime = Squares(model.network, square=True)
    model.predict(np.zeros((90, 160, 3), np.uint8), threshold=0.0, max_people=1)
    assert shapes == [(96, 96)]


@torch.no_grad()
def test_the_backbone_sees_the_same_whatever_is_cut_off_far_away():
    """Convolutions and positions agree; only attention to the padding and borders differ."""
    torch.manual_seed(0)
    backbone = create_backbone("hybrid_lite0", image_size=288).eval()
    backbone.blocks = torch.nn.Sequential()  # without attention
    image = torch.full((1, 3, 288, 288), 128 / 255)
    image[..., 48:240, :] = torch.rand(1, 3, 192, 288)
    square = backbone(image).grid_BDhw[:, :, 3:15]
    thin = backbone(image[..., 48:240, :]).grid_BDhw
    torch.testing.assert_close(thin[:, :, 5:7, 8:10], square[:, :, 5:7, 8:10], atol=0.35, rtol=0)
