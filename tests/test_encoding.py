"""Text files are UTF-8 wherever they are opened, not of the system's encoding.

Ruff's PLW1514 knows `open` and paths whose type it can infer; this knows them by the names of the methods.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEPT = {"tests/parity/weights.py"}  # as it was made, number for number
FILES = [
    path
    for folder in ("multihmr", "scripts", "examples", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.relative_to(ROOT).as_posix() not in KEPT
]
# whose open() is of no text
OPENERS = {"os", "Image", "tarfile", "webbrowser", "zipfile", "archive", "opener", "gzip"}


def mode_of(call: ast.Call, place: int) -> str | None:
    """The mode of a file that is opened; None if it is no constant."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] + call.args[
        place : place + 1
    ]
    if not given:
        return "r"
    return given[0].value if isinstance(given[0], ast.Constant) and isinstance(given[0].value, str) else None


def opens_text(call: ast.Call) -> bool:
    """Whether a call reads or writes text in the system's encoding."""
    if any(keyword.arg in ("encoding", None) for keyword in call.keywords):
        return False
    function = call.func
    if isinstance(function, ast.Name):
        mode = mode_of(call, 1) if function.id == "open" else None
        return mode is not None and "b" not in mode
    if not isinstance(function, ast.Attribute):
        return False
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if function.attr in ("read_text", "write_text"):
        return len(call.args) == (function.attr == "write_text")
    if function.attr == "open" and owner not in OPENERS and not isinstance(function.value, ast.Call):
        mode = mode_of(call, 0)
        return bool(call.args or call.keywords) and mode is not None and set(mode) <= set("rwax+t")
    if owner == "subprocess":
        return any(keyword.arg in ("text", "universal_newlines") for keyword in call.keywords)
    return False


def places(text: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and opens_text(node):
            yield node.lineno


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_is_utf8(path: Path) -> None:
    assert not list(places(path.read_text(encoding="utf-8"))), "give encoding='utf-8'"


def test_the_check_finds_what_it_should() -> None:
    bad = [
        "open(p)",
        "open(p, 'w')",
        "p.read_text()",
        "p.write_text(t)",
        "p.open('w')",
        "(a / b).open(mode='a')",
    ]
    bad += ["subprocess.run(c, text=True)"]
    good = ["open(p, 'rb')", "p.open('wb')", "p.read_text('utf-8')", "p.write_text(t, encoding='utf-8')"]
    good += ["Image.open(p)", "open(p, **options)", "subprocess.run(c)", "p.open(mode='rb')"]
    for line in bad:
        assert list(places(line)) == [1], line
    for line in good:
        assert not list(places(line)), line
