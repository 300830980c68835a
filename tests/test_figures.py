"""Pictures and stored outputs show the bundled model as it is: none is older than the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multihmr.hub.releases import DEFAULT, RELEASES

ROOT = Path(__file__).parents[1]
DRAWN = ("astronaut.jpg", "demo.jpg", "failures.jpg", "photographs.jpg", "walk_in_blender.jpg")


DIGEST = RELEASES[DEFAULT].sha256[:16]  # of the bundled file, as another test holds


@pytest.mark.parametrize("name", DRAWN)
def test_pictures_of_the_docs_are_of_the_bundled_weights(name: str) -> None:
    noted = json.loads((ROOT / "docs/figures.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / name).is_file()
    assert noted[name] == DIGEST, f"docs/{name} is older than the weights: scripts/draw_examples.py draws it"


@pytest.mark.parametrize("path", sorted((ROOT / "examples/notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_were_run_with_the_bundled_weights(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"].get("multihmr", {}).get("weights") == DIGEST, (
        f"the outputs of {path.name} are older than the weights: scripts/run_notebooks.py runs it"
    )
