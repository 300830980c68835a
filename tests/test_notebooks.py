"""The notebooks run from the first cell to the last, and are stored with what they show."""

from __future__ import annotations

import base64
import io
import runpy
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from PIL import Image

import multihmr

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples/notebooks").glob("*.ipynb"))
runner = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts/run_notebooks.py"), run_name="runner"))


def pictures(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [kind for output in outputs for kind in output.get("data", {}) if kind.startswith("image/")]


@pytest.fixture(scope="module")
def shell() -> Iterator[Any]:
    """IPython in this process, with matplotlib inline: each kernel would import torch once more."""
    from IPython.core.interactiveshell import InteractiveShell

    class Shell(InteractiveShell):
        def enable_gui(self, gui: str | None = None) -> None:
            """There are no windows."""

    shell = Shell.instance()
    shell.run_line_magic("matplotlib", "inline")
    yield shell
    Shell.clear_instance()
    import matplotlib.pyplot as plt

    plt.close("all")
    plt.switch_backend("agg")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from IPython.utils.capture import capture_output

    if path.stem.startswith("5"):
        pytest.importorskip("warp", reason="the renderer is an extra")
    if path.stem.startswith("4"):
        pytest.importorskip("av", reason="the video reader is an extra")
    shutil.copytree(ROOT / "examples/images", tmp_path / "images")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    if path.stem.startswith("4"):  # half of the time for its film; what is shown is counted, not compared
        monkeypatch.setattr("multihmr.load_model", partial(multihmr.load_model, image_size=256))
    shell.reset(new_session=True)
    notebook = nbformat.read(path, as_version=4)
    shown = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            with capture_output() as captured:
                result = shell.run_cell(cell.source)
            result.raise_error()
            shown += isinstance(result.result, Image.Image)
            shown += sum(
                any(kind.startswith("image/") for kind in output.data) for output in captured.outputs
            )
    assert shown == len(pictures(notebook))


@pytest.mark.slow
def test_a_notebook_runs_in_a_kernel_and_is_stored_small(tmp_path: Path) -> None:
    code = "from PIL import Image\nprint('here')\nImage.open('../images/astronaut.jpg')"
    small = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), small)
    notebook = runner.stored(runner.executed(small, tmp_path / "examples"))
    assert pictures(notebook) == ["image/jpeg"]
    assert [output.output_type for output in notebook.cells[0].outputs] == ["stream", "execute_result"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_as_it_ran(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds <= {"stream", "execute_result", "display_data"}
    assert len(pictures(notebook)) >= 3
    assert path.stat().st_size <= runner.LARGEST
    first = notebook.cells[0].source
    assert runner.opened_in_colab(first, path.name) == first
    assert str(ROOT) not in path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_cell_that_raises_is_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), broken)
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        runner.executed(broken, tmp_path / "examples")


def test_colab_is_offered_where_there_is_a_repository_to_open() -> None:
    text, at = "# Title\n\nWhat it is about.\n\nRun each cell.", "blob/main/examples/notebooks/1_a.ipynb"
    for repository in ("me/multihmr", "you.2/people"):  # the second replaces the first
        opened = runner.opened_in_colab(text, "1_a.ipynb", repository)
        title, badge, command, *rest = opened.split("\n\n")
        assert (title, rest) == ("# Title", ["What it is about.", "Run each cell."])
        assert f"colab.research.google.com/github/{repository}/{at})" in badge
        assert f"git clone https://github.com/{repository} " in command
        assert f"`%cd {repository.partition('/')[2]}/examples/notebooks`" in command
        assert runner.opened_in_colab(opened, "1_a.ipynb", "") == text


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
