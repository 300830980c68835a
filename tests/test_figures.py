"""Pictures and stored outputs show the bundled model as it is: none is older than the weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from multihmr.hub.releases import DEFAULT, RELEASES
from multihmr.storage.paths import bundled_file

ROOT = Path(__file__).parents[1]
DIGEST = RELEASES[DEFAULT].sha256[:16]
# what shows no prediction of the bundled model: bodies, rendered pictures, measured times
OTHERS = {
    "contact_sheet.jpg", "coordinates.png", "face_points.jpg", "joint_sets.png", "joints.png",
    "speed_batch.png", "speed_people.png", "speed_tokens.png",
}  # fmt: skip


def outdated_pictures(docs: Path, digest: str) -> dict[str, str | None]:
    """Pictures in a folder that were not drawn with the weights of this digest, and what drew them."""
    noted = json.loads((docs / "figures.json").read_text(encoding="utf-8"))
    names = {path.name for kind in ("jpg", "png", "gif", "webp") for path in docs.rglob(f"*.{kind}")}
    return {name: noted.get(name) for name in sorted(names - OTHERS) if noted.get(name) != digest}


def weights_of(notebook: Path) -> str | None:
    """The digest of the weights that a notebook was run with."""
    metadata = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]
    return metadata.get("multihmr", {}).get("weights")  # type: ignore[no-any-return]


def test_pictures_of_the_docs_are_of_the_bundled_weights() -> None:
    assert outdated_pictures(ROOT / "docs", DIGEST) == {}, (
        "older than the weights: scripts/draw_examples.py and scripts/draw_failures.py draw them"
    )
    noted = json.loads((ROOT / "docs/figures.json").read_text(encoding="utf-8"))
    assert [name for name in noted if not (ROOT / "docs" / name).is_file()] == []


def test_the_digest_is_that_of_the_bundled_file() -> None:
    content = bundled_file(RELEASES[DEFAULT].file).read_bytes()
    assert hashlib.sha256(content).hexdigest()[:16] == DIGEST


def test_pictures_of_other_weights_and_new_ones_without_a_digest_are_found(tmp_path: Path) -> None:
    for name in ("old.jpg", "new.jpg", "unknown.png", "joints.png"):
        (tmp_path / name).touch()
    noted = {"old.jpg": "0123456789abcdef", "new.jpg": DIGEST}
    (tmp_path / "figures.json").write_text(json.dumps(noted), encoding="utf-8")
    assert outdated_pictures(tmp_path, DIGEST) == {"old.jpg": "0123456789abcdef", "unknown.png": None}
    assert set(outdated_pictures(ROOT / "docs", "0123456789abcdef")) >= {"astronaut.jpg", "demo.jpg"}


@pytest.mark.parametrize("path", sorted((ROOT / "examples/notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_were_run_with_the_bundled_weights(path: Path) -> None:
    assert weights_of(path) == DIGEST, (
        f"the outputs of {path.name} are older than the weights: scripts/run_notebooks.py runs it"
    )
