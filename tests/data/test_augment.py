import dataclasses

import numpy as np
import pytest
import torch

from multihmr.bodies.anny import Anny
from multihmr.data.augment import Augmentation, augment
from multihmr.data.sample import Sample
from multihmr.geometry import default_intrinsics, project

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


@pytest.mark.slow
def test_no_head_leaves_the_window(sample):
    for seed in range(60):
        xy = heads(augment(sample, 128, np.random.default_rng(seed), TOPOLOGY, Augmentation(crop=1.0)))
        assert (xy > 0).all()
        assert (xy < 128).all()


ALL = dataclasses.replace(STILL, crop=0.5, focal_jitter_prob=0.5, rotation_prob=0.9, occlusion_prob=1.0)


@pytest.mark.parametrize("seed", range(12))
def test_lenses_rolls_and_patches_keep_heads_in_sight(sample, seed):
    assert_dots_at_heads(augment(sample, 256, np.random.default_rng(seed), TOPOLOGY, ALL))


def test_lenses_change_the_focal_length_and_keep_the_principal_point(sample):
    how = dataclasses.replace(STILL, focal_jitter_prob=1.0)
    focals = []
    for seed in range(20):
        moved = augment(sample, 128, np.random.default_rng(seed), TOPOLOGY, how)
        focals.append(moved.K[0, 0] / (sample.K[0, 0] * 128 / 320))
        np.testing.assert_allclose(moved.K[:2, 2], 64, atol=1e-3)
    assert 0.7 <= min(focals) < 0.85
    assert 1.4 < max(focals) <= 1.8


def test_patches_cover_something(sample):
    how = dataclasses.replace(STILL, crop=0, occlusion_prob=1.0)
    still = augment(
        sample, 128, np.random.default_rng(0), TOPOLOGY, dataclasses.replace(how, occlusion_prob=0)
    )
    changed = augment(sample, 128, np.random.default_rng(0), TOPOLOGY, how)
    assert 50 < (changed.image != still.image).any(-1).sum() < 128 * 128 / 2


def test_light_changes_colours_and_nothing_else(sample):
    how = Augmentation(crop=0, flip=0, colour=1, grey=0, blur=0, noise=0)
    moved = augment(sample, 320, np.random.default_rng(1), TOPOLOGY, how)
    np.testing.assert_array_equal(moved.translation, sample.translation)
    flat = moved.image[100, :20].reshape(-1, 3)
    assert (flat == flat[0]).all()
    grey = augment(sample, 320, np.random.default_rng(1), TOPOLOGY, dataclasses.replace(how, grey=1))
    assert np.ptp(grey.image, axis=-1).max() <= 1


def test_unknown_cameras_and_places_pass(sample):
    unknown = dataclasses.replace(
        sample, K=sample.K * np.nan, translation=sample.translation * np.nan, pose=sample.pose[:, :0]
    )
    for seed in range(8):
        how = dataclasses.replace(ALL, flip=0.5)
        moved = augment(unknown, 64, np.random.default_rng(seed), TOPOLOGY, how)
        assert moved.image.shape == (64, 64, 3)


def test_the_same_seed_gives_the_same_picture(sample):
    one, two = (augment(sample, 96, np.random.default_rng(5), TOPOLOGY) for _ in range(2))
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.K, two.K)


def test_a_window_on_one_person_shows_them_large(sample):
    how = dataclasses.replace(STILL, person_crop_prob=1.0, room=(2.0, 2.0))
    whole = augment(sample, 96, np.random.default_rng(0), TOPOLOGY, dataclasses.replace(STILL, crop=0))
    for seed in range(8):
        moved = augment(sample, 96, np.random.default_rng(seed), TOPOLOGY, how)
        xy = heads(moved)
        assert ((xy > 0) & (xy < 96)).all(-1).any()
        # 2 m fill the window where the person stands, 4 or 5 m away.
        assert moved.K[0, 0] in (pytest.approx(96 * 4 / 2, rel=0.01), pytest.approx(96 * 5 / 2, rel=0.01))
        assert moved.K[0, 0] > 2 * whole.K[0, 0]


def test_nobody_near_enough_leaves_the_picture_as_it_is(sample):
    far = dataclasses.replace(sample, translation=TRANSLATION * 40)
    how = dataclasses.replace(STILL, crop=0)
    rng = np.random.default_rng
    one, other = (
        augment(far, 96, rng(0), TOPOLOGY, dataclasses.replace(how, person_crop_prob=p)) for p in (0, 1)
    )
    assert (one.image == other.image).all()


@pytest.mark.parametrize("shape", [(96, 128), (128, 64)])
@pytest.mark.parametrize("seed", range(6))
def test_rectangular_views_keep_their_truth(sample, shape, seed):
    how = dataclasses.replace(STILL, rotation_prob=0.5, crop=0.8)
    moved = augment(sample, shape, np.random.default_rng(seed), TOPOLOGY, how)
    assert moved.image.shape == (*shape, 3)
    for (x, y), colour in zip(heads(moved), COLOURS, strict=True):
        if 4 < x < shape[1] - 4 and 4 < y < shape[0] - 4:
            nearby = moved.image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].astype(int)
            assert np.abs(nearby - colour).max(-1).min() < 110, (x, y)


def test_rectangular_views_keep_heads_where_there_is_room(sample):
    seen = 0
    for seed in range(40):
        moved = augment(
            sample, (128, 64), np.random.default_rng(seed), TOPOLOGY, dataclasses.replace(STILL, crop=0)
        )
        xy = heads(moved)
        seen += int(((xy > 0) & (xy < (64, 128))).all())
    # Without crops the heads are 25 pixels apart in a picture 128 wide: they always fit into 64.
    assert seen == 40


def test_rectangular_views_with_everything_on(sample):
    how = Augmentation(
        person_crop_prob=0.4,
        focal_jitter_prob=0.3,
        full_rotation_prob=0.3,
        occlusion_prob=1,
        camera_effects_prob=1,
    )
    for seed in range(20):
        for shape in ((64, 96), (96, 64)):
            assert augment(sample, shape, np.random.default_rng(seed), TOPOLOGY, how).image.shape == (
                *shape,
                3,
            )
