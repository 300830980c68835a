from __future__ import annotations

import numpy as np
import pytest
from data.miniatures import write_ply
from PIL import Image

from multihmr.cli import main as cli
from multihmr.data import DATASETS, dataset_class
from multihmr.data.sample import Sample
from multihmr.evaluation.visualize_ground_truth import Bodies, draw_truth


@pytest.fixture
def ehf(tmp_path):
    """Twelve black pictures in which all vertices are at one point before the camera."""
    from multihmr.data.datasets.ehf import ROTATION, TRANSLATION
    from multihmr.humans import rotvec_to_rotmat

    point = rotvec_to_rotmat(np.array(ROTATION)).T @ (np.array([0, 0, 3]) - TRANSLATION)
    for number in range(1, 13):
        Image.new("RGB", (800, 600)).save(tmp_path / f"{number:02d}_img.png", compress_level=1)
        vertices = np.tile(point, (10475, 1)).astype(np.float32)
        write_ply(tmp_path / f"{number:02d}_align.ply", vertices, np.zeros((0, 3), int), as_text=False)
    return tmp_path


def test_check_draws_ten_samples(ehf, capsys):
    assert cli.run(["data", "check", "ehf", str(ehf), "--out", str(ehf / "out")]) == 0
    assert "ehf test: 12 samples, 12 people" in capsys.readouterr().out
    drawn = sorted((ehf / "out").iterdir())
    assert [path.name[:7] for path in (drawn[0], drawn[-1])] == ["0000000", "0000011"]
    assert len(drawn) == 10
    red = np.asarray(Image.open(drawn[0]))[..., 0]
    assert np.abs(np.argwhere(red > 40).mean(0) - (578.9, 790.3)).max() < 2  # the principal point


def test_check_says_what_is_missing(tmp_path, capsys):
    assert cli.run(["data", "check", "bedlam", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "register at https://bedlam.is.tue.mpg.de" in said.out
    assert "unpack the labels there" in said.err


def test_every_data_set_can_be_had_and_read_about(capsys):
    assert cli.run(["data", "list"]) == 0
    said = capsys.readouterr().out
    for name in DATASETS:
        about = dataset_class(name).about
        assert about.name == name
        assert about.register in said
        assert "https://" in about.register or "http://" in about.register


def test_unknown_data_set(tmp_path, capsys):
    assert cli.run(["data", "check", "bedlam3", str(tmp_path)]) == 1
    assert "no data set 'bedlam3'; known are 3dpw, agora" in capsys.readouterr().err


def sample(**fields) -> Sample:
    nobody = {name: np.zeros((1, 0), np.float32) for name in ("shape", "expression")}
    person = {
        "pose": np.zeros((1, 0, 3, 3)),
        "translation": np.full((1, 3), np.nan),
        "visibility": np.ones(1),
    }
    K = np.array([[100, 0, 60], [0, 100, 50], [0, 0, 1]], np.float32)
    return Sample(np.zeros((100, 120, 3), np.uint8), K, name="a", **{**nobody, **person, **fields})


def test_keypoints_are_ringed_where_they_are(tmp_path):
    points = np.array([[[30.0, 40.0], [np.nan, np.nan]]])
    picture = draw_truth(sample(keypoints_2d=points, keypoint_set="mine"), Bodies(tmp_path))
    assert np.abs(np.argwhere(picture.max(2) > 0).mean(0) - (40, 30)).max() < 1
    solid = np.array([[[-0.3, 0.1, 1.0], [0, 0, -1.0]]])
    picture = draw_truth(sample(keypoints_3d=solid, keypoint_set="mine"), Bodies(tmp_path))
    assert np.abs(np.argwhere(picture.max(2) > 0).mean(0) - (60, 30)).max() < 1


def test_bodies_that_are_not_there_are_named(tmp_path):
    bodies = Bodies(tmp_path)
    given = sample(
        pose=np.zeros((1, 24, 3, 3), np.float32), shape=np.zeros((1, 10)), body="smpl", anchor="pelvis"
    )
    assert not draw_truth(given, bodies).any()
    assert "SMPL_NEUTRAL (from https://smpl.is.tue.mpg.de" in bodies.lacking["smpl"]
