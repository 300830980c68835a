from __future__ import annotations

import pickle

import numpy as np
import pytest
from data.miniatures import assert_drawn_right, faces_of, rebuilt, write_cuffs

from multihmr.data.annotations import read_pickle
from multihmr.data.datasets.cuffs import Cuffs

ANNOTATIONS = "cuffs_annots_20240905.pkl"


@pytest.fixture
def miniature(tmp_path, smplx_body):
    return tmp_path, write_cuffs(tmp_path, smplx_body)


def test_people_stand_where_their_pictures_show_them(miniature, smplx_body):
    root, truth = miniature
    for sample, vertices in zip(Cuffs(root), truth, strict=True):
        assert np.isnan(sample.expression).all()  # the files have none
        sample.expression[:] = 0
        assert_drawn_right(sample, rebuilt(sample, smplx_body), vertices, faces_of(smplx_body))


def test_names_of_the_smplx_package_and_nobody(miniature):
    root, _ = miniature
    content = read_pickle(root / ANNOTATIONS)
    before = Cuffs(root)[0]
    (person,) = content["000000.jpg"]["humans"]
    renamed = {"root_pose": "global_orient", "shape": "betas"}
    plain = {key.removeprefix("smplx_"): value for key, value in person.items()}
    content["000000.jpg"]["humans"] = [{renamed.get(key, key): value for key, value in plain.items()}]
    content["000000.jpg"] |= {"focal": 260.0, "princpt": [120, 120]}
    del content["000000.jpg"]["K"]
    content["000001.jpg"]["humans"] = []
    (root / ANNOTATIONS).write_bytes(pickle.dumps(content))
    after, nobody = Cuffs(root)
    np.testing.assert_array_equal(after.pose, before.pose)
    np.testing.assert_allclose(after.K, before.K)
    assert (len(nobody), nobody.pose.shape) == (0, (0, 53, 3, 3))


def test_another_form_says_which_keys_there_are(miniature):
    root, _ = miniature
    (root / ANNOTATIONS).write_bytes(pickle.dumps({"a.jpg": {"bodies": []}}))
    with pytest.raises(ValueError, match=r"20240905\.pkl.*no humans where its other keys are bodies"):
        Cuffs(root)
