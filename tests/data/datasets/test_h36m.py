from __future__ import annotations

import json

import numpy as np
import pytest
from data.miniatures_joints import Camera, Scene, share_inside, silhouette, write_h36m

from multihmr.data.cameras import pixels_of
from multihmr.data.datasets.h36m import H36M

SCENE, CAMERA = Scene.random(8, count=1), Camera.at((1, 1, 4))


@pytest.fixture
def root(tmp_path):
    for subject in (9, 11):
        write_h36m(tmp_path, SCENE, CAMERA, subject=subject, t_is_place=subject == 11)
    return tmp_path


def change(root, kind, edit):
    path = root / f"annotations/Human36M_subject9_{kind}.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_joints_projected_with_K_fall_on_the_subject_whichever_way_t_is_written(root):
    reader = H36M(root)
    names = [f"s_{s:02d}_act_02_subact_01_ca_01_{f:06d}" for s in (9, 11) for f in (1, 65)]
    assert [sample.name for sample in reader] == names
    mask = silhouette(SCENE.puppets()[0], CAMERA)
    for sample in reader:
        np.testing.assert_allclose(sample.keypoints_3d, CAMERA.sees(SCENE.keypoints("h36m17")), atol=1e-5)
        assert share_inside(pixels_of(sample.keypoints_3d, sample.K), mask) == 1
        assert share_inside(sample.keypoints_2d, mask) == 1
        assert np.isnan(sample.translation).all()


def test_cameras_that_see_nobody_are_refused(root):
    change(root, "camera", lambda cameras: cameras["1"].update(c=[900, 900]))
    with pytest.raises(ValueError, match=r"subject9_data.json .*its cameras show 0 of 2 people"):
        H36M(root)


def test_nan_and_people_behind_are_counted(root):
    back = 1000 * (SCENE.keypoints("h36m17")[0] - 9 * CAMERA.R[2])  # nine metres along the optical axis

    def edit(joints):
        joints["2"]["1"]["0"][4] = [float("nan")] * 3
        joints["2"]["1"]["64"] = back.tolist()

    change(root, "joint_3d", edit)
    reader = H36M(root)
    assert [sample.name[:4] for sample in reader] == ["s_11", "s_11"]
    assert reader.skipped["people with NaN or infinity in their keypoints_3d"] == 1
    assert reader.skipped["people behind the camera"] == 1


def test_bad_annotations_are_named(root):
    change(root, "joint_3d", lambda joints: joints["2"]["1"].update({"64": [[0, 0, 0]]}))
    with pytest.raises(ValueError, match=r"joints of s_09.*_000065.jpg must be \(17, 3\), got \(1, 3\)"):
        H36M(root)
    (root / "annotations/Human36M_subject9_camera.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"Human36M_subject9_camera.json was not read"):
        H36M(root)
    with pytest.raises(FileNotFoundError, match=r"Human36M_subject1_data.json is not there"):
        H36M(root, "train")
