from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from multihmr.bodies.keypoint_sets import keypoint_names
from multihmr.fitting.keypoint_files import read_keypoints
from multihmr.fitting.point_sets import FACE_NAMES

POINTS = np.stack([np.arange(17) * 10.0, np.arange(17) * 20.0, np.full(17, 2)], 1)


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def annotation(points: np.ndarray = POINTS, **fields: object) -> dict[str, object]:
    return {"image_id": 7, "keypoints": points.ravel().tolist(), "iscrowd": 0, **fields}


def coco(*annotations: object) -> dict[str, object]:
    images = [{"id": 7, "file_name": "train/street.jpg", "height": 480, "width": 640}]
    return {"images": images, "annotations": list(annotations)}


def test_coco_annotations(tmp_path: Path) -> None:
    flags = POINTS.copy()
    flags[3, 2], flags[4] = 1, 0
    found = read_keypoints(write(tmp_path / "a.json", coco(annotation(flags), annotation())))
    (picture,) = found.pictures
    assert (picture.picture, picture.size) == ("train/street.jpg", (480, 640))
    assert picture.names == keypoint_names("coco17")
    np.testing.assert_array_equal(picture.xy[0, 1], [10.5, 20.5])  # COCO's first pixel has its centre at 0
    np.testing.assert_array_equal(picture.confidence[0, 2:5], [1, 0.5, 0])
    assert not found.skipped


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    few = POINTS.copy()
    few[5:] = 0
    broken = annotation(np.full((17, 3), np.nan))
    broken["keypoints"] = ["a"] * 51
    entries = [
        annotation(),
        annotation(iscrowd=1),
        annotation(np.zeros((17, 3))),
        annotation(few),
        annotation(POINTS[:16]),
        broken,
        annotation(image_id=8),
        {"keypoints": [1, 2]},
        7,
    ]
    found = read_keypoints(write(tmp_path / "a.json", coco(*entries)))
    assert len(found.pictures[0].xy) == 1
    assert found.skipped == {
        "crowds": 1,
        "people without keypoints": 1,
        "people with less than 6 points": 1,
        "entries with broken keypoints": 4,
        "annotations of pictures that the file does not list": 1,
    }


def test_whole_body_parts_join(tmp_path: Path) -> None:
    hand = np.full((21, 3), 0.9)
    entry = annotation(lefthand_kpts=hand.ravel().tolist(), lefthand_valid=True)
    (picture,) = read_keypoints(write(tmp_path / "a.json", coco(entry, annotation()))).pictures
    assert "left_index4" in picture.names
    assert "right_index4" not in picture.names
    at = picture.names.index("left_index4")
    assert picture.confidence[0, at] == pytest.approx(0.9)
    assert picture.confidence[1, at] == 0  # the other person has no hand


def test_results_without_pictures(tmp_path: Path) -> None:
    (picture,) = read_keypoints(write(tmp_path / "a.json", [annotation(score=0.5)])).pictures
    assert picture.picture == "7"


def test_openpose(tmp_path: Path) -> None:
    body = np.stack([np.arange(25), np.arange(25), np.full(25, 0.8)], 1)
    person = {"pose_keypoints_2d": body.ravel().tolist(), "hand_left_keypoints_2d": [1.0] * 63}
    broken = {"pose_keypoints_2d": [1, 2, 3]}
    write(tmp_path / "street_keypoints.json", {"people": [person, broken]})
    found = read_keypoints(tmp_path)
    (picture,) = found.pictures
    assert picture.picture == "street"
    assert picture.names[:25] == keypoint_names("openpose25")
    assert len(picture.names) == 46
    assert found.skipped == {"entries with broken keypoints": 1}
    assert read_keypoints(tmp_path / "street_keypoints.json").pictures[0].picture == "street"
    assert not read_keypoints(tmp_path, least=0.9).pictures[0].confidence[0, :25].any()


def test_the_face_of_wholebody_and_openpose(tmp_path: Path) -> None:
    face = np.stack([np.arange(70) * 2.0, np.arange(70) * 3.0, np.full(70, 0.7)], 1)
    entry = annotation(face_kpts=face[:68].ravel().tolist(), face_valid=True)
    (picture,) = read_keypoints(write(tmp_path / "a.json", coco(entry))).pictures
    assert picture.names == (*keypoint_names("coco17"), *FACE_NAMES)
    np.testing.assert_array_equal(picture.xy[0, -1], [134.5, 201.5])
    entry["face_valid"] = False
    (picture,) = read_keypoints(write(tmp_path / "a.json", coco(entry))).pictures
    assert picture.names == keypoint_names("coco17")
    whole = np.concatenate([POINTS, np.zeros((6, 3)), face[:68], np.zeros((42, 3))])
    (picture,) = read_keypoints(write(tmp_path / "a.json", coco(annotation(whole)))).pictures
    assert picture.names[23:91] == FACE_NAMES
    body = np.stack([np.arange(25), np.arange(25), np.full(25, 0.8)], 1)
    for count in (70, 68):  # the last two of OpenPose's are the pupils
        person = {
            "pose_keypoints_2d": body.ravel().tolist(),
            "face_keypoints_2d": face[:count].ravel().tolist(),
        }
        file = write(tmp_path / "street_keypoints.json", {"people": [person]})
        (picture,) = read_keypoints(file).pictures
        assert picture.names == (*keypoint_names("openpose25"), *FACE_NAMES)
        np.testing.assert_array_equal(picture.xy[0, -1], face[67, :2])


@pytest.mark.parametrize("number", [7, 7.0, "7"])
def test_ids_of_pictures_may_be_texts_or_floats(tmp_path: Path, number: object) -> None:
    found = read_keypoints(write(tmp_path / "a.json", coco(annotation(image_id=number))))
    assert [picture.picture for picture in found.pictures] == ["train/street.jpg"]
    found = read_keypoints(write(tmp_path / "a.json", [annotation(image_id=number)]))
    assert [picture.picture for picture in found.pictures] == ["7"]


def test_points_in_triples_without_numbers_or_behind_a_byte_order_mark(tmp_path: Path) -> None:
    lists: list[list[float | None]] = POINTS.tolist()
    lists[3] = [None, None, 0]
    lists[4] = [float("nan")] * 3
    content = coco(annotation(keypoints=lists))
    content["images"] = [{"id": 7, "file_name": "street.jpg", "height": None, "width": None}]
    path = tmp_path / "a.json"
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    (picture,) = read_keypoints(path).pictures
    assert picture.size is None
    np.testing.assert_array_equal(picture.confidence[0, 2:6], [1, 0, 0, 1])
    np.testing.assert_array_equal(picture.xy[0, 1], [10.5, 20.5])


def test_points_in_the_order_of_the_category(tmp_path: Path) -> None:
    names = keypoint_names("coco17")[::-1]
    content = coco(annotation(category_id=1), annotation(category_id=2))
    content["categories"] = [
        {"id": 1, "keypoints": [name.replace("_", " ") for name in names]},
        {"id": 2, "keypoints": [f"point {i}" for i in range(17)]},
    ]
    found = read_keypoints(write(tmp_path / "a.json", content))
    (picture,) = found.pictures
    assert len(picture.xy) == 1
    np.testing.assert_array_equal(picture.xy[0, picture.names.index("nose")], [160.5, 320.5])
    assert found.skipped == {"people with other points than COCO's": 1}


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds keypoints in no known format"):
        read_keypoints(write(tmp_path / "a.json", {"some": 1}))
    (tmp_path / "b.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="no readable JSON file"):
        read_keypoints(tmp_path / "b.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="neither files of OpenPose"):
        read_keypoints(tmp_path / "empty")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b'{"format": "multihmr-humans-json-1", "people": []}',
            "written by multihmr and holds people who have",
        ),
        (b"PK\x03\x04\xee\x81", "is no readable JSON file: it holds no text$"),
    ],
)
def test_results_of_other_commands_are_refused_with_advice(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "points.json").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        read_keypoints(tmp_path / "points.json")


def test_a_folder_of_coco_files_is_read_as_one(tmp_path: Path) -> None:
    """As `multihmr predict pictures/ --format coco.json` writes them, with the subfolders of the pictures."""
    (tmp_path / "sub").mkdir()
    for file, name in (("a.coco.json", "a.jpg"), ("sub/a.coco.json", "a.jpg"), ("sub/other.json", "b.jpg")):
        person = {"image_id": 1, "keypoints": [5, 6, 2] * 17}
        image = {"id": 1, "file_name": name, "upright": file == "a.coco.json"}
        write(tmp_path / file, {"images": [image], "annotations": [person]})
    found = read_keypoints(tmp_path).pictures
    assert [picture.picture for picture in found] == ["a.jpg", "sub/a.jpg"]
    assert [picture.upright for picture in found] == [True, False]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"neither files of OpenPose .* nor \*\.coco\.json"):
        read_keypoints(tmp_path / "empty")
