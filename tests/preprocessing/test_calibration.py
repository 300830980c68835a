"""Calibration files of several kinds hold the same cameras; files that cannot be used are one sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from multihmr.preprocessing.calibration import choose_cameras, read_cameras

K = [[600.0, 0, 320.5], [0, 610, 240], [0, 0, 1]]  # as OpenCV has it
ROTVEC = [0.0, np.pi / 2, 0.0]  # the world's x axis points away from the camera: z -> x, x -> -z
R = [[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]
T = [0.5, 1.0, 4.0]
LENS = [-0.1, 0.02, 0.001, 0.0, 0.0]


def matrix(name: str, values: object) -> str:
    """As OpenCV's FileStorage writes it."""
    array = np.atleast_2d(np.array(values, float))
    data = ", ".join(f"{value:.17g}" + "." * float(value).is_integer() for value in array.ravel())
    return (
        f"{name}: !!opencv-matrix\n   rows: {array.shape[0]}\n   cols: {array.shape[1]}\n   dt: d\n"
        f"   data: [ {data} ]\n"
    )


OPENCV = "%YAML:1.0\n---\nimage_width: 640\nimage_height: 480\n" + "".join(
    [matrix("camera_matrix", K), matrix("distortion_coefficients", LENS), matrix("R", R), matrix("T", T)]
)
FILES = {
    "one list": {"rig.json": json.dumps([{"name": "a", "K": K, "distortion": LENS, "R": R, "t": T}])},
    "by name, in mm": {
        "rig.json": json.dumps({"cameras": {"a": {"K": K, "dist": LENS, "R": R, "t": [500, 1000, 4000]}}})
    },
    "extrinsics": {
        "rig.json": json.dumps({"a": {"K": K, "D": LENS, "extrinsics": np.c_[R, T].tolist()}})
    },
    "OpenCV": {"a.yml": OPENCV},
    "OpenCV's JSON": {
        "a.json": json.dumps(
            {
                name: {"type_id": "opencv-matrix", "rows": 1, "cols": 1, "dt": "d", "data": data}
                for name, data in (
                    ("K", np.ravel(K).tolist()),
                    ("D", LENS),
                    ("rvec", ROTVEC),
                    ("tvec", T),
                )
            }
        )
    },
    "EasyMocap": {
        "intri.yml": "%YAML:1.0\n---\nnames:\n   - \"a\"\n" + matrix("K_a", K) + matrix("dist_a", LENS),
        "extri.yml": "%YAML:1.0\n---\n" + matrix("R_a", ROTVEC) + matrix("Rot_a", R) + matrix("T_a", T),
    },
    "Pose2Sim": {
        "Calib.toml": f'[cam_0]\nname = "a"\nsize = [640.0, 480.0]\nmatrix = {K}\n'
        f"distortions = {LENS}\nrotation = {ROTVEC}\ntranslation = {T}\nfisheye = false\n\n"
        "[metadata]\nadjusted = false\nerror = 0.0\n"
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_all_kinds_of_files_hold_the_same_camera(kind: str, tmp_path: Path) -> None:
    if kind == "Pose2Sim" and sys.version_info < (3, 11):
        pytest.skip("no tomllib")
    for name, text in FILES[kind].items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (camera,) = read_cameras([tmp_path / name for name in FILES[kind]], unit="mm" if "mm" in kind else "m")
    assert camera.name == "a"
    np.testing.assert_allclose(camera.K, [[600, 0, 321], [0, 610, 240.5], [0, 0, 1]])  # half a pixel further
    np.testing.assert_allclose(camera.extrinsics, np.c_[R, T], atol=1e-9)
    assert camera.distortion is not None
    np.testing.assert_allclose(camera.distortion.coefficients, LENS)


def test_images_of_half_the_size(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(OPENCV, encoding="utf-8")
    (camera,) = read_cameras([tmp_path / "a.yml"])
    assert camera.size == (480, 640)
    np.testing.assert_allclose(camera.for_image(240, 320).K, [[300, 0, 160.5], [0, 305, 120.25], [0, 0, 1]])
    assert camera.for_image(480, 640) is camera
    with pytest.raises(ValueError, match="calibrated with images of 640x480, got one of 480x640"):
        camera.for_image(640, 480)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"K": K}, "camera a has no place"),
        ({"K": K, "R": R}, "camera a has no place"),
        ({"K": [1, 2], "R": R, "t": T}, "K of camera a must be"),
        ({"K": K, "R": np.ones((3, 3)).tolist(), "t": T}, "R of camera a is no rotation"),
        ({"K": K, "R": R, "t": ["x", 0, 0]}, "t of camera a must be finite numbers"),
        ({"K": K, "R": R, "t": [0, 0]}, "R must have 9 or 3 numbers and t 3"),
        ({"K": K, "R": R, "t": T, "dist": [1, 2]}, "distortion must be"),
        ({"focal": 3}, "no camera in"),
    ],
)
def test_what_is_no_camera(entry: dict, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "rig.json").write_text(json.dumps({"a": entry}), encoding="utf-8")
    with pytest.raises(ValueError, match=sentence):
        read_cameras([tmp_path / "rig.json"])


def test_files_that_are_none_and_other_units(tmp_path: Path) -> None:
    (tmp_path / "rig.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is no json file"):
        read_cameras([tmp_path / "rig.json"])
    (tmp_path / "rig.yml").write_text("a: [1", encoding="utf-8")
    with pytest.raises(ValueError, match="is no yml file"):
        read_cameras([tmp_path / "rig.yml"])
    with pytest.raises(ValueError, match=r"read from \.json"):
        read_cameras([tmp_path / "rig.xml"])
    cameras = {name: {"K": K, "R": R, "t": [x, 0, 0]} for name, x in (("a", 0), ("b", 3000))}
    (tmp_path / "rig.json").write_text(json.dumps(cameras), encoding="utf-8")
    with pytest.raises(ValueError, match="cameras are 3000 m apart"):
        read_cameras([tmp_path / "rig.json"])
    assert len(read_cameras([tmp_path / "rig.json"], unit="mm")) == 2


def test_views_have_the_camera_of_their_name_or_their_place(tmp_path: Path) -> None:
    cameras = {name: {"K": K, "R": R, "t": [x, 0, 0]} for name, x in (("a", 0), ("b", 1), ("c", 2))}
    (tmp_path / "rig.json").write_text(json.dumps(cameras), encoding="utf-8")
    read = read_cameras([tmp_path / "rig.json"])
    assert [camera.name for camera in choose_cameras(read, ["c", "a"])] == ["c", "a"]
    assert [camera.name for camera in choose_cameras(read, ["x", "y", "z"])] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="views: x, y; cameras: a, b, c"):
        choose_cameras(read, ["x", "y"])
