from __future__ import annotations

import pickle

import numpy as np
import pytest
from data.miniatures import assert_drawn_right, faces_of, old_data_frame, rebuilt, write_agora

from multihmr.data.annotations import read_pickle
from multihmr.data.datasets.agora import Agora

MEAN_HANDS = 0.3 * np.random.default_rng(0).normal(size=(30, 3))
TABLE = "train_SMPLX/SMPLX/train_0_withjv.pkl"


@pytest.fixture(scope="module")
def miniature(tmp_path_factory, smplx_body):
    root = tmp_path_factory.mktemp("agora")
    return root, write_agora(root, smplx_body, MEAN_HANDS)


@pytest.fixture
def changed(miniature, tmp_path):
    """changed(column=values) gives a copy of the miniature with another table."""
    for name in ("smplx_gt", "1280x720", "SMPLX_NEUTRAL.npz"):
        (tmp_path / name).symlink_to(miniature[0] / name)
    (tmp_path / TABLE).parent.mkdir(parents=True)

    def change(**columns):
        (tmp_path / TABLE).write_bytes(old_data_frame(read_pickle(miniature[0] / TABLE) | columns))
        return tmp_path

    return change


@pytest.mark.slow
def test_people_stand_where_their_pictures_show_them(miniature, smplx_body):
    root, truth = miniature
    reader = Agora(root, "train")
    assert [sample.anchor for sample in reader] == ["pelvis"] * 2
    for sample, vertices in zip(reader, truth, strict=True):
        known = np.isfinite(sample.shape).all(1)
        people = rebuilt(sample, smplx_body)[known]
        assert_drawn_right(sample, people, vertices[known], faces_of(smplx_body))


def test_children_genders_and_occlusion(miniature):
    adults, girl = Agora(miniature[0], "train")
    assert adults.gender.tolist() == ["male", "female"]
    assert girl.gender.tolist() == ["male", "neutral"]
    assert np.isnan(girl.shape).all(1).tolist() == [False, True]
    assert np.isfinite(girl.pose).all()
    np.testing.assert_allclose(girl.visibility, [1, 0.75])


def test_people_turned_otherwise_than_their_hips_are_left_out(changed):
    reader = Agora(changed(Yaw=[[10.0, 80.0], [190.0, -100.0]]), "train")
    assert [len(sample) for sample in reader] == [1, 1]
    assert reader.skipped["people turned otherwise than their hips"] == 2


def test_a_fit_that_is_not_there_is_named(changed, miniature):
    paths = read_pickle(miniature[0] / TABLE)["gt_path_smplx"]
    root = changed(gt_path_smplx=[["smplx_gt/trainset/nobody.obj", paths[0][1]], paths[1]])
    with pytest.raises(FileNotFoundError, match=r"nobody\.pkl does not exist"):
        Agora(root, "train")


def test_a_table_of_another_form_is_named(changed):
    root = changed()
    (root / TABLE).write_bytes(pickle.dumps({"imgPath": ["a.png"]}))
    with pytest.raises(ValueError, match=r"train_0_withjv\.pkl does not have the format of AGORA: it lacks"):
        Agora(root, "train")


def test_what_is_missing(tmp_path):
    missing = "; ".join(Agora.missing(tmp_path))
    for cure in ("unpack validation_SMPLX.zip", "unpack smplx_gt.zip", "SMPLX_NEUTRAL.npz is not there"):
        assert cure in missing
