from __future__ import annotations

import json

import numpy as np
import pytest
from data.miniatures import assert_drawn_right, faces_of, rebuilt, write_ubody

from multihmr.data.datasets.ubody import UBody
from multihmr.data.sample import Sample

MEAN_HANDS = 0.3 * np.random.default_rng(0).normal(size=(30, 3))


@pytest.fixture(scope="module")
def miniature(tmp_path_factory, smplx_body):
    root = tmp_path_factory.mktemp("ubody")
    return root, write_ubody(root, smplx_body, MEAN_HANDS)


def seen(sample: Sample) -> np.ndarray:
    """Which of the 53 rotations are known."""
    return np.isfinite(sample.pose).all((0, 2, 3))


@pytest.mark.slow
def test_people_stand_where_their_pictures_show_them(miniature, smplx_body):
    """The right hand, which was not seen, is held flat: all other vertices are the true ones."""
    root, (truth, _) = miniature
    (sample,) = UBody(root, "test")
    assert np.flatnonzero(~seen(sample)).tolist() == list(range(37, 52))
    sample.pose[:, 37:52] = np.eye(3)
    moved = np.isin(smplx_body.topology.skin_indices, range(40, 55)) & (smplx_body.topology.skin_weights > 0)
    kept = np.flatnonzero(~moved.any(1))
    vertices = rebuilt(sample, smplx_body)
    np.testing.assert_allclose(vertices[:, kept], truth[:, kept], atol=0.02)
    assert_drawn_right(sample, truth, truth, faces_of(smplx_body))


def test_people_with_cameras_of_their_own_have_no_place(miniature, smplx_body):
    root, (_, truth) = miniature
    reader = UBody(root, "train")
    (sample,) = reader
    assert (len(sample), reader.skipped["people without a fit"]) == (2, 1)
    assert np.isnan(sample.K).all()
    assert np.isnan(sample.translation).all()
    assert seen(sample).all()
    shift = (
        rebuilt(Sample(**(vars(sample) | {"translation": np.zeros((2, 3), np.float32)})), smplx_body) - truth
    )
    np.testing.assert_allclose(shift - shift[:, :1], 0, atol=2e-4)


def test_keypoints_that_were_not_labelled_are_nan(miniature):
    (sample,) = UBody(miniature[0], "test")
    assert (sample.keypoint_set, sample.keypoints_2d.shape) == ("coco23", (1, 23, 2))
    assert np.flatnonzero(np.isnan(sample.keypoints_2d[0, :, 0])).tolist() == [5]


def test_faces_that_were_not_seen_and_nan(miniature, tmp_path):
    for name in ("images", "splits", "SMPLX_NEUTRAL.npz"):
        (tmp_path / name).symlink_to(miniature[0] / name)
    (tmp_path / "annotations/Interview").mkdir(parents=True)
    content, fits = (
        json.loads(
            (miniature[0] / f"annotations/Interview/{name}_annotation.json").read_text(encoding="utf-8")
        )
        for name in ("keypoint", "smplx")
    )
    content["annotations"][1]["face_valid"] = False
    fits["21"]["smplx_param"]["body_pose"][3] = float("nan")
    for name, part in (("keypoint", content), ("smplx", fits)):
        (tmp_path / f"annotations/Interview/{name}_annotation.json").write_text(
            json.dumps(part), encoding="utf-8"
        )
    reader = UBody(tmp_path, "train")
    assert reader.skipped["people with NaN or infinity in their body's pose"] == 1
    assert np.isnan(reader[0].expression).all()
    assert np.flatnonzero(~seen(reader[0])).tolist() == [52]
