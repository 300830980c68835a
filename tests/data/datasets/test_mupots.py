from __future__ import annotations

import numpy as np
import pytest
from data.miniatures_joints import Camera, Scene, share_inside, silhouette, write_mupots

from multihmr.data.cameras import pixels_of
from multihmr.data.datasets.mupots import MuPoTS

scipy_io = pytest.importorskip("scipy.io")
SCENES = [Scene.random(4), Scene.random(5)]
CAMERA = Camera.at((0.5, 1, 4))


@pytest.fixture
def root(tmp_path):
    write_mupots(tmp_path, SCENES, CAMERA)
    return tmp_path


def change(root, key, value, *, frame=0, person=0):
    cells = scipy_io.loadmat(root / "TS1/annot.mat")["annotations"]
    cells[frame, person][key][0, 0] = value
    scipy_io.savemat(root / "TS1/annot.mat", {"annotations": cells})


def test_joints_projected_with_the_fitted_camera_fall_on_their_people(root):
    reader = MuPoTS(root)
    assert [(sample.name, len(sample)) for sample in reader] == [("TS1/000000", 2), ("TS1/000001", 1)]
    for sample, scene in zip(reader, SCENES, strict=True):
        np.testing.assert_allclose(sample.K, CAMERA.K, rtol=1e-4)
        shown = pixels_of(sample.keypoints_3d, sample.K)
        np.testing.assert_allclose(shown, sample.keypoints_2d, atol=0.01)
        for points, person in zip(shown, scene.puppets(), strict=False):
            assert share_inside(points, silhouette(person, CAMERA)) == 1
        assert sample.pose.shape[1] == 0
        assert np.isnan(sample.translation).all()
        np.testing.assert_allclose(sample.visibility, 16 / 17)


def test_universal_people_are_those_of_the_benchmark(root):
    true, universal = MuPoTS(root)[0], MuPoTS(root, "test-universal")[0]
    np.testing.assert_allclose(universal.keypoints_3d, 0.9 * true.keypoints_3d, rtol=1e-5)
    np.testing.assert_array_equal(universal.keypoints_2d, true.keypoints_2d)


def test_who_cannot_be_used_is_counted(root):
    behind = np.tile([[0.0], [0.0], [-900.0]], 17)
    change(root, "annot3", behind)
    change(root, "annot3", np.full((3, 17), np.nan), person=1)
    reader = MuPoTS(root)
    assert [sample.name for sample in reader] == ["TS1/000001"]
    assert reader.skipped["people behind the camera"] == 1
    assert reader.skipped["people with NaN or infinity in their keypoints_3d"] == 1


def test_a_camera_that_explains_nothing_is_unknown(root, caplog):
    rng = np.random.default_rng(0)
    for frame in range(2):
        for person in range(2):
            change(root, "annot2", rng.uniform(0, 200, (2, 17)), frame=frame, person=person)
    assert np.isnan(MuPoTS(root)[0].K).all()
    assert "no camera projects annot3 to annot2" in caplog.text


def test_other_shapes_and_damaged_files_are_named(root):
    change(root, "annot3", np.zeros((3, 14)))
    with pytest.raises(ValueError, match=r"TS1/annot.mat .*annot3 must be \(3, 17\), got \(3, 14\)"):
        MuPoTS(root)
    (root / "TS1/annot.mat").write_bytes((root / "TS1/annot.mat").read_bytes()[:900])
    with pytest.raises(ValueError, match=r"annot.mat is not a complete MATLAB 5 file"):
        MuPoTS(root)
    (root / "TS1/occlusion.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"it comes in MultiPersonTestSet.zip"):
        MuPoTS(root)
