"""The package is typed for its users: what the documentation shows passes a strict type checker."""

from __future__ import annotations

import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = """
from pathlib import Path

import numpy as np

from multihmr import Humans, load_model

model = load_model("glnet-anny-hybrid")
humans: Humans = model.predict("street.jpg", boxes=[[10, 20, 200, 400]])
humans = model.predict(Path("street.jpg"), boxes=np.zeros((1, 4)))
humans = model.predict(np.zeros((48, 64, 3), np.uint8), fov=60, tiles="auto")
everyone: list[Humans] = model.predict_batch(["a.jpg", "b.jpg"], boxes=[[[0, 0, 9, 9]], None])
for path, found in model.predict_many("*.jpg", on_error="skip"):
    print(path, len(found))
humans.to_rerun("street.jpg", frame=1).save("street.rrd")
"""


@pytest.mark.nightly  # half a minute of type checking; `.ci/run` runs it beside its own
def test_calls_of_the_documentation_pass_mypy(tmp_path):
    pytest.importorskip("mypy", reason="the type checker is part of multihmr[test]")
    (tmp_path / "user.py").write_text(CODE, encoding="utf-8")
    words = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--follow-imports=silent"]
    checked = subprocess.run(
        [*words, "--cache-dir", str(tmp_path / "cache"), "user.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert checked.returncode == 0, checked.stdout


def test_type_checkers_see_the_package_however_it_is_installed():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert (ROOT / "multihmr" / "py.typed").is_file()
    assert "py.typed" in config["options.package_data"]["multihmr"]
    assert config["editable_wheel"]["mode"] == "compat"
