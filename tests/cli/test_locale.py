"""The commands in a C locale, whose encoding is ASCII, as on small servers and in containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data.miniatures_joints import Camera, Scene, write_coco
from PIL import Image

from multihmr.bodies.anny import Anny
from multihmr.data.sample import Sample
from multihmr.data.webdataset import write_shard
from multihmr.evaluation.results import in_encoding

COMMANDS = """
import json, os, sys
from multihmr.cli import main
for argv in json.loads(sys.argv[1]):
    sys.argv = ["multihmr", *(os.fsdecode(word.encode()) for word in argv)]  # as the shell gives them
    try:
        main.main()
    except SystemExit as end:
        print("ended with", end.code, "after", argv[0])
"""


def run_in_c_locale(commands: list[list[str]], folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMMANDS, json.dumps(commands)],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=300,
    )
    return ran.stdout.decode("ascii") + ran.stderr.decode("ascii", "replace")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A photograph, frames, a shard and COCO keypoints whose names are not ASCII."""
    astronaut = Image.open(Path(__file__).parents[2] / "examples/images/astronaut.jpg").resize((256, 256))
    astronaut.save(tmp_path / "Zoë.png")
    (tmp_path / "frames").mkdir()
    for i in range(3):
        astronaut.save(tmp_path / "frames" / f"{i}.png")
    body = Anny()
    sample = Sample(
        image=np.asarray(astronaut),
        K=np.array([[256, 0, 128], [0, 256, 128], [0, 0, 1]], np.float32),
        pose=body.mean_pose_R33[None].numpy(),
        shape=body.mean_shape_S[None].numpy(),
        expression=np.zeros((1, body.expression_count), np.float32),
        translation=np.array([[0, 0, 1.5]], np.float32),
        visibility=np.ones(1, np.float32),
        name="größe",
        body="anny",
    )
    (tmp_path / "shards").mkdir()
    write_shard(tmp_path / "shards" / "a.tar", [sample])
    write_coco(tmp_path / "coco", Scene.random(10), Camera.at((0.5, 1, 4)))
    annotations = tmp_path / "coco/annotations/person_keypoints_val2017.json"
    content = json.loads(annotations.read_text(encoding="utf-8")) | {"info": {"contributor": "Zoë"}}
    annotations.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_commands_end_well(folder: Path) -> None:
    pytest.importorskip("av", reason="videos need PyAV: pip install 'multihmr[video]'")
    commands = [
        ["models"],
        ["data", "check", "coco", "coco", "--out", "drawn"],
        ["predict", "Zoë.png", "--out", "out", "--device", "cpu"],
        ["evaluate", "--data", "shards", "--out", "results", "--device", "cpu"],
        ["video", "frames", "--out", "film", "--device", "cpu"],
    ]
    output = run_in_c_locale(commands, folder)
    for command, *_ in commands:
        assert f"ended with 0 after {command}" in output, output
    assert (folder / "out" / "Zoë.npz").is_file()
    assert "MPJPE mm (lower is better)" in output
    assert "MPJPE mm ↓" in (folder / "results" / "table.md").read_text(encoding="utf-8")
    assert "größe" in (folder / "results" / "shards" / "pictures.csv").read_text(encoding="utf-8")


def test_text_is_shown_as_far_as_the_terminal_can() -> None:
    text = "PVE mm ↓ | – | Zoë"
    assert in_encoding(text, "utf-8") == in_encoding(text, None) == text
    assert in_encoding(text, "ascii") == "PVE mm (lower is better) | - | Zo\\xeb"
