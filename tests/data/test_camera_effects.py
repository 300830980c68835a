"""Pictures as phones and websites show them."""

import numpy as np
import torch

from multihmr.data.augment import Augmentation, draw_angle
from multihmr.data.camera_effects import apply_camera_effects


def test_a_picture_stays_a_picture_of_the_same():
    smooth = np.add.outer(np.arange(96) * 2, np.arange(64))[..., None] + np.zeros(3)
    image = smooth.clip(0, 255).astype(np.uint8)
    kept = image.copy()
    changed = 0
    for seed in range(40):
        seen = apply_camera_effects(image, np.random.default_rng(seed))
        assert seen.shape == image.shape
        assert seen.dtype == np.uint8
        assert np.corrcoef(seen.ravel(), image.ravel())[0, 1] > 0.85
        changed += (seen != image).any()
    assert changed > 30
    assert (image == kept).all()
    again = [apply_camera_effects(image, np.random.default_rng(3)) for _ in range(2)]
    assert (again[0] == again[1]).all()


def test_upset_pictures_turn_by_any_angle():
    rng = np.random.default_rng(0)
    angles = np.array([draw_angle(rng, Augmentation(full_rotation_prob=0.5)) for _ in range(400)])
    assert 0.35 < (angles != 0).mean() < 0.65
    assert angles.min() < -2.5
    assert angles.max() > 2.5
    assert torch.pi >= np.abs(angles).max()
