from __future__ import annotations

import json

import numpy as np
import pytest
from data.miniatures_joints import SIZE, Camera, Scene, picture, share_inside, silhouette, write_panoptic

from multihmr.data.cameras import pixels_of, straighten
from multihmr.data.datasets.panoptic import Panoptic

SCENES = [Scene.random(6), Scene.random(7)]
CAMERAS = {
    "00_16": Camera.at((0.5, 1, 4), lens=(-0.25, 0.1, 0.001, -0.002, 0)),
    "00_30": Camera.at((-3, 0.5, 3), lens=(-0.2, 0.05, 0, 0, 0.01)),
}


@pytest.fixture
def root(tmp_path):
    write_panoptic(tmp_path, SCENES, CAMERAS)
    return tmp_path


def change(root, frame, joints):
    path = root / f"160906_pizza1/hdPose3d_stage1_coco19/body3DScene_{frame:08d}.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for body, new in zip(content["bodies"], joints(content["bodies"]), strict=True):
        body["joints19"] = new
    path.write_text(json.dumps(content), encoding="utf-8")


def test_joints_projected_with_K_fall_on_people_in_the_straightened_picture(root):
    reader = Panoptic(root, "pizza")
    assert [sample.name[-14:] for sample in reader] == [
        f"{camera}_{frame:08d}" for camera in CAMERAS for frame in range(2)
    ]
    for i, sample in enumerate(reader):
        camera, scene = list(CAMERAS.values())[i // 2], SCENES[i % 2]
        np.testing.assert_allclose(sample.keypoints_3d, camera.sees(scene.keypoints("panoptic19")), atol=1e-5)
        for points, person in zip(pixels_of(sample.keypoints_3d, sample.K), scene.puppets(), strict=True):
            assert share_inside(points, silhouette(person, camera)) == 1


def test_straightening_moves_the_picture_onto_what_a_pinhole_sees():
    """People there and in a render without a lens are the same up to the edges of pixels."""
    bent, straight = CAMERAS["00_16"], Camera.at((0.5, 1, 4))
    expected = picture(SCENES[0], straight).astype(int)
    found = straighten(picture(SCENES[0], bent), bent.K, bent.lens).astype(int)
    wrong = np.abs(found - expected).max(-1)[20:-20, 20:-20] > 60
    untouched = np.abs(picture(SCENES[0], bent) - expected).max(-1)[20:-20, 20:-20] > 60
    assert wrong.mean() < 0.01
    assert untouched.mean() > 3 * wrong.mean()
    assert straighten(found.astype(np.uint8), bent.K, np.zeros(5)).shape == (*SIZE, 3)


def test_joints_that_were_not_found_are_nan_and_few_are_nobody(root):
    def lose(bodies):
        lost = np.array([body["joints19"] for body in bodies]).reshape(-1, 19, 4)
        lost[0, 3] = -1
        lost[1, 5:] = -1
        return lost.reshape(-1, 76).tolist()

    change(root, 0, lose)
    reader = Panoptic(root, "pizza")
    assert len(reader[0]) == 1
    assert np.isnan(reader[0].keypoints_3d[0]).any(1).nonzero()[0].tolist() == [3]
    assert reader.skipped == {"people with fewer than 6 joints in the picture": 2}


def test_pictures_without_people_or_joints_are_counted(root):
    joints = root / "160906_pizza1/hdPose3d_stage1_coco19"
    (joints / "body3DScene_00000000.json").write_text('{"bodies": []}', encoding="utf-8")
    (joints / "body3DScene_00000001.json").unlink()
    reader = Panoptic(root, "pizza")
    assert len(reader) == 0
    assert sorted(reader.skipped.values()) == [2, 2]


def test_bad_annotations_are_named(root):
    change(root, 1, lambda bodies: [body["joints19"][:60] for body in bodies])
    with pytest.raises(
        ValueError, match=r"joints19 in body3DScene_00000001.json must have 76 numbers, got 60"
    ):
        Panoptic(root, "pizza")
    path = root / "160906_pizza1/calibration_160906_pizza1.json"
    path.write_text(path.read_text(encoding="utf-8")[:100], encoding="utf-8")
    with pytest.raises(ValueError, match=r"calibration_160906_pizza1.json was not read"):
        Panoptic(root, "pizza")
    with pytest.raises(
        FileNotFoundError, match=r"160422_haggling1/hdImgs/00_16 is not there: run getData.sh"
    ):
        Panoptic(root)
