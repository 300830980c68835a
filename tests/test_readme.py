"""The README is short, and what it and the examples show is run as it stands."""

import re
import runpy
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with the pictures that the README names."""
    pictures = tmp_path / "examples/images"
    pictures.mkdir(parents=True)
    shutil.copy(ROOT / "examples/images/astronaut.jpg", pictures)
    shutil.copy(ROOT / "examples/images/astronaut.jpg", tmp_path / "street.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_is_short():
    assert README.count("\n") <= 150


@pytest.mark.slow
def test_the_python_blocks_run_in_order(folder):
    assert len(PYTHON_BLOCKS) >= 2
    names: dict = {}
    for block in PYTHON_BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    assert len(names["humans"]) == 1
    assert (folder / "street.glb").exists()
    assert (folder / "people.npz").exists()


# predict_without_torch wants an exported file: tests/test_graphs.py runs it. Ray takes its time to start, and
# tests/test_cluster.py starts it anyway.
EXAMPLES = [
    pytest.param(path, id=path.stem, marks=pytest.mark.nightly if path.stem == "ray_batch" else ())
    for path in sorted((ROOT / "examples").glob("*.py"))
    if path.stem != "predict_without_torch"
]


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES)
def test_examples_run(path, folder, monkeypatch, capsys):
    if path.stem == "synthetic_scenes":
        pytest.importorskip("warp", reason="the renderer is an extra")
    if path.stem == "ray_batch":
        pytest.importorskip("ray", reason="it is the extra cluster")
    monkeypatch.setattr("sys.argv", [str(path)])
    monkeypatch.setenv("MULTIHMR_HOME", str(folder))  # no SMPL-X there: use_smplx says how to get it
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
    assert path.read_text(encoding="utf-8").count("\n") <= 60


def test_the_two_commands_are_marked_for_ci():
    for name in ("run", "test"):
        assert re.search(rf"<!-- command: {name} -->\n```bash\n[^\n]+\n```", README)


def test_figures_are_marked():
    """So that whoever changes the bundled model finds the lines that must change."""
    assert "<!-- figures: photographs" in README
