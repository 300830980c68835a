"""Run the notebooks of examples/notebooks and store what they show.

    python scripts/run_notebooks.py                       # all; or the paths of some
    python scripts/run_notebooks.py --check               # run them, store nothing

A notebook is edited in Jupyter like any other; this makes its outputs fresh and its file small: pictures no
wider than 800 pixels, as JPEG where that is smaller than PNG; no times, no progress bars, no warnings. Each
runs in a folder of its own that looks like examples/notebooks. Where `REPOSITORY` names one on GitHub, the
first cell opens the notebook in Colab; without, it has no such link.
"""

import argparse
import base64
import io
import os
import shutil
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

from multihmr.hub.releases import DEFAULT, RELEASES

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples/notebooks"
WIDEST, QUALITY, LARGEST = 800, 78, 300_000  # pixels, of JPEG, bytes of a notebook
REPOSITORY = ""  # "owner/name" on GitHub once it is published there, from which Colab opens the notebooks
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
QUIET = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}


def executed(path: Path, folder: Path, *, timeout: int = 600) -> nbformat.NotebookNode:
    """The notebook as it is after running it in `folder`, beside which images/ are laid.

    Raises nbclient.exceptions.CellExecutionError where a cell raises, TimeoutError where one takes too long.
    """
    notebook = nbformat.read(path, as_version=4)
    here = folder / "notebooks"
    here.mkdir(parents=True)
    shutil.copytree(ROOT / "examples/images", folder / "images")
    client = NotebookClient(
        notebook,
        timeout=timeout,
        startup_timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(here)}},
    )
    manager = client.create_kernel_manager()
    paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)
    environment = {**os.environ, **QUIET, "PYTHONPATH": paths, "IPYTHONDIR": str(folder / "ipython")}
    with tempfile.TemporaryDirectory() as sockets:  # instead of ports; their paths must be short
        manager.transport, manager.ip = "ipc", f"{sockets}/kernel"
        client.execute(env=environment)
    return notebook


def opened_in_colab(text: str, name: str, repository: str | None = None) -> str:
    """The first cell of the notebook `name` with what opens it in Colab below its title, or without it.

    repository: "owner/name"; "" for none; None takes REPOSITORY.
    """
    repository = REPOSITORY if repository is None else repository
    title, *rest = [
        part for part in text.split("\n\n") if not part.startswith(("[![Open in Colab]", "In Colab,"))
    ]
    colab = []
    if repository:
        address = f"https://colab.research.google.com/github/{repository}/blob/main/examples/notebooks/{name}"
        folder = repository.partition("/")[2]
        install = f"pip install './{folder}[notebooks,video,train]'"
        command = f"!git clone https://github.com/{repository} && {install}"
        colab = [
            f"{BADGE}({address})",
            f"In Colab, run this first: `{command}` and\n`%cd {folder}/examples/notebooks`.",
        ]
    return "\n\n".join([title, *colab, *rest])


def stored(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same, as it goes into the repository."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = {"kernelspec": kernel, "multihmr": {"weights": RELEASES[DEFAULT].sha256[:16]}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", {}
        outputs = cell.get("outputs", [])
        for output in outputs:
            output.pop("metadata", None)
            if "data" in output:
                output.metadata = {}
                _shrink(output.data)
        if outputs:
            cell.outputs = [output for output in outputs if output.get("name") != "stderr"]
    return notebook


def _shrink(data: dict) -> None:
    """Pictures of an output: one, and a small one."""
    found = data.pop("image/png", None) or data.pop("image/jpeg", None)
    data.pop("image/jpeg", None)
    if found is None:
        return
    picture = Image.open(io.BytesIO(base64.b64decode(found))).convert("RGB")
    if picture.width > WIDEST:
        size = (WIDEST, round(picture.height * WIDEST / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    made = {}
    for kind, options in {
        "jpeg": {"quality": QUALITY, "optimize": True, "progressive": True},
        "png": {"optimize": True},
    }.items():
        file = io.BytesIO()
        picture.save(file, kind, **options)
        made[kind] = file.getvalue()
    kind = min(made, key=lambda kind: len(made[kind]))
    data[f"image/{kind}"] = base64.b64encode(made[kind]).decode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of examples/notebooks")
    parser.add_argument("--check", action="store_true", help="store nothing")
    args = parser.parse_args()
    for path in args.notebooks or sorted(FOLDER.glob("*.ipynb")):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            notebook = stored(executed(path, Path(folder) / "examples"))
        notebook.cells[0].source = opened_in_colab(notebook.cells[0].source, path.name)
        text = nbformat.writes(notebook) + "\n"
        if len(text) > LARGEST:
            parser.error(
                f"{path.name} has {len(text)} bytes, at most {LARGEST}: show fewer or smaller pictures"
            )
        if not args.check:
            path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {time.perf_counter() - started:.1f} s, {len(text) / 1000:.0f} kB")
