from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from toys import ToyBody, tiny_glnet, tiny_glnet_model, tiny_model

from multihmr.geometry import default_intrinsics, pixel_rays, project
from multihmr.hub import loading as hub
from multihmr.model import load_model, save_model
from multihmr.model.top_down import load_bundled_detector
from multihmr.networks.configs import GLNetConfig
from multihmr.networks.glnet import GLNet
from multihmr.networks.glnet_parameters import Theta, crop_rotation
from multihmr.networks.glnet_stages import layout_of

SWITCHES = [
    {},
    {"local": False},
    {"guidance": "roi"},
    {"decomposed": True},
    {"candidates": 3},
    {"layout": True},
]
K = default_intrinsics(120, 160).numpy()


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (120, 160, 3), dtype=np.uint8)


@pytest.mark.parametrize("switches", SWITCHES)
def test_one_person_a_crop_and_a_batch_equals_one_by_one(switches):
    model, crops = tiny_glnet(**switches), torch.rand(3, 3, 64, 64)
    together = model(crops)
    assert together.vertices_PV3.shape == (3, 12, 3)
    assert together.centers.image_index_P.tolist() == [0, 1, 2]
    alone = torch.cat([model(crop[None]).vertices_PV3 for crop in crops])
    torch.testing.assert_close(together.vertices_PV3, alone, atol=1e-4, rtol=1e-4)


def test_the_best_pixel_speaks():
    pred = tiny_glnet()(torch.rand(2, 3, 64, 64))
    best = pred.logits_Bhw.flatten(1).argmax(1)
    assert (pred.centers.row_P * 8 + pred.centers.col_P).tolist() == best.tolist()
    torch.testing.assert_close(pred.centers.scores_P, pred.logits_Bhw.flatten(1).amax(1).sigmoid())


def test_only_pixels_that_are_asked_look_around(monkeypatch):
    """What is interpolated does not grow with the grid, and is linear in the pixels that are asked."""
    numbers = []
    real = F.grid_sample
    monkeypatch.setattr(F, "grid_sample", lambda *a, **o: numbers.append(real(*a, **o)) or numbers[-1])
    for candidates in (1, 3):
        tiny_glnet(candidates=candidates)(torch.rand(2, 3, 64, 64))
    one, three = (sum(t.numel() for t in part) for part in (numbers[:2], numbers[2:]))
    assert one == 2 * 3 * 2 * 2 * 32  # crops, keypoints, maps, points, channels
    assert three == 3 * one


def test_without_a_correction_the_glance_holds():
    model, crops = tiny_glnet(), torch.rand(1, 3, 64, 64)
    for layer in (*model.local_head.move_parts, model.local_head.move_whole[2]):
        torch.nn.init.zeros_(layer.weight)
    refined = model(crops)
    model.local_head = None
    torch.testing.assert_close(model(crops).vertices_PV3, refined.vertices_PV3)


@pytest.mark.parametrize("decomposed", [False, True])
def test_every_column_is_corrected_by_one_part(decomposed):
    model = tiny_glnet(decomposed=decomposed)
    assert sorted(model.local_head.order) == list(range(model.theta.width))


def test_the_head_lies_where_pixel_and_offset_say():
    camera = default_intrinsics(64, 64)[None] + torch.tensor([[[30.0, 0, 40], [0, 30, -70], [0, 0, 0]]])
    pred = tiny_glnet()(torch.rand(1, 3, 64, 64), camera)
    at = pred.centers.heads(pred.offset_P2) * 8
    torch.testing.assert_close(project(pred.translation_P3[:, None], camera)[:, 0], at, atol=1e-2, rtol=1e-4)
    assert pred.joints_PJ3[0, ToyBody.center_joint].tolist() == pytest.approx(pred.translation_P3[0].tolist())


def test_people_turn_with_the_gaze():
    """The same numbers in a crop far from the axis mean a person turned with the ray through its middle."""
    camera = default_intrinsics(64, 64)[None].clone()
    camera[0, 0, 2] += 100
    turn = crop_rotation(camera, 64)
    ray = pixel_rays(torch.full((1, 1, 2), 32.0), camera)[0, 0]
    seen = turn[0] @ torch.tensor([0.0, 0, 1])
    torch.testing.assert_close(seen[:2] / seen[2], ray)
    theta = Theta(ToyBody(), (0, 1, 2), decomposed=True)
    rows = theta.mean_C + 0.1 * torch.randn(1, theta.width)
    ahead, aside = theta(rows, torch.eye(3)[None]), theta(rows, turn)
    torch.testing.assert_close(aside.pose_NR33[0, 0], turn[0] @ ahead.pose_NR33[0, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(aside.pose_NR33[0, 1:], ahead.pose_NR33[0, 1:], atol=1e-5, rtol=0)


def test_mean_numbers_mean_the_mean_person():
    for decomposed in (False, True):
        theta = Theta(ToyBody(), (0, 1, 2), decomposed=decomposed)
        meaning = theta(theta.mean_C[None], torch.eye(3)[None])
        torch.testing.assert_close(meaning.pose_NR33[0], ToyBody().mean_pose_R33, atol=1e-5, rtol=0)
        torch.testing.assert_close(meaning.shape_NS[0], ToyBody().mean_shape_S)


def test_pixels_move_and_metres_do_not():
    """A picture with a margin, its camera and boxes moved along: everybody stays where they are."""
    model, boxes = tiny_glnet_model(), np.array([[40, 30, 100, 90.0]])
    wide = np.full((200, 300, 3), 128, np.uint8)
    wide[30:150, 50:210] = picture()
    moved = K + np.float32([[0, 0, 50], [0, 0, 30], [0, 0, 0]])
    here = model.predict(picture(), K, boxes)
    there = model.predict(wide, moved, boxes + [50, 30, 50, 30])
    np.testing.assert_allclose(there.vertices, here.vertices, atol=1e-4)
    np.testing.assert_allclose(there.joints_2d, here.joints_2d + [50, 30], atol=0.05)


def test_people_come_in_the_order_of_their_boxes():
    model, boxes = tiny_glnet_model(), [[100, 20, 150, 110], [10, 10, 60, 60], [40, 0, 120, 120]]
    humans = model.predict(picture(), K, boxes)
    assert (len(humans), humans.K_source, humans.image_size) == (3, "given", (120, 160))
    alone = [model.predict(picture(), K, [box]).vertices[0] for box in boxes]
    np.testing.assert_allclose(humans.vertices, alone, atol=1e-4)
    best = model.predict(picture(), K, boxes, max_people=1)
    assert best.scores.tolist() == [humans.scores.max()]
    assert len(model.predict(picture(), K, boxes, threshold=1.0)) == 0


@pytest.mark.slow
def test_many_boxes_in_many_pictures_go_through_in_bounded_batches(monkeypatch):
    model, counts = tiny_glnet_model(), []
    real = GLNet.forward
    monkeypatch.setattr(GLNet, "forward", lambda self, x, K=None: counts.append(len(x)) or real(self, x, K))
    table = np.tile([20.0, 10, 80, 100], (50, 1))
    humans = model.predict_batch([picture(), picture(1), picture(2)], boxes=[table, [], table])
    assert [len(people) for people in humans] == [50, 0, 50]
    assert counts == [32, 32, 32, 4, 1]  # the last to know what nobody looks like
    assert humans[1].vertices.shape == (0, 12, 3)
    assert humans[0].K_source == "assumed"


def test_people_cut_by_the_frame_are_looked_at():
    humans = tiny_glnet_model().predict(picture(), K, [[-40, 50, 30, 200], [150, -20, 400, 60]])
    assert np.isfinite(humans.vertices).all()


def test_without_boxes_people_are_found():
    model, finder = tiny_glnet_model(), tiny_model()
    with pytest.raises(ValueError, match="give boxes, or load it with load_model"):
        model.predict(picture())
    model.load_detector = lambda device: finder
    found = finder.predict(picture(), threshold=0.0, max_people=3)
    humans = model.predict(picture(), threshold=0.0, max_people=3)
    assert len(humans) == len(found) == 3
    assert sorted(humans.scores.tolist()) == sorted(found.scores.tolist())
    assert (np.diff(humans.distances) >= 0).all()
    assert humans.K_source == "predicted"
    np.testing.assert_allclose(humans.K, found.K)
    assert model.predict(picture(), K, threshold=0.0, max_people=1).K_source == "given"
    # One camera per picture: with boxes it is the one that the detector predicts without them.
    box = [[40, 10, 100, 110]]
    with_boxes = model.predict_batch([picture(), picture(1)], boxes=[box, box + box])
    assert [humans.K_source for humans in with_boxes] == ["predicted", "predicted"]
    np.testing.assert_array_equal(with_boxes[0].K, found.K)
    np.testing.assert_array_equal(with_boxes[1].K, finder.predict(picture(1)).K)
    assert model.predict(picture(), boxes=box, fov=50.0).K_source == "given"
    assert not any("finder" in name or "detector" in name for name in model.state_dict())


def test_bad_boxes_are_explained():
    with pytest.raises(ValueError, match="which has no area; leave it out"):
        tiny_glnet_model().predict(picture(), K, [[10, 10, 10, 60]])


def test_tables_must_match_pictures():
    with pytest.raises(ValueError, match=r"boxes must hold one entry .* got 1 for 2 images"):
        tiny_glnet_model().predict_batch([picture(), picture()], boxes=[None])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"guidance": "luck"}, "guidance must be one of keypoints, roi, got 'luck'"),
        ({"parts": ()}, "needs the parts of its body"),
        (
            {"parts": (((2,), (0, 1)),)},
            "each of the 3 rotations of body 'toy' once; they move 2, 2 different",
        ),
        ({"parts": (((0,), (0, 1, 2)),)}, "no part of body 'toy' is guided by its head; add joint 2"),
        ({"positives": 0}, "positives must be at least 1"),
    ],
)
def test_a_config_that_fits_no_body_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_glnet(**changes)


def test_settings_change_a_config():
    config = tiny_glnet().config.changed("local=no,positives=50,cost=2d+depth")
    assert (config.local, config.positives, config.cost) == (False, 50, "2d+depth")
    with pytest.raises(ValueError, match="'depth=3' sets nothing"):
        config.changed("depth=3")
    assert isinstance(config, GLNetConfig)


@pytest.mark.slow
def test_a_saved_glnet_comes_back_and_knows_who_finds_people(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "load_body", lambda name, **_: ToyBody())
    model = tiny_glnet()
    again = load_model(save_model(model, tmp_path / "glnet.safetensors"), device="cpu")
    assert again.config == model.config
    crops = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(again(crops).vertices_PV3, model(crops).vertices_PV3)
    assert again.load_detector is load_bundled_detector


def test_the_layout_is_that_of_the_keypoints_wherever_they_are_and_its_last_number_their_extent():
    places = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(0))
    layout = layout_of(places)
    torch.testing.assert_close(layout_of(places + 0.3), layout)
    larger = layout_of(2 * places)
    torch.testing.assert_close(larger[:, :-1], layout[:, :-1])
    torch.testing.assert_close(larger[:, -1], layout[:, -1] + math.log(2))
    assert layout_of(torch.zeros(1, 5, 2)).isfinite().all()


def test_a_second_look_with_a_layout_hears_where_the_keypoints_are():
    model = tiny_glnet(layout=True)
    places = torch.rand(1, 1, len(model.config.keypoints), 2)
    x_1D, theta = torch.rand(1, 1, model.config.width), model.theta.mean_C.expand(1, 1, -1)
    nothing = [torch.zeros(1, width, 2, 2) for width in model.backbone.map_widths]
    one, other = (model.local_head(x_1D, theta, p, nothing)[0] for p in (places, 0.5 * places))
    assert (one - other).abs().max() > 1e-6


@pytest.mark.slow
def test_the_bundled_glnet_puts_the_head_where_the_bundled_multihmr_does():
    picture = Path(__file__).parents[2] / "examples/images/astronaut.jpg"
    one, other = (load_model(name, device="cpu") for name in ("glnet-anny-hybrid", None))
    found = other.predict(picture)
    looked_at = one.predict(picture, found.K, found.boxes)
    head = one.body.center_joint
    apart = np.linalg.norm(looked_at.joints_2d[0, head] - found.joints_2d[0, head])
    assert apart < 0.05 * max(found.image_size)
    np.testing.assert_allclose(looked_at.translation[0, 2], found.translation[0, 2], rtol=0.3)


@pytest.mark.slow
def test_the_bundled_glnet_sees_people_in_one_place_however_crop_and_picture_are_drawn():
    """Boxes a tenth larger and smaller, a picture of twice the size; scripts/measure_crops.py has figures.

    Without limbs, which are aligned in crops of their own.
    """
    with Image.open(Path(__file__).parents[2] / "examples/images/group.jpg") as file:
        picture = file.convert("RGB")
    model, finder = (load_model(name, device="cpu") for name in ("glnet-anny-hybrid", None))
    found = finder.predict(picture)
    assert len(found) == 3
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    grown = 0.05 * np.concatenate([-sides, sides], axis=1)
    places = [
        model.predict(picture, found.K, found.boxes + d * grown, limbs=False).translation for d in (-1, 1)
    ]
    apart = np.linalg.norm(places[0] - places[1], axis=1) / np.linalg.norm(places[0], axis=1)
    assert np.median(apart) < 0.04

    twice = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.BICUBIC)
    here = model.predict(picture, found.K, found.boxes, limbs=False)
    there = model.predict(twice, found.K * [[2], [2], [1]], 2 * found.boxes, limbs=False)
    np.testing.assert_allclose(there.translation, here.translation, atol=0.02 * here.distances.max())
    pixels = here.joints @ here.K.T
    np.testing.assert_allclose(pixels[..., :2] / pixels[..., 2:], here.joints_2d, atol=0.1)
