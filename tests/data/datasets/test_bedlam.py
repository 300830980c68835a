from __future__ import annotations

import numpy as np
import pytest
from data.miniatures import (
    CLOSEUP,
    SCENE,
    assert_drawn_right,
    faces_of,
    rebuilt,
    share_inside,
    silhouette,
    write_bedlam,
)

from multihmr.data.datasets.bedlam import Bedlam


@pytest.fixture(scope="module")
def miniature(tmp_path_factory, smplx_body):
    root = tmp_path_factory.mktemp("bedlam")
    return root, write_bedlam(root, smplx_body)


@pytest.fixture
def labels(miniature, tmp_path):
    """Its root in a folder of its own, with labels that a test may change: labels(key, row, value)."""
    (tmp_path / "training_images").symlink_to(miniature[0] / "training_images")
    folder = "training_labels/all_npz_12_training"
    (tmp_path / folder).mkdir(parents=True)
    with np.load(miniature[0] / folder / f"{SCENE}.npz", allow_pickle=True) as stored:
        arrays = {key: stored[key] for key in stored.files}

    def change(**changes):
        np.savez(tmp_path / folder / f"{SCENE}.npz", **(arrays | changes))
        return tmp_path

    return arrays, change


@pytest.mark.slow
def test_people_stand_where_their_pictures_show_them(miniature, smplx_body):
    root, truth = miniature
    reader = Bedlam(root)
    assert [len(sample) for sample in reader] == [2, 2, 1]
    for sample, vertices in zip(reader, truth, strict=True):
        assert_drawn_right(sample, rebuilt(sample, smplx_body), vertices, faces_of(smplx_body))


@pytest.mark.slow
def test_close_ups_are_turned_upright(miniature, smplx_body):
    root, truth = miniature
    sample = Bedlam(root)[2]
    assert sample.name.startswith(CLOSEUP)
    assert sample.image.shape == (320, 180, 3)
    assert sample.K[0, 2] == 90
    lying = np.rot90(silhouette(truth[2][0], faces_of(smplx_body), sample.K, (320, 180)))
    assert share_inside(rebuilt(sample, smplx_body)[0], sample.K, lying) < 0.6  # the test can fail


def test_jpg_and_folders_without_their_rate(tmp_path, smplx_body):
    write_bedlam(tmp_path, smplx_body, "jpg")
    (tmp_path / "training_images" / SCENE).rename(tmp_path / "training_images" / SCENE.removesuffix("_6fps"))
    assert len(Bedlam(tmp_path)) == 3


def test_scenes_that_are_not_there_are_counted(labels, tmp_path):
    arrays, change = labels
    root = change()
    other = root / "training_labels/all_npz_12_training/20221024_other_6fps.npz"
    np.savez(other, **{key: value for key, value in arrays.items() if key != "motion_info"})
    reader = Bedlam(root)
    assert (len(reader), reader.skipped["pictures of missing scenes"]) == (2, 2)


def test_nan_and_people_behind_the_camera_are_counted(labels):
    arrays, change = labels
    trans, shape = arrays["trans_cam"].copy(), arrays["shape"].copy()
    first = arrays["imgname"] == arrays["imgname"][0]
    trans[first, 2] -= 100
    shape[np.flatnonzero(~first)[0]] = np.nan
    reader = Bedlam(change(trans_cam=trans, shape=shape))
    assert [len(sample) for sample in reader] == [1]
    assert reader.skipped["people behind the camera"] == 2
    assert reader.skipped["people with NaN or infinity in their shape"] == 1


def test_labels_of_another_form_are_named(labels):
    arrays, change = labels
    with pytest.raises(ValueError, match=r"6fps\.npz.*its pose_cam must be \(4, 165\), got \(4, 72\)"):
        Bedlam(change(pose_cam=arrays["pose_cam"][:, :72]))


def test_what_is_missing(tmp_path):
    (tmp_path / "training_labels").mkdir()
    assert ["unpack the labels" in line for line in Bedlam.missing(tmp_path)] == [True, False]
    assert "register at https://bedlam.is.tue.mpg.de" in Bedlam.missing(tmp_path / "nowhere")[0]
