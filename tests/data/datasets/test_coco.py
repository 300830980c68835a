from __future__ import annotations

import json

import numpy as np
import pytest
from data.miniatures_joints import Camera, Scene, share_inside, silhouette, write_coco

from multihmr.bodies.keypoint_sets import keypoint_names
from multihmr.data.datasets.coco import Coco, CocoFeet, CocoWholeBody

SCENE, CAMERA = Scene.random(10), Camera.at((0.5, 1, 4))


@pytest.fixture
def root(tmp_path):
    write_coco(tmp_path, SCENE, CAMERA)
    return tmp_path


def change(root, edit):
    path = root / "annotations/person_keypoints_val2017.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_points_fall_on_their_people_and_all_else_is_unknown(root):
    (sample,) = Coco(root)
    assert (sample.name, len(sample), sample.keypoint_set) == ("000000000139", 2, "coco17")
    true = CAMERA.pixels(SCENE.keypoints("coco17"))
    labelled = np.isfinite(sample.keypoints_2d).all(-1)
    assert (~labelled).nonzero()[0].tolist() == [0]
    assert labelled[0].tolist().index(False) == keypoint_names("coco17").index("left_ear")
    assert np.abs(sample.keypoints_2d - true)[labelled].max() <= 0.5  # whole pixels, by their centres
    for points, person in zip(sample.keypoints_2d, SCENE.puppets(), strict=True):
        assert share_inside(points, silhouette(person, CAMERA)) == 1
    assert sample.pose.shape == (2, 0, 3, 3)
    assert np.isnan(sample.K).all()
    assert np.isnan(sample.translation).all()


def test_crowds_and_whoever_has_no_label_are_counted(root):
    assert Coco(root).skipped == {
        "crowds": 1,
        "people without a labelled point": 1,
        "pictures with nobody labelled": 1,
    }


def test_whole_body_adds_feet_and_only_the_parts_that_are_valid(root):
    feet, whole = CocoFeet(root)[0], CocoWholeBody(root)[0]
    np.testing.assert_array_equal(feet.keypoints_2d, whole.keypoints_2d[:, :23])
    np.testing.assert_array_equal(feet.keypoints_2d[:, :17], Coco(root)[0].keypoints_2d)
    ankles = CAMERA.pixels(SCENE.keypoints("coco17"))[:, [15, 16]]
    np.testing.assert_allclose(feet.keypoints_2d[:, [17, 22]], ankles, rtol=1e-5)
    assert np.isnan(whole.keypoints_2d[:, 23:91]).all()
    np.testing.assert_array_equal(whole.keypoints_2d[:, 91:112], 7)
    assert len(keypoint_names(whole.keypoint_set)) == whole.keypoints_2d.shape[1] == 133


def test_own_pictures_in_the_same_format(root):
    (root / "annotations/person_keypoints_val2017.json").rename(
        root / "annotations/person_keypoints_default.json"
    )
    with pytest.raises(FileNotFoundError, match="none of the folders default/"):
        Coco(root, "default")
    (root / "val2017").rename(root / "images")
    assert len(Coco(root, "default")[0]) == 2


def test_bad_annotations_are_named(root):
    change(root, lambda content: content["annotations"][1].update(keypoints=[1, 2, 2]))
    with pytest.raises(ValueError, match=r"val2017.json .*keypoints of annotation 1 must be 51 numbers"):
        Coco(root)
    change(root, lambda content: content["categories"][0].update(keypoints=["nose"]))
    with pytest.raises(ValueError, match=r"must be those of COCO in their order.*got \('nose',\)"):
        Coco(root)
    (root / "annotations/person_keypoints_val2017.json").write_text('{"images": [', encoding="utf-8")
    with pytest.raises(ValueError, match=r"person_keypoints_val2017.json has not the format"):
        Coco(root)
