"""The notebooks run from the first cell to the last, and are stored with what they show."""

from __future__ import annotations

import base64
import io
import runpy
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples/notebooks").glob("*.ipynb"))
runner = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts/run_notebooks.py"), run_name="runner"))


def pictures(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [kind for output in outputs for kind in output.get("data", {}) if kind.startswith("image/")]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    if path.stem.startswith("5"):
        pytest.importorskip("warp", reason="the renderer is an extra")
    if path.stem.startswith("4"):
        pytest.importorskip("av", reason="the video reader is an extra")
    notebook = runner.stored(runner.executed(path, tmp_path / "examples"))
    assert len(pictures(notebook)) == len(pictures(nbformat.read(path, as_version=4)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_as_it_ran(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds <= {"stream", "execute_result", "display_data"}
    assert len(pictures(notebook)) >= 3
    assert path.stat().st_size <= runner.LARGEST
    assert str(ROOT) not in path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_cell_that_raises_is_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), broken)
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        runner.executed(broken, tmp_path / "examples")


def test_what_is_stored_is_small_and_says_nothing_of_this_machine() -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (600, 1200, 3), np.uint8)
    Image.fromarray(noise).save(file, "png")
    data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": "<Image>"}
    outputs = [
        nbformat.v4.new_output("display_data", data, metadata={"width": 1200}),
        nbformat.v4.new_output("stream", name="stderr", text="/home/me/x.py:1: UserWarning"),
    ]
    cell = nbformat.v4.new_code_cell("1", outputs=outputs, metadata={"execution": {"started": "now"}})
    stored = runner.stored(nbformat.v4.new_notebook(cells=[cell])).cells[0]
    (output,) = stored.outputs
    picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/jpeg"])))
    assert picture.size == (runner.WIDEST, runner.WIDEST // 2)
    assert "image/png" not in output.data
    assert not stored.metadata
    assert not output.metadata
