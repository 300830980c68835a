"""docs/architecture.md is true: folders exist, each term of the papers is in the docstring of its file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "multihmr"
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def table(after: str) -> list[list[str]]:
    """Cells of the rows of the first table behind a text, without its two head lines."""
    lines = PAGE.partition(after)[2].lstrip().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in lines[start + 2 : end]]


TERMS = table("<!-- table: terms of the papers -->")


def test_there_are_twenty_terms() -> None:
    assert len(TERMS) == 20
    assert len({term for _, _, term, _ in TERMS}) == 20
    assert {paper for paper, *_ in TERMS} == {"Multi-HMR", "GLNet"}


@pytest.mark.parametrize(("term", "file"), [(term, file) for _, _, term, file in TERMS])
def test_the_docstring_of_the_file_has_the_term(term: str, file: str) -> None:
    path = PACKAGE / file
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    words = re.sub(r"\s+", " ", docstring).lower()
    assert term.lower() in words, f"multihmr/{file} does not name {term!r} in its docstring"


def test_the_layers_are_those_of_the_contract() -> None:
    contract = re.search(r"layers = \[\n(.*?)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.S)
    block = re.search(r"```\n(.*?)```", PAGE.partition("## Who may import whom")[2], re.S)
    assert contract
    assert block
    assert block[1].split("\n")[:-1] == re.findall(r'"(.+)"', contract[1])


def test_the_table_of_folders_is_complete() -> None:
    named = {row[0].rstrip("/") for row in table("## The folders")}
    there = {
        path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert there - {"__main__.py"} <= named
    assert all((PACKAGE / name).exists() for name in named)


# files of other projects that docstrings and comments name
ELSEWHERE = {"anny/anthropometry.py", "data_processing/df_full_body.py", "tool/UBody/video2image.py"}
CHECKED = [
    *PACKAGE.rglob("*.py"),
    *(ROOT / "scripts").rglob("*.py"),
    *(ROOT / "examples").glob("*.py"),
    ROOT / "README.md",
    *(ROOT / "docs/guides").glob("*.md"),
]


def test_python_files_that_texts_name_exist() -> None:
    """Docstrings, comments and pages name modules, scripts and tests by paths that exist."""
    there = [path.as_posix() for path in ROOT.rglob("*.py")]
    wrong = []
    for path in CHECKED:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for found in re.finditer(r"(?<![\w/.-])([\w/]+\.py)\b", line):
                known = found[1] in ELSEWHERE or any(file.endswith("/" + found[1]) for file in there)
                if not known and found[1] != "score.py":  # of the owner of the photographs
                    wrong.append(f"{path.relative_to(ROOT)}:{number} names {found[1]}")
    assert not wrong
