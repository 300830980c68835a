from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from toys import ToyBody

from multihmr.data.augment import Augmentation
from multihmr.data.mixture import open_sources
from multihmr.data.person_crops import one_person, one_person_twice, only, person_boxes
from multihmr.data.sample import Sample
from multihmr.data.webdataset import Shards, write_shard
from multihmr.geometry import default_intrinsics

PLAIN = Augmentation(flip=0, colour=0, grey=0, blur=0, noise=0)


def sample_of(*heads: tuple[float, float, float], **changes) -> Sample:
    """Toy people who stand below their heads, in a picture of 400 x 300 pixels, with their joints in 2D."""
    count, K = len(heads), default_intrinsics(300, 400).numpy()
    translation = np.float32(heads).reshape(-1, 3)
    joints = translation[:, None] + np.float32([[0, 1, 0], [0, 0.5, 0], [0, 0, 0]])
    pixels = joints @ K.T
    sample = Sample(
        image=np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8),
        K=K,
        pose=np.tile(np.eye(3, dtype=np.float32), (count, 3, 1, 1)),
        shape=np.full((count, 2), 0.5, np.float32),
        expression=np.zeros((count, 1), np.float32),
        translation=translation,
        visibility=np.ones(count, np.float32),
        name="scene",
        body="toy",
        keypoints_2d=(pixels[..., :2] / pixels[..., 2:]).astype(np.float32),
        keypoint_set="toy",
    )
    return dataclasses.replace(sample, **changes)


def crop(sample: Sample, seed: int = 0, how: Augmentation = PLAIN) -> Sample:
    return one_person(sample, 64, np.random.default_rng(seed), ToyBody().topology, how)


@pytest.mark.parametrize("seed", range(5))
def test_one_person_fills_the_crop_and_stays_where_they_are(seed):
    sample = sample_of((-0.6, -0.5, 3.0), (0.7, -0.4, 4.0))
    seen = crop(sample, seed)
    assert seen.image.shape == (64, 64, 3)
    assert len(seen) == 1
    assert seen.translation[0].tolist() in sample.translation.tolist()
    points = seen.keypoints_2d[0]
    assert ((points > 0) & (points < 64)).all()
    assert np.ptp(points[:, 1]) > 0.45 * 64
    head = seen.K @ seen.translation[0]
    np.testing.assert_allclose(head[:2] / head[2], points[2], atol=0.05)


def test_whoever_is_hidden_or_tiny_is_not_learned_from():
    hidden = sample_of((0.0, -0.5, 3.0), visibility=np.float32([0.1]))
    tiny = sample_of((0.0, 0.0, 60.0))
    assert len(crop(hidden)) == len(crop(tiny)) == len(crop(sample_of())) == 0
    assert crop(hidden).image.shape == (64, 64, 3)


def test_turned_cameras_turn_the_box():
    sample, turned = (
        sample_of((0.8, -0.6, 4.0)),
        Augmentation(**{**vars(PLAIN), "rotation_prob": 1.0, "roll_deg": 90.0}),
    )
    for seed in range(5):
        points = crop(sample, seed, turned).keypoints_2d[0]
        assert ((points > 0) & (points < 64)).all()


@pytest.mark.parametrize("seed", range(4))
def test_paired_crops_are_one_person_in_two_crops(seed):
    """Also with cameras that turn and mirrors: both crops of a pair are through the same camera."""
    sample, how = sample_of((-0.6, -0.5, 3.0), (0.7, -0.4, 4.0)), Augmentation(rotation_prob=1.0)
    one, other = one_person_twice(sample, 64, np.random.default_rng(seed), ToyBody().topology, how)
    assert (one.image != other.image).any()
    assert abs(one.K - other.K).max() > 0.1
    for name in ("translation", "pose", "shape"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for seen in (one, other):
        head = seen.K @ seen.translation[0]
        np.testing.assert_allclose(head[:2] / head[2], seen.keypoints_2d[0, 2], atol=0.05)


def test_nobody_twice_is_two_pictures_of_nobody():
    one, other = one_person_twice(sample_of(), 64, np.random.default_rng(0), ToyBody().topology)
    assert len(one) == len(other) == 0
    assert one.image.shape == other.image.shape == (64, 64, 3)


def test_boxes_come_from_keypoints_or_heads():
    sample = sample_of((0.0, -0.5, 3.0), (1.0, 0.0, 5.0))
    low, high = person_boxes(sample)[0][1::2]
    assert low < sample.keypoints_2d[0, 2, 1] < sample.keypoints_2d[0, 0, 1] < high
    alone = person_boxes(dataclasses.replace(sample, keypoints_2d=None, keypoint_set=""))[0]
    assert alone[1] < sample.keypoints_2d[0, 2, 1] < alone[3]
    behind = dataclasses.replace(sample, translation=-sample.translation, keypoints_2d=None, keypoint_set="")
    assert person_boxes(behind) == [None, None]


def test_boxes_may_leave_out_what_is_hidden():
    legs_hidden = np.array([[False, True, True], [False, False, True]])
    sample = sample_of((0.0, -0.5, 3.0), (0.3, 0.0, 5.0), joint_visibility=legs_hidden)
    visible, whole = person_boxes(sample, visible=True), person_boxes(sample)
    assert visible[0][3] < sample.keypoints_2d[0, 0, 1] < whole[0][3]
    assert visible[1].tolist() == whole[1].tolist()  # one joint makes no box


def test_joints_of_shards_become_keypoints(tmp_path):
    bare = sample_of((0.0, -0.5, 3.0), keypoints_2d=None, keypoint_set="")
    joints = np.float32([[[10, 20], [30, 40], [50, 60]]])
    write_shard(tmp_path / "a.tar", [bare], lambda _: {"joints_2d": joints})
    assert Shards(tmp_path)[0].keypoints_2d is None
    [source] = open_sources(str(tmp_path), joints=True)
    assert source.samples[0].keypoints_2d.tolist() == joints.tolist()
    assert source.samples[0].keypoint_set == "toy"


def test_only_one_keeps_fields_aligned():
    sample = sample_of((0.0, -0.5, 3.0), (1.0, 0.0, 5.0), gender=np.array(["female", "male"]))
    assert only(sample, 1).gender.tolist() == ["male"]
    assert only(sample, 1).translation.tolist() == [[1, 0, 5]]
    assert len(only(sample, None)) == 0
