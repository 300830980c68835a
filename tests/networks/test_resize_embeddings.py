import numpy as np
import pytest
import torch
from toys import tiny_glnet, tiny_network

from multihmr import load_model
from multihmr.bodies.loading import load_body
from multihmr.hub.loading import save_network
from multihmr.networks.configs import MultiHMRConfig
from multihmr.networks.multihmr import MultiHMR
from multihmr.networks.resize_embeddings import at_image_size, check_image_size, stretched


def test_tables_of_rows_are_stretched_and_the_rest_stays():
    rows, other = torch.tensor([[0.0, 4.0], [2.0, 0.0]]), torch.rand(3)
    found = stretched({"rows": rows, "other": other}, {"rows": torch.zeros(4, 2), "other": torch.zeros(3)})
    torch.testing.assert_close(found["rows"], torch.tensor([[0.0, 4.0], [0.5, 3.0], [1.5, 1.0], [2.0, 0.0]]))
    assert found["other"] is other


def test_positions_of_patches_are_resampled_and_that_of_the_whole_picture_stays():
    whole, square = torch.full((1, 1, 2), 7.0), torch.arange(4.0).view(1, 4, 1).expand(1, 4, 2)
    wanted = {"vit.pos_embed": torch.zeros(1, 17, 2)}
    found = stretched({"vit.pos_embed": torch.cat([whole, square], dim=1)}, wanted)["vit.pos_embed"]
    torch.testing.assert_close(found[:, :1], whole)
    assert found.shape == (1, 17, 2)
    assert found[0, 1:, 0].argmin() == 0
    assert found[0, 1:, 0].argmax() == 15


def test_a_network_at_another_size_finds_the_same_people_at_the_same_places():
    """Positions are relative to the window, so that a picture looks the same at both sizes."""
    small = tiny_network(rectangular=True)
    large = at_image_size(small, 128)
    assert (large.config.image_size, small.config.image_size) == (128, 64)
    assert large.head.query_rows.shape[0] == 2 * small.head.query_rows.shape[0]
    with torch.no_grad():
        found = large(torch.rand(1, 3, 96, 128), threshold=0.0, max_people=1)
    assert found.vertices_PV3.isfinite().all()
    assert found.K_B33[0, :2, 2].tolist() == [64, 48]


@pytest.mark.parametrize(
    ("network", "size", "sentence"),
    [
        (tiny_network(), 128, "takes images of 64 pixels only"),
        (tiny_glnet(), 128, "takes images of [0-9]+ pixels only"),
        (
            tiny_network(rectangular=True),
            100,
            "image_size must be one of 64, got 100; this network was trained with 64",
        ),
        (tiny_network(rectangular=True), "64", "must be one of 64, got '64'"),
        (tiny_network(rectangular=True), (64, 64), "must be one of 64, got"),
        (tiny_network(rectangular=True), 64.0, "must be one of 64, got 64.0"),
        (tiny_network(rectangular=True), 99968, "must be one of 64, got 99968"),
    ],
)
def test_other_sizes_are_refused_in_one_sentence(network, size, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_image_size(network, size)


@pytest.mark.slow
def test_load_model_takes_an_image_size(tmp_path):
    config = MultiHMRConfig(image_size=128, rectangular=True)
    file = save_network(MultiHMR(config, load_body("anny")), tmp_path / "small.safetensors")
    one, other = load_model(file, device="cpu"), load_model(file, device="cpu", image_size=96)
    assert other.config.image_size == 96
    assert one.fingerprint != other.fingerprint
    assert load_model(file, device="cpu", image_size=128).fingerprint == one.fingerprint
    picture = np.zeros((96, 72, 3), np.uint8)
    assert other.network.letterbox(*picture.shape[:2]).shape == (96, 64 + 32)
    other.predict(picture, threshold=0.0, max_people=1)
