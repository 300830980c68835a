"""Every module constant does something: one that nothing reads looks like a setting, and changes nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import multihmr

PACKAGE = Path(multihmr.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def constants(tree: ast.Module) -> set[str]:
    """Upper-case names that a module assigns at its top level."""
    names: set[str] = set()
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            elements = target.elts if isinstance(target, ast.Tuple) else [target]
            names |= {e.id for e in elements if isinstance(e, ast.Name) and e.id.strip("_").isupper()}
    return names


def names_read(tree: ast.Module) -> set[str]:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return {node.id for node in nodes if isinstance(node.ctx, ast.Load)}


def read_elsewhere(tree: ast.Module) -> set[tuple[str, str]]:
    """(module, name) of what a module imports and reads, and ("", name) of attributes and of getattr."""
    found, own = set(), names_read(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").rpartition(".")[2]
            found |= {(module, alias.name) for alias in node.names if (alias.asname or alias.name) in own}
        elif isinstance(node, ast.Attribute):
            found.add(("", node.attr))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            found |= {("", arg.value) for arg in node.args if isinstance(arg, ast.Constant)}
    return found


def unused(sources: dict[str, str]) -> set[str]:
    """FILE:NAME of the constants that no file reads."""
    trees = {name: ast.parse(text) for name, text in sources.items()}
    elsewhere = set().union(*map(read_elsewhere, trees.values()))
    return {
        f"{name}:{c}"
        for name, tree in trees.items()
        for c in constants(tree) - names_read(tree)
        if not {("", c), (Path(name).stem, c), (Path(name).parent.name, c)} & elsewhere
    }


@pytest.mark.slow
def test_every_module_constant_is_read() -> None:
    """What only tests read is no setting either."""
    sources = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in FILES}
    assert unused(sources) == set()


def test_constants_that_do_nothing_are_found() -> None:
    """As ALPHA_THRESHOLD and SKIN_OFFSET of the ray kernels, whose values stood in the kernels once more."""
    kernels = "ALPHA_THRESHOLD = 0.35\nOFFSET, REACH = 1, 2\n\ndef opaque(a):\n    return a > 0.35 * REACH\n"
    importer = "from kernels import ALPHA_THRESHOLD\n"
    other = "OFFSET = 3\nprint(OFFSET)\n"
    assert unused({"kernels": kernels, "importer": importer, "other": other}) == {
        "kernels:ALPHA_THRESHOLD",
        "kernels:OFFSET",
    }
