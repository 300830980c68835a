"""scripts/photographs_to_coco.py: a list of labelled photographs as a file that `evaluate` reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multihmr.evaluation.photographs.reader import POINTS, read_photographs

SCRIPT = Path(__file__).parents[2] / "scripts/photographs_to_coco.py"


@pytest.mark.slow
def test_people_points_and_photographs_without_people_are_kept(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        Image.new("RGB", (64, 48)).save(photos / name)
    points = {"nose": [10, 5, 2], "left_eye": [12, 4, 1], "right_ankle": [11, 40, 2]}
    person = {"bbox": [5, 0, 20, 45], "area": 500.0, "keypoints2d": points, "ignore": False}
    hidden = person | {"keypoints2d": {}, "ignore": True, "ignore_why": ["crowd"]}
    size = {"width": 64, "height": 48}
    labels = {
        "photos": [{"file": "photos/a.jpg", "people": [person, hidden], **size}],
        "negatives": [{"file": "photos/b.jpg", **size}, {"file": "photos/c.jpg", **size}],
    }
    (tmp_path / "list.json").write_text(json.dumps(labels), encoding="utf-8")
    (tmp_path / "list.txt").write_text("photos/a.jpg\nphotos/b.jpg\nphotos/lost.jpg\n", encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "elsewhere/coco.json"
    command = [sys.executable, SCRIPT, tmp_path, "--name", "list", "--out", out]
    said = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    assert "2 photographs, 1 people to find, 1 that need not be found; 1 of the list without labels" in said
    with_people, without = read_photographs(out).photographs
    first, second = with_people.people
    np.testing.assert_array_equal(first.xy[POINTS.index("right_ankle")], [11, 40])
    assert int(np.isfinite(first.xy).all(axis=1).sum()) == 3
    assert (first.area, first.ignored, second.ignored, second.crowd) == (500.0, False, True, True)
    assert without.people == []
