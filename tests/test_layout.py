"""Layout and style rules as tests: optional imports, folder and function sizes, the public names.

Who may import whom is a contract of import-linter in pyproject.toml, which `lint-imports` checks.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

import multihmr
from multihmr.cli import main as cli

PACKAGE = Path(multihmr.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in FILES]

# Optional or heavy packages and the modules that may import them at the top; others do inside a function.
EXTRAS = {
    "warp": {"data/synthetic/kernels.py", "data/synthetic/renderer.py"},
    "trimesh": set(),
    "pxr": set(),
    "supervision": set(),
    "rerun": set(),
    "pythonosc": set(),
    "websockets": set(),
    "xformers": set(),
    "bpy": set(),
    "pandas": set(),
    "timm": {"networks/backbones/timm_backbones.py"},
    "tensorboard": set(),
    "anny": set(),
    "av": set(),  # inside a function of video/reader.py: folders and frames in memory do without
    "smplx": {"bodies/smplx.py"},
    "huggingface_hub": set(),
    "onnx": set(),
    "onnxruntime": set(),
    "onnxscript": set(),
    "openvino": set(),
    "nncf": set(),
    "gradio": {"demo/app.py", "demo/server.py"},
    "ray": {"cluster/datasource.py", "cluster/run.py", "cluster/worker.py"},
    "pyarrow": {"io/parquet.py"}
    | {f"cluster/{name}.py" for name in ("datasource", "worker", "writer", "run")},
}
FORBIDDEN_NAMES = {"utils", "common", "core", "ops", "misc", "engine", "helpers"}
MOST_AT_THE_ROOT, MOST_IN_A_FOLDER = 7, 17
ENVIRONMENT_READERS = {
    "storage",
    "cluster",  # what Ray tells its makers, and how loud it is, can be said in no other way
    "cli",
    "data",
    "demo",  # gradio is told in no other way where uploads lie
}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether inside a function) of everything a file imports, except for type checkers."""
    package = ["multihmr", *path.relative_to(PACKAGE).parts[:-1]]

    def walk(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            if base == "multihmr":
                yield from ((f"multihmr.{alias.name}", lazy) for alias in node.names)
            else:
                yield base, lazy
        inside = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(parse(path), False)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_optional_packages_are_imported_where_they_are_used(path: Path) -> None:
    for name, lazy in imports(path):
        top = name.partition(".")[0]
        if top in EXTRAS and not lazy:
            own = str(path.relative_to(PACKAGE))
            assert own in EXTRAS[top], f"{own} must import {top} inside a function, or not at all"


def test_folders_are_small() -> None:
    """At most 7 modules at the root, no folder with more than 17 Python files."""
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_AT_THE_ROOT
    for folder in (path for path in PACKAGE.rglob("*") if path.is_dir()):
        assert len(list(folder.glob("*.py"))) <= MOST_IN_A_FOLDER, f"{folder} is full: give it subfolders"


FACADE = "multihmr.humans.people"  # whose save, draw, show, in_world ... import what knows Humans
FACADE_OF = (".io.", ".visualization.", ".world.")


def import_graph() -> dict[str, set[str]]:
    """Module -> modules of the package that it imports: at the top, in functions, and for type checkers."""
    names = {}
    for path in FILES:
        parts = ("multihmr", *path.relative_to(PACKAGE).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names} & set(names)
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                found = {f"{base}.{alias.name}" for alias in node.names} & set(names)
                graph[name] |= found or ({base} & set(names))
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Modules that reach themselves, in groups that reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            name = ahead.pop()
            if name not in seen:
                seen.add(name)
                ahead += graph[name]
        return seen

    reach = {name: reached(name) for name in graph}
    groups = [{b for b in reach[a] if a in reach[b]} for a in graph if a in reach[a]]
    return [group for i, group in enumerate(groups) if group not in groups[:i]]


@pytest.mark.slow
def test_no_import_circle_but_for_the_facade_on_humans() -> None:
    """Lazy and type-only imports counted."""
    graph = import_graph()
    assert sum(map(len, graph.values())) > 500
    assert "multihmr.hub.loading" in graph["multihmr.model.preparation"]  # a lazy one
    assert any(FACADE in group for group in circles(graph))
    outside = (*FACADE_OF, ".fitting.conversion")
    graph[FACADE] = {name for name in graph[FACADE] if not any(part in name for part in outside)}
    assert circles(graph) == []


@pytest.mark.slow
def test_networks_know_only_the_type_of_their_body() -> None:
    """And how joints turn the bones of any body, and which joints are its 22 of the body."""
    for path in (PACKAGE / "networks").rglob("*.py"):
        bodies = {name for name, _ in imports(path) if name.startswith("multihmr.bodies")}
        assert bodies <= {f"multihmr.bodies.{name}" for name in ("base", "body_parts", "swing_twist")}, (
            f"{path.name} imports {bodies}"
        )


def test_front_door_is_sorted_and_opens() -> None:
    assert multihmr.__all__ == sorted(multihmr.__all__)
    assert set(multihmr._LAZY_EXPORTS) | {"__version__"} == set(multihmr.__all__)
    for name in multihmr.__all__:
        assert getattr(multihmr, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = multihmr.nothing


def test_every_command_has_its_file() -> None:
    files = {path.stem for path in (PACKAGE / "cli").glob("*.py")} - {"__init__", "arguments", "main"}
    files |= {path.parent.name for path in (PACKAGE / "cli").glob("*/command.py")}
    assert files == set(cli.COMMANDS)


def test_version_is_the_one_of_setup_cfg() -> None:
    config = ConfigParser()
    if not config.read(PACKAGE.parent / "setup.cfg"):
        pytest.skip("not in a checkout")
    assert config["metadata"]["version"] in (multihmr.__version__, "attr: multihmr.__version__")


def test_every_folder_is_installed() -> None:
    config = ConfigParser()
    if not config.read(PACKAGE.parent / "setup.cfg"):
        pytest.skip("not in a checkout")
    listed = {name for name in config["options"]["packages"].split() if name != "multihmr.weights"}
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert listed == {".".join(folder.relative_to(PACKAGE.parent).parts) for folder in folders}


@pytest.mark.slow
def test_importing_is_light() -> None:
    show = "print(*{name.partition('.')[0] for name in sys.modules})"
    code = f"import sys, multihmr; {show}; from multihmr import list_models, load_model; {show}"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    package, doors = (set(line.split()) for line in run.stdout.splitlines())
    heavy = {"timm", "trimesh", "PIL", "warp", "smplx", "gradio", "ray", "anny", "matplotlib"}
    assert not package & (heavy | {"torch", "numpy"})
    assert not doors & (heavy - {"PIL"})  # which load_model needs anyway, to read images


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_functions_fit_a_screen(path: Path) -> None:
    code = code_lines(path)
    for node in ast.walk(parse(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = len([n for n in range(node.lineno, (node.end_lineno or 0) + 1) if n in code])
            assert length <= 60, f"{path.name}:{node.lineno} {node.name} has {length} lines of code"


def code_lines(path: Path) -> set[int]:
    """Numbers of the lines that hold code: no docstrings, comments or blanks."""
    text = path.read_text(encoding="utf-8")
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_style_rules(path: Path) -> None:
    tree, room = parse(path), room_of(path)
    assert not {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts} & FORBIDDEN_NAMES
    assert path.name == "__init__.py" or room == "__main__" or ast.get_docstring(tree) or not code_lines(path)
    for node in ast.walk(tree):
        called = dotted(node.func) if isinstance(node, ast.Call) else ""
        words = dotted(node)
        assert called != "print" or room == "cli", f"{place(path, node)}: only the command line prints"
        assert called != "sys.exit" or room == "cli", f"{place(path, node)}: only the command line exits"
        assert words not in ("torch.float64", "torch.double") or room == "fitting", (
            f"{place(path, node)}: no float64 tensors, Apple MPS has none; "
            "normal equations are solved on the CPU"
        )
        assert words not in ("os.environ", "os.getenv") or room in ENVIRONMENT_READERS, (
            f"{place(path, node)}: storage/paths.py does that"
        )


def dotted(node: ast.AST) -> str:
    """ "a.b.c" of names and their attributes, "" of anything else."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def place(path: Path, node: ast.AST) -> str:
    return f"{path.name}:{getattr(node, 'lineno', 0)}"
