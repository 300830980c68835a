from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from data.miniatures_joints import Camera, Scene, rebuilt, share_inside, silhouette, write_threedpw

from multihmr.data.datasets.threedpw import ThreeDPW

SCENES = [replace(Scene.random(i), betas=Scene.random(0).betas) for i in range(3)]
CAMERAS = [Camera.at((0.5, 1, 4)), Camera.at((-3, 0.5, 3)), Camera.at((1, 2, -4))]


@pytest.fixture
def root(tmp_path):
    write_threedpw(tmp_path, SCENES, CAMERAS)
    return tmp_path


def change(root, **entries):
    path = next(root.glob("sequenceFiles/test/*.pkl"))
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()) | entries, protocol=2))


def test_bodies_rebuilt_from_the_sample_cover_their_people(root):
    reader = ThreeDPW(root)
    assert [sample.name for sample in reader] == ["street_00/00000", "street_00/00001", "street_00/00002"]
    for sample, scene, camera in zip(reader, SCENES, CAMERAS, strict=True):
        people = rebuilt(sample)
        for person, true, points in zip(people, scene.puppets(), sample.keypoints_2d, strict=True):
            mask = silhouette(true, camera)
            np.testing.assert_allclose(person.vertices, camera.sees(true.vertices), atol=1e-4)
            assert share_inside(camera.pixels(true.vertices), mask) == 1
            assert share_inside(points, mask) == 1
        assert sample.gender.tolist() == ["female", "male"]
        np.testing.assert_allclose(sample.K, camera.K, rtol=1e-6)


def test_frames_and_people_without_a_valid_camera_are_left_out_and_counted(root):
    change(root, campose_valid=[np.array([1, 0, 1]), np.array([1, 0, 0])])
    reader = ThreeDPW(root)
    assert [len(sample) for sample in reader] == [2, 1]
    assert reader[1].gender.tolist() == ["female"]
    assert reader.skipped == {
        "people without a valid camera (campose_valid is 0)": 3,
        "pictures without a valid camera": 1,
    }


def test_people_behind_the_camera_and_nan_are_left_out_and_counted(root):
    away = SCENES[1].puppets()[0].joints - CAMERAS[1].R[2] * 9  # nine metres back along the optical axis
    joints = [[s.puppets()[i].joints.reshape(72) for s in SCENES] for i in range(2)]
    joints[0][1], joints[1][2] = away.reshape(72), np.full(72, np.nan)
    change(root, jointPositions=[np.stack(actor) for actor in joints])
    reader = ThreeDPW(root)
    assert [len(sample) for sample in reader] == [2, 1, 1]
    assert reader.skipped == {
        "people behind the camera": 1,
        "people with NaN or infinity in their translation": 1,
    }


def test_annotations_of_other_shapes_are_named(root):
    change(root, poses=[np.zeros((2, 72)), np.zeros((3, 72))])
    with pytest.raises(ValueError, match=r"street_00.pkl .*poses of actor 0 must be.*got \(2, 72\)"):
        ThreeDPW(root)


def test_missing_and_truncated_pictures_are_named(root):
    reader = ThreeDPW(root)
    picture = root / "imageFiles/street_00/image_00001.jpg"
    picture.write_bytes(picture.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"sample 'street_00/00001' of 3dpw.*image_00001.jpg"):
        reader[1]
    picture.unlink()
    assert sum(ThreeDPW(root, cache=root / "new").skipped.values()) == 1
    assert "agree" not in str(ThreeDPW.missing(root, "train"))
    assert "sequenceFiles/train" in ThreeDPW.missing(root, "train")[0]
