from __future__ import annotations

import numpy as np
import pytest
from data.miniatures import assert_drawn_right, faces_of, write_ehf, write_ply

from multihmr.data.datasets.ehf import Ehf, read_ply


@pytest.fixture(scope="module")
def miniature(tmp_path_factory, smplx_body):
    root = tmp_path_factory.mktemp("ehf")
    return root, write_ehf(root, smplx_body)


@pytest.mark.slow
def test_vertices_lie_where_their_pictures_show_them(miniature, smplx_body):
    root, truth = miniature
    sample, second = Ehf(root)
    assert (sample.keypoint_set, sample.pose.shape) == ("smplx-vertices", (1, 0, 3, 3))
    assert_drawn_right(sample, sample.keypoints_3d, truth[0], faces_of(smplx_body))
    np.testing.assert_allclose(second.keypoints_3d, truth[1], atol=1e-5)


@pytest.mark.parametrize("as_text", [False, True])
def test_ply(tmp_path, as_text):
    vertices = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    write_ply(tmp_path / "a.ply", vertices, np.array([[0, 1, 2]]), as_text=as_text)
    np.testing.assert_allclose(read_ply(tmp_path / "a.ply"), vertices, atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"ply\nend_header\n", b"solid"])
def test_what_is_no_ply(tmp_path, content):
    (tmp_path / "1_img.png").touch()
    (tmp_path / "1_align.ply").write_bytes(content)
    with pytest.raises(ValueError, match=r"1_align\.ply does not have the format of EHF"):
        Ehf(tmp_path)


def test_meshes_of_other_bodies_and_cut_short(tmp_path):
    (tmp_path / "1_img.png").touch()
    vertices = np.zeros((6890, 3), np.float32)
    write_ply(tmp_path / "1_align.ply", vertices, np.zeros((1, 3), int), as_text=False)
    with pytest.raises(ValueError, match=r"sample '1' must be \(1, 10475, 3\), got \(1, 6890, 3\)"):
        Ehf(tmp_path)
    whole = (tmp_path / "1_align.ply").read_bytes()
    (tmp_path / "1_align.ply").write_bytes(whole[:9000])
    with pytest.raises(ValueError, match=r"1_align\.ply does not have the format"):
        Ehf(tmp_path)
