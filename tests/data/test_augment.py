import numpy as np
import pytest
import torch

from multihmr.bodies.anny import Anny
from multihmr.data.augment import Augmentation, augment, flip, see
from multihmr.data.sample import Sample
from multihmr.geometry import default_intrinsics, project
from multihmr.image import Window

TRANSLATION = np.float32([[0.4, -0.3, 4.0], [-0.6, 0.2, 5.0]])
COLOURS = ((255, 0, 0), (0, 0, 255))
TOPOLOGY = Anny().topology
STILL = Augmentation(colour=0, grey=0, blur=0, noise=0, flip=0)


def heads(sample: Sample) -> np.ndarray:
    return project(torch.from_numpy(sample.translation), torch.from_numpy(sample.K)).numpy()


@pytest.fixture
def sample() -> Sample:
    """Two people whose heads are a red and a blue dot."""
    K = default_intrinsics(240, 320).numpy()
    sample = Sample(
        image=np.full((240, 320, 3), 90, np.uint8),
        K=K,
        pose=np.tile(np.eye(3, dtype=np.float32), (2, 104, 1, 1)),
        shape=np.full((2, 6), 0.5, np.float32),
        expression=np.zeros((2, 52), np.float32),
        translation=TRANSLATION,
        visibility=np.ones(2, np.float32),
        name="dots",
    )
    for (x, y), colour in zip(heads(sample), COLOURS, strict=True):
        sample.image[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4] = colour
    return sample


def assert_dots_at_heads(sample: Sample) -> None:
    for (x, y), colour in zip(heads(sample), COLOURS, strict=True):
        seen = sample.image[int(y), int(x)].astype(int)
        assert np.abs(seen - colour).max() < 90, (x, y, seen)


@pytest.mark.parametrize("seed", range(12))
def test_truth_falls_where_the_picture_went(sample, seed):
    moved = augment(sample, 256, np.random.default_rng(seed), TOPOLOGY, STILL)
    assert moved.image.shape == (256, 256, 3)
    assert_dots_at_heads(moved)


def test_no_head_leaves_the_window(sample):
    for seed in range(60):
        xy = heads(augment(sample, 128, np.random.default_rng(seed), TOPOLOGY, Augmentation(crop=1.0)))
        assert (xy > 0).all()
        assert (xy < 128).all()


def test_a_mirrored_sample_keeps_its_dots_and_mirrored_twice_is_itself(sample):
    assert_dots_at_heads(flip(sample, TOPOLOGY))
    twice = flip(flip(sample, TOPOLOGY), TOPOLOGY)
    np.testing.assert_array_equal(twice.image, sample.image)
    np.testing.assert_allclose(twice.K, sample.K)
    np.testing.assert_allclose(twice.pose, sample.pose, atol=1e-6)


def test_seeing_through_a_window_moves_no_metre(sample):
    moved = see(sample, Window.whole(240, 320, 64))
    np.testing.assert_array_equal(moved.translation, sample.translation)
    assert_dots_at_heads(see(sample, Window.whole(240, 320, 300)))


def test_the_same_seed_gives_the_same_picture(sample):
    one, two = (augment(sample, 96, np.random.default_rng(5), TOPOLOGY) for _ in range(2))
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.K, two.K)
