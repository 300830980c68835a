from __future__ import annotations

import numpy as np
import pytest
from data.miniatures_joints import Camera, Scene, rebuilt, share_inside, silhouette, write_hi4d

from multihmr.data.cameras import pixels_of
from multihmr.data.datasets.hi4d import Hi4D

SCENE = Scene.random(9)
CAMERAS = {4: Camera.at((0.5, 1, 4)), 16: Camera.at((-3, 0.5, 3), lens=(-0.2, 0.05, 0, 0, 0.01))}


@pytest.fixture
def root(tmp_path):
    write_hi4d(tmp_path, SCENE, CAMERAS)
    return tmp_path


def change(path, **arrays):
    with np.load(path) as file:
        content = {key: file[key] for key in file.files} | arrays
    np.savez(path, **content)


def test_bodies_rebuilt_from_the_sample_cover_their_people(root):
    reader = Hi4D(root, "all")
    assert [sample.name for sample in reader] == ["pair00/dance00/4/000007", "pair00/dance00/16/000007"]
    for sample, camera in zip(reader, CAMERAS.values(), strict=True):
        assert sample.gender.tolist() == ["female", "male"]
        for i, (person, true) in enumerate(zip(rebuilt(sample), SCENE.puppets(), strict=True)):
            mask = silhouette(true, camera)
            np.testing.assert_allclose(person.vertices, camera.sees(true.vertices), atol=1e-4)
            assert share_inside(pixels_of(person.vertices, sample.K), mask) == 1
            assert share_inside(sample.keypoints_2d[i], mask) == 1
            assert (mask & (sample.mask == i + 1)).sum() > 0.97 * (sample.mask == i + 1).sum() > 300


def test_the_monocular_split_has_one_camera(root):
    assert [sample.name for sample in Hi4D(root)] == ["pair00/dance00/16/000007"]


def test_masks_are_optional_and_follow_people_who_are_left_out(root):
    joints = np.stack([person.joints for person in SCENE.puppets()])
    joints[0] = np.nan
    change(root / "pair00/dance00/smpl/000007.npz", joints_3d=joints)
    reader = Hi4D(root)
    assert np.unique(reader[0].mask).tolist() == [0, 1]
    assert share_inside(reader[0].keypoints_2d[0], reader[0].mask == 1) == 1
    (root / "pair00/dance00/seg/img_seg_mask/16/1/000007.png").unlink()
    assert reader[0].mask is None


def test_frames_without_parameters_and_bad_files_are_named(root):
    folder = root / "pair00/dance00"
    change(folder / "meta.npz", end=9)
    assert Hi4D(root).skipped == {"frames without SMPL parameters": 2}
    change(folder / "smpl/000007.npz", joints_3d=np.zeros((2, 45, 3)))
    with pytest.raises(ValueError, match=r"000007.npz .*joints_3d must be \(2, 24, 3\), got \(2, 45"):
        Hi4D(root, cache=root / "other")
    content = (folder / "smpl/000007.npz").read_bytes()
    (folder / "smpl/000007.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"dance00/meta.npz .*000007.npz was not read"):
        Hi4D(root, cache=root / "other")
