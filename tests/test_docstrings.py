"""Docstrings of the public API: shapes, units and arguments are stated, and the examples run.

Public here is what `multihmr.__all__` names, and every public method of `Model`, `TopDownModel` and `Humans`,
inherited ones too. Examples run on the bundled model and a bundled picture.
"""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multihmr
from multihmr.humans import Humans
from multihmr.model import Model, TopDownModel

PICTURE = Path(__file__).parents[1] / "examples/images/group.jpg"
DEPRECATED = {"Humans.to"}
# needs a package that not everybody installs -> its name
PACKAGES = {
    "Humans.to_supervision": "supervision",
    "Humans.to_pandas": "pandas",
    "Humans.to_rerun": "rerun",
}
UNITS = re.compile(r"pixels?\b|metres?\b|\[m\]|degrees?\b|radians?\b|\[0, 1\]|0 to 1|\bRGB\b|bool")


def members(owner: type) -> Iterator[str]:
    """Names of the public functions of a class, inherited ones too, in the order of their definition."""
    for base in reversed(owner.__mro__[:-1]):
        for name, value in vars(base).items():
            function = value.__func__ if isinstance(value, classmethod) else value
            if not name.startswith("_") and inspect.isfunction(function):
                yield name


PUBLIC: dict[str, Callable[..., Any]] = {
    name: value for name in multihmr.__all__ if callable(value := getattr(multihmr, name))
}
for kind in (Humans, Model):
    PUBLIC |= {f"{kind.__name__}.{name}": getattr(kind, name) for name in members(kind)}
PUBLIC |= {"TopDownModel": TopDownModel, "Model.__call__": Model.__call__}
PROPERTIES = {
    f"{kind.__name__}.{name}": value
    for kind in (Humans, Model, TopDownModel)
    for base in kind.__mro__
    for name, value in vars(base).items()
    if not name.startswith("_") and (isinstance(value, property) or hasattr(value, "attrname"))
}


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    model = multihmr.load_model(device="cpu")
    public = {name: getattr(multihmr, name) for name in multihmr.__all__}
    return {**public, "np": np, "model": model, "humans": model.predict(PICTURE)}


def run(text: str, names: dict[str, Any], where: str) -> int:
    """Number of examples in a docstring; the first that fails raises."""
    test = doctest.DocTestParser().get_doctest(text, dict(names), where, None, 0)
    runner = doctest.DebugRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    if test.examples:
        runner.run(test)
    return len(test.examples)


def section(text: str, name: str) -> str:
    """The indented text below "Args:", "Returns:" and so on; "" where there is none."""
    found = re.search(rf"^{name}:\n((?:[ \t]+.*\n?|\n)+)", text, re.MULTILINE)
    return found[1] if found else ""


def arguments(value: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(value).parameters.values()
    return {p.name for p in parameters if not p.name.startswith("_")} - {"self", "cls"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in DEPRECATED])
def test_examples_run(name: str, names: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    shutil.copy(PICTURE, tmp_path / "street.jpg")
    shutil.copy(PICTURE.with_name("walk.mp4"), tmp_path / "walk.mp4")
    monkeypatch.chdir(tmp_path)
    assert run(inspect.getdoc(PUBLIC[name]) or "", names, name), f"{name} has no example"


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in DEPRECATED])
def test_every_public_function_has_an_example(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name]) or ""
    assert ">>> " in section(text, "Examples"), f"{name} has no example in its docstring"


@pytest.mark.parametrize("name", [*PUBLIC, *PROPERTIES])
def test_the_first_line_says_what_it_is(name: str) -> None:
    first = (inspect.getdoc({**PUBLIC, **PROPERTIES}[name]) or "").splitlines()[0]
    assert first.endswith((".", ":"))
    assert len(first) > 10


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in DEPRECATED])
def test_every_argument_is_described(name: str) -> None:
    value = PUBLIC[name]
    text = inspect.getdoc(value) or ""
    if inspect.isclass(value):
        described = section(text, "Attributes") + section(text, "Args")
        fields = getattr(value, "__dataclass_fields__", {})
        missing = [field for field in fields if f"{field}:" not in described]
    else:
        described = section(text, "Args")
        missing = [argument for argument in arguments(value) if f"{argument}:" not in described]
    assert not missing, f"{name} does not say what {', '.join(missing)} is"


@pytest.mark.parametrize("name", [*PUBLIC, *PROPERTIES])
def test_arrays_have_shapes_and_units(name: str) -> None:
    value = {**PUBLIC, **PROPERTIES}[name]
    function = getattr(value, "fget", None) or getattr(value, "func", None) or value
    if "ndarray" in str(inspect.signature(function).return_annotation):
        text = inspect.getdoc(value) or ""
        assert re.search(r"\([NHMJV]'?,.*\)|\(\d?,? ?[A-Z0-9', ]+\)", text), f"{name} gives no shape"
        assert UNITS.search(text) or "unit vectors" in text or "number" in text, f"{name} gives no unit"


@pytest.mark.parametrize("name", [name for name in PUBLIC if not inspect.isclass(PUBLIC[name])])
def test_errors_that_are_raised_are_described(name: str) -> None:
    source = inspect.getsource(PUBLIC[name])
    text = inspect.getdoc(PUBLIC[name]) or ""
    raised = set(re.findall(r"raise (\w+Error)", source.replace(text, "")))
    described = section(text, "Raises")
    assert all(error in described for error in raised), f"{name} does not tell that it raises {raised}"
