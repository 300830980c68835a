from __future__ import annotations

import json

import numpy as np
import pytest
from data.miniatures_joints import Camera, Scene, share_inside, silhouette, write_coco
from PIL import Image

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
        "pictures without labelled people": 1,
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
    with pytest.raises(ValueError, match=r"points must be those of COCO, .*got \['nose'\]"):
        Coco(root)
    (root / "annotations/person_keypoints_val2017.json").write_text('{"images": [', encoding="utf-8")
    with pytest.raises(ValueError, match=r"person_keypoints_val2017.json does not have the format"):
        Coco(root)


def test_points_in_another_order_are_sorted_by_their_names(root):
    expected = Coco(root)[0].keypoints_2d

    def shuffle(content):
        order = np.random.default_rng(0).permutation(17)
        names = content["categories"][0]["keypoints"]
        content["categories"][0]["keypoints"] = [names[i] for i in order]
        for person in content["annotations"]:
            person["keypoints"] = np.reshape(person["keypoints"], (17, 3))[order].ravel().tolist()

    change(root, shuffle)
    np.testing.assert_array_equal(Coco(root)[0].keypoints_2d, expected)


def test_people_with_other_points_are_counted_and_the_rest_is_read(root):
    def add(content):
        content["categories"].append({"id": 2, "name": "dog", "keypoints": ["nose", "tail"]})
        content["annotations"].append({"image_id": 139, "category_id": 2, "keypoints": [1, 2, 2] * 2})

    change(root, add)
    dataset = Coco(root)
    assert len(dataset[0]) == 2
    assert dataset.skipped["people with other points than COCO's"] == 1


def test_points_outside_of_their_picture_are_counted_and_the_rest_is_read(root):
    before = Coco(root)[0].keypoints_2d
    height, width = Coco(root)[0].image.shape[:2]

    def move(content):
        content["images"][0] |= {"width": width, "height": height}
        content["annotations"][0]["keypoints"][:3] = [width + 40, 5, 2]
        content["annotations"][1]["keypoints"][3:6] = [-9, 5, 2]

    change(root, move)
    dataset = Coco(root)
    assert dataset.skipped["labelled points outside of their picture"] == 2
    before[0, 0] = before[1, 1] = np.nan
    np.testing.assert_array_equal(dataset[0].keypoints_2d, before)


NOSE, LEFT_EYE, RIGHT_EYE = (keypoint_names("coco17").index(n) for n in ("nose", "left_eye", "right_eye"))


def oriented(root, orientation, size, points, **annotated):
    """A picture stored with this EXIF orientation and size (height, width), with three red points."""
    pixels = np.zeros((*size, 3), np.uint8)
    for x, y in points:
        pixels[y - 2 : y + 3, x - 2 : x + 3, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    (root / "images").mkdir()
    Image.fromarray(pixels).save(root / "images/a.png", exif=exif)
    marks = np.zeros((17, 3), int)
    for index, point in zip((NOSE, LEFT_EYE, RIGHT_EYE), points, strict=True):
        marks[index] = *point, 2
    (root / "annotations").mkdir()
    content = {
        "images": [{"id": 1, "file_name": "a.png", **annotated}],
        "categories": [{"id": 1, "keypoints": list(keypoint_names("coco17"))}],
        "annotations": [{"image_id": 1, "iscrowd": 0, "keypoints": marks.ravel().tolist()}],
    }
    (root / "annotations/person_keypoints_default.json").write_text(json.dumps(content), encoding="utf-8")
    return Coco(root, "default")


@pytest.mark.parametrize("orientation", [1, 5, 6, 7, 8])
def test_points_of_the_stored_raster_turn_with_the_picture(tmp_path, orientation):
    """Every orientation whose raster the size in the annotations tells."""
    points = [(43, 43), (349, 416), (100, 200)]
    sample = oriented(tmp_path, orientation, (448, 360), points, width=360, height=448)[0]
    assert sample.image.shape[:2] == ((448, 360) if orientation == 1 else (360, 448))
    found = sample.keypoints_2d[0]
    for x, y in found[np.isfinite(found).all(-1)]:
        assert sample.image[int(y), int(x), 0] == 255
    if orientation == 6:  # the case of the report: x 32..405, y 43..349
        np.testing.assert_allclose(found[NOSE], (448 - 43.5, 43.5))
        np.testing.assert_allclose(found[LEFT_EYE], (448 - 416.5, 349.5))
    eyes = (RIGHT_EYE, LEFT_EYE) if orientation in (5, 7) else (LEFT_EYE, RIGHT_EYE)  # mirrored: sides change
    stored = {1: (349.5, 416.5), 5: (416.5, 349.5), 6: (31.5, 349.5), 7: (31.5, 10.5), 8: (416.5, 10.5)}
    np.testing.assert_allclose(found[eyes[0]], stored[orientation])


def test_points_of_the_upright_picture_stay(tmp_path):
    sample = oriented(tmp_path, 6, (448, 360), [(5, 6), (7, 8), (9, 10)], width=448, height=360)[0]
    assert sample.image.shape[:2] == (360, 448)
    np.testing.assert_allclose(sample.keypoints_2d[0, NOSE], (5.5, 6.5))


@pytest.mark.parametrize(
    ("orientation", "size", "annotated", "sentence"),
    [
        (3, (80, 60), {"width": 60, "height": 80}, "orientation 3, and its annotations do not tell"),
        (6, (80, 80), {"width": 80, "height": 80}, "orientation 6, and its annotations do not tell"),
        (6, (80, 60), {}, "orientation 6, and its annotations do not tell"),
        (1, (80, 60), {"width": 120, "height": 160}, "for 120x160 pixels, but the picture has 60x80"),
    ],
)
def test_pictures_whose_raster_cannot_be_told_are_refused(tmp_path, orientation, size, annotated, sentence):
    dataset = oriented(tmp_path, orientation, size, [(5, 6), (7, 8), (9, 10)], **annotated)
    with pytest.raises(ValueError, match=rf"a\.png cannot be used: .*{sentence}"):
        _ = dataset[0]
