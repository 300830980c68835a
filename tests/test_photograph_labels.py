"""scripts/label_photographs.py: COCO's format, unreadable pictures counted, doubtful people marked."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multihmr.data.mixture import open_sources

SCRIPT = Path(__file__).parents[1] / "scripts" / "label_photographs.py"


class Stem(torch.nn.Module):
    """One person of the size of the picture, or nobody in dark ones; half a person in red ones."""

    def forward(self, image):
        return (image,)

    def head_outputs(self, image):
        maps = torch.full((1, 86, 16, 16), -12.0)
        maps[:, 18:] = 0
        red, green, _ = image.mean((0, 2, 3)).tolist()
        if green > 0.5:
            maps[0, 0, 8, 8] = 6
        if red > 0.5:
            maps[0, 0, 2, 2] = 6
        ways = maps[:, 18:52].view(1, 17, 2, 16, 16)
        ways[:] = torch.linspace(-4, 4, 17)[:, None, None, None]
        for k, way in enumerate(torch.linspace(-4, 4, 17).round().int().tolist()):
            maps[0, 1 + k, 8 + way, 8 + way] = 5
            if k < 6:
                maps[0, 1 + k, max(2 + way, 0), max(2 + way, 0)] = -1
        return maps


@pytest.fixture
def label(monkeypatch):
    script = runpy.run_path(str(SCRIPT))

    class Backbone(torch.nn.Module):
        def __init__(self, kind, pretrained):
            super().__init__()
            self.stem = Stem()

    monkeypatch.setitem(script["main"].__globals__, "HybridMoveNet", Backbone)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["label_photographs.py", *map(str, args)])
        script["main"]()

    return run


def test_labels_are_read_as_coco(tmp_path, capsys, label):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, color in (("sure", (0, 255, 0)), ("more", (255, 255, 0)), ("dark", (0, 0, 0))):
        Image.new("RGB", (64, 64), color).save(photos / f"{name}.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    label(photos, "--out", tmp_path / "out", "--image-size", 64)
    said = capsys.readouterr().out
    assert "broken.jpg" in said
    assert "unreadable: 1" in said
    assert "nobody is sure to be there: 1" in said
    content = json.loads(
        (tmp_path / "out/annotations/person_keypoints_default.json").read_text(encoding="utf-8")
    )
    assert {image["file_name"] for image in content["images"]} == {"sure.png", "more.png"}
    samples = open_sources(f"coco-default@{tmp_path / 'out'}")[0].samples
    assert len(samples) == 2
    points = samples[0].keypoints_2d
    assert np.isfinite(points).any()
    assert np.nanmax(points) <= 64
