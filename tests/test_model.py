"""The bundled model through the public door: CPU, no download."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import multihmr
from multihmr.hub import landmarks
from multihmr.networks.configs import MultiHMRConfig
from multihmr.storage.fingerprint import fingerprint


@pytest.fixture(scope="module")
def model():
    return multihmr.load_model(device="cpu")


@pytest.fixture(scope="module")
def astronaut():
    return pytest.importorskip("skimage.data", reason="its pictures come with scikit-image").astronaut()


@pytest.mark.slow
def test_the_astronaut_is_found_once_with_the_head_where_it_is(model, astronaut):
    humans = model.predict(astronaut)
    assert len(humans) == 1
    head = humans.keypoints("coco17").xy[0, :5].mean(0)
    assert np.abs(head - (224, 115)).max() < 51  # 10 % of 512 pixels around her face


@pytest.mark.slow
def test_grace_hopper_is_found_once_with_the_head_where_it_is(model):
    cbook = pytest.importorskip("matplotlib.cbook", reason="her portrait comes with matplotlib")
    humans = model.predict(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    assert len(humans) == 1
    head = humans.keypoints("coco17").xy[0, :5].mean(0)
    assert np.abs(head - (255, 200)).max() < 60  # 10 % of 600 pixels


@pytest.mark.slow
def test_mixed_sizes_in_a_batch_are_as_one_by_one(model, astronaut):
    nobody = np.full((90, 200, 3), 128, np.uint8)
    pictures = [astronaut, astronaut[:, 60:400], nobody, astronaut[:400], nobody]
    together = model.predict_batch(pictures, batch_size=4)
    alone = [model.predict(picture) for picture in pictures]
    assert [len(h) for h in together] == [len(h) for h in alone]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-3)


@pytest.mark.slow
def test_batches_of_nobody(model):
    nobody = [np.full((64, 64, 3), value, np.uint8) for value in (0, 128, 255)]
    assert [len(humans) for humans in model.predict_batch(nobody)] == [0, 0, 0]
    assert model.predict_batch([]) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "crop", [np.s_[:, 100:350], np.s_[40:400], np.s_[:, :]], ids=["tall", "wide", "square"]
)
def test_joints_project_onto_their_pixels_with_K(model, astronaut, crop):
    humans = model.predict(astronaut[crop])
    assert len(humans) == 1
    assert humans.K_source == "predicted"
    projected = humans.joints @ humans.K.T
    np.testing.assert_allclose(projected[..., :2] / projected[..., 2:], humans.joints_2d, atol=0.1)


@pytest.mark.slow
def test_doubling_the_resolution_moves_nobody(model, astronaut):
    doubled = np.asarray(Image.fromarray(astronaut).resize((1024, 1024), Image.Resampling.BICUBIC))
    small, large = model.predict(astronaut, fov=50), model.predict(doubled, fov=50)
    moved = np.linalg.norm(small.translation - large.translation, axis=1)
    assert moved.max() < 0.02 * np.linalg.norm(small.translation, axis=1).max()


@pytest.mark.slow
def test_a_saved_result_gives_the_same_vertices(model, astronaut, tmp_path):
    humans = model.predict(astronaut)
    humans.save(tmp_path / "people.npz")
    again = multihmr.load_humans(tmp_path / "people.npz")
    np.testing.assert_allclose(again.vertices, humans.vertices, atol=1e-5)


@pytest.mark.slow
def test_the_camera_in_its_order(model, astronaut):
    K = np.array([[600.0, 0, 256], [0, 600, 256], [0, 0, 1]])
    assert model.predict(astronaut, K).K_source == "given"
    assert model.predict(astronaut, fov=60).K[0, 0] == pytest.approx(256 / np.tan(np.pi / 6), rel=1e-4)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 50  # FocalLengthIn35mmFilm
    stream = io.BytesIO()
    Image.fromarray(astronaut).save(stream, "JPEG", exif=exif)
    assert model.predict(stream.getvalue()).K_source == "exif"
    assert model.predict(astronaut).K_source == "predicted"
    near, far = (model.predict(astronaut, fov=fov).translation[0, 2] for fov in (90, 20))
    assert far > near


def test_bad_options_are_refused_in_a_sentence(model, astronaut):
    with pytest.raises(ValueError, match="degrees"):
        model.predict(astronaut, fov=200)
    with pytest.raises(ValueError, match="between 0 and 1"):
        model.predict(astronaut, threshold=3)
    with pytest.raises(ValueError, match="Ks must hold one entry"):
        model.predict_batch([astronaut], [None, None])


def test_a_fingerprint_changes_with_weights_and_config():
    model: Any = torch.nn.Linear(2, 2)
    model.config = MultiHMRConfig()
    before = fingerprint(model)
    assert before == fingerprint(model)
    model.config = MultiHMRConfig(threshold=0.4)
    assert len({before, fingerprint(model)}) == 2
    torch.nn.init.zeros_(model.bias)
    model.config = MultiHMRConfig()
    assert fingerprint(model) != before


@pytest.fixture(scope="module")
def expected(model, astronaut):
    return model.predict(astronaut)


@pytest.fixture(params=["before loading", "after loading"])
def foreign_defaults(request):
    """What a host program may set: float64, and a device on which nothing can be computed."""
    yield request.param, lambda: (torch.set_default_dtype(torch.float64), torch.set_default_device("meta"))
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.slow
def test_defaults_of_the_host_program_do_not_disturb(foreign_defaults, expected, astronaut, tmp_path):
    when, set_defaults = foreign_defaults
    if when == "before loading":
        set_defaults()
    model = multihmr.load_model(device="cpu")
    if when == "after loading":
        set_defaults()
    humans = model.predict(astronaut)
    np.testing.assert_allclose(humans.vertices, expected.vertices, atol=1e-5)
    with_fov, tiled = model.predict(astronaut, fov=60.0), model.predict(astronaut, tiles=2)
    assert (with_fov.K.dtype, len(tiled)) == (np.float32, 1)
    assert len(model.predict(np.zeros((64, 64, 3), np.uint8))) == 0
    landmarks.load_landmark_networks.cache_clear()
    everything = model.predict(np.rot90(astronaut), flip_test=True, hands_and_faces=True)
    assert (len(everything), everything.refined.any()) == (1, True)
    assert len(multihmr.load_model(device="cpu", image_size=320).predict(astronaut)) == 1
    again = multihmr.load_humans(humans.save(tmp_path / "people.npz"))
    np.testing.assert_allclose(again.vertices, humans.vertices, atol=1e-5)
    assert humans.save(tmp_path / "people.glb", rigged=True).stat().st_size > 100_000
    assert torch.get_default_dtype() == torch.float64


@pytest.mark.slow
def test_loading_leaves_random_numbers_alone_and_can_be_trained_from_inference_mode():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with torch.inference_mode():
        model = multihmr.load_model(device="cpu")
    assert torch.equal(torch.rand(2), expected)
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # refused for tensors made in inference mode
    assert not any(tensor.is_inference() for tensor in model.state_dict().values())


def test_people_are_sorted_by_the_distance_that_is_printed():
    """2.5 m to the side at 3 m depth is 3.9 m away: farther than somebody 3.2 m straight ahead."""
    from types import SimpleNamespace

    from multihmr.networks.base import Predictions

    heads_P3 = torch.tensor([[2.5, 0, 3.0], [0, 0, 3.2], [0, 0, 9.0]])
    centers = SimpleNamespace(image_index_P=torch.tensor([0, 0, 1]), scores_P=torch.tensor([0.9, 0.8, 0.7]))
    parts = ("pose_PR33", "shape_PS", "expression_PE", "vertices_PV3", "joints_PJ3")
    found = SimpleNamespace(centers=centers, translation_P3=heads_P3, **dict.fromkeys(parts, heads_P3))
    people = Predictions.of_image(found, 0)
    assert people["translation"][:, 2].tolist() == pytest.approx([3.2, 3.0])
    assert people["scores"].tolist() == pytest.approx([0.8, 0.9])


def test_the_summary_names_what_is_not_predicted_if_that_is_short() -> None:
    from multihmr.model.summary import _names_text

    assert _names_text(()) == "-"
    assert _names_text(("jaw",)) == "jaw"
    assert _names_text(tuple("abcde")) == "5 joints and expressions"
