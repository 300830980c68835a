"""Examples in the docstrings of the public API are run: on the bundled model and a bundled picture."""

from __future__ import annotations

import doctest
import inspect
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multihmr
from multihmr.humans import Humans

PICTURE = Path(__file__).parents[1] / "examples/images/group.jpg"
FUNCTIONS = [name for name in multihmr.__all__ if inspect.isfunction(getattr(multihmr, name))]
METHODS = [
    name
    for name, value in vars(Humans).items()
    if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod))
]
NO_EXAMPLE = {"to", "to_supervision", "measurements"}  # deprecated, or of optional packages


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    model = multihmr.load_model(device="cpu")
    public = {name: getattr(multihmr, name) for name in multihmr.__all__}
    return {**public, "np": np, "model": model, "humans": model.predict(PICTURE)}


def run(text: str, names: dict[str, Any], where: str) -> int:
    """Number of examples in a docstring; the first that fails raises."""
    test = doctest.DocTestParser().get_doctest(text, dict(names), where, None, 0)
    runner = doctest.DebugRunner(optionflags=doctest.ELLIPSIS)
    if test.examples:
        runner.run(test)
    return len(test.examples)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Humans", *METHODS])
def test_examples_of_humans_run(name: str, names: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copy(PICTURE, tmp_path / "street.jpg")
    monkeypatch.chdir(tmp_path)
    owner = Humans if name == "Humans" else getattr(Humans, name)
    count = run(inspect.getdoc(owner) or "", names, name)
    assert count or name in NO_EXAMPLE, f"Humans.{name} has no example"


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples_of_functions_run(
    name: str, names: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    shutil.copy(PICTURE, tmp_path / "street.jpg")
    monkeypatch.chdir(tmp_path)
    assert run(inspect.getdoc(getattr(multihmr, name)) or "", names, name), f"{name} has no example"


@pytest.mark.parametrize("name", METHODS)
def test_docstrings_of_humans_say_what_comes_back(name: str) -> None:
    first = (inspect.getdoc(getattr(Humans, name)) or "").splitlines()[0]
    assert first.endswith((".", ":"))
    assert len(first) > 15
