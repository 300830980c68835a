"""The plan of the house, as tests: who may import whom, what the front door shows, how large files grow."""

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
from multihmr import cli

PACKAGE = Path(multihmr.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in FILES]

# room -> the rooms that it may import; a folder is one room, its files may import each other
ALLOWED = {
    "geometry": set(),
    "humans": set(),
    "image": {"geometry"},
    "pickles": set(),  # foreign files: apart, so that what is allowed in them is read at a glance
    "bodies": {"geometry", "humans", "pickles", "rigs"},
    "raster": {"geometry", "humans"},
    "render": {"geometry", "humans", "image", "raster"},
    "bone_names": set(),  # a table
    "rigs": {"bone_names", "humans", "sequence"},
    "formats": {"humans", "rigs"},
    "coordinates": set(),
    "notebook": {"humans", "formats", "render"},
    "export": {"humans", "rigs", "sequence", "formats"},
    "sequence": {"humans"},
    "smoothing": set(),
    "tracking": {"humans", "sequence", "smoothing"},
    "pieces": {"humans", "sequence"},
    "frames": {"image"},
    "video": {"humans", "image", "sequence", "tracking", "frames"},
    "tiles": {"geometry", "humans"},
    "model": {"geometry", "humans", "image", "tiles", "bodies"},
    "boxes": {"image"},
    "networks": {"geometry", "humans", "image", "boxes", "bodies", "model"},
    "convert": {"geometry", "checkpoint", "bodies", "official", "releases"},
    "official": set(),  # foreign checkpoints, likewise
    "download": set(),  # bytes: one file from a list of addresses, of which it knows nothing else
    "releases": set(),  # a table
    "checkpoint": {"convert"},  # files -> tensors and what they say of themselves; hub makes networks of them
    "hub": {"bodies", "model", "networks", "checkpoint", "download", "releases"},
    "graphs": {"", "download", "geometry", "image", "model", "networks"},  # for other programs and runtimes
    "sharing": {"hub", "checkpoint", "releases", "model", "evaluation"},  # the Hugging Face Hub
    "data": {"geometry", "humans", "image", "boxes", "bodies", "pickles"},
    "evaluation": {"geometry", "humans", "image", "bodies", "model", "networks", "data", "hub", "render"},
    "training": {"geometry", "humans", "bodies", "model", "networks", "data", "hub", "evaluation"},
    "cli": {""},  # opens the one command that is asked for, by its name
    "commands": {"cli", "hub", "checkpoint", "convert", "model", "humans", "image", "data"}
    | {"training", "evaluation", "graphs", "page"}
    | {"cluster", "frames", "pieces", "video", "tracking", "sequence", "render", "export"},  # multihmr video
    "page": {"export", "frames", "hub", "humans", "image", "releases", "render", "sequence", "video"},
    "parquet": {"humans"},
    "cluster": {"graphs", "parquet", "image", "hub", "model", "humans"},
    "": {"hub", "model", "humans", "render", "export"},  # multihmr/__init__.py
    "__main__": {"cli"},
}
# doors that open only when someone asks: imports inside functions
LAZY = {
    "humans": {"render", "export", "coordinates", "formats", "notebook"},  # humans.draw, .save, .to, .show
    "networks": {"hub"},  # where weights lie that a script has written, for training
    "hub": {"graphs", "sharing"},  # load_model(backend=...), load_model("hf:owner/repo")
    "model": {"sharing", "video"},  # Model.from_pretrained, model.push_to_hub, model.predict_video
    "parquet": {"hub"},  # read_people, likewise
    "export": {"hub"},  # load_humans rebuilds the meshes, for which it needs the body
    "sequence": {"hub"},  # load_track, likewise
}
# optional or heavy: the files that may import them at the top; everyone else inside a function, or never
EXTRAS = {
    "warp": {"data/rays.py", "data/tracer.py"},
    "trimesh": set(),
    "pxr": set(),
    "supervision": set(),
    "bpy": set(),
    "timm": {"networks/backbones.py"},
    "tensorboard": set(),
    "anny": set(),
    "av": set(),  # inside a function of frames.py: folders and frames in memory do without
    "smplx": {"bodies/smplx.py"},
    "huggingface_hub": set(),
    "onnx": set(),
    "onnxruntime": set(),
    "onnxscript": set(),
    "openvino": set(),
    "nncf": set(),
    "gradio": {"page/app.py", "page/serving.py"},
    "ray": {"cluster/inputs.py", "cluster/run.py", "cluster/worker.py"},
    "pyarrow": {"parquet.py"} | {f"cluster/{name}.py" for name in ("inputs", "worker", "desk", "run")},
}
FORBIDDEN_NAMES = {"utils", "common", "core", "ops", "misc", "configs", "engine", "registry", "helpers"}
ENVIRONMENT_READERS = {
    "hub",
    "cluster",  # what Ray tells its makers, and how loud it is, can be said in no other way
    "cli",
    "data",
    "page",  # gradio is told in no other way where uploads lie
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


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_follow_the_plan(path: Path) -> None:
    room = room_of(path)
    assert room in ALLOWED, f"{path.name} is a new room: say in tests/test_house.py what it may import"
    for name, lazy in imports(path):
        top, _, rest = name.partition(".")
        if top == "multihmr":
            target = rest.partition(".")[0]
            target = target if target in ALLOWED else ""  # from . import __version__
            allowed = ALLOWED[room] | {room} | (LAZY.get(room, set()) if lazy else set())
            assert target in allowed, f"{path.relative_to(PACKAGE)} must not import {name}"
        elif top in EXTRAS and not lazy:
            own = str(path.relative_to(PACKAGE))
            assert own in EXTRAS[top], f"{own} must import {top} inside a function, or not at all"


def test_networks_know_only_the_type_of_their_body() -> None:
    """And how joints turn the bones of any body."""
    for path in (PACKAGE / "networks").glob("*.py"):
        bodies = {name for name, _ in imports(path) if name.startswith("multihmr.bodies")}
        assert bodies <= {"multihmr.bodies.body", "multihmr.bodies.swing_twist"}, (
            f"{path.name} imports {bodies}"
        )


def test_front_door_is_sorted_and_opens() -> None:
    assert multihmr.__all__ == sorted(multihmr.__all__)
    assert set(multihmr._DOORS) | {"__version__"} == set(multihmr.__all__)
    for name in multihmr.__all__:
        assert getattr(multihmr, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = multihmr.nothing


def test_every_command_has_its_file() -> None:
    files = {path.stem for path in (PACKAGE / "commands").glob("*.py")} - {"__init__", "flags"}
    assert files == set(cli.COMMANDS)


def test_version_is_the_one_of_setup_cfg() -> None:
    config = ConfigParser()
    if not config.read(PACKAGE.parent / "setup.cfg"):
        pytest.skip("not in a checkout")
    assert config["metadata"]["version"] in (multihmr.__version__, "attr: multihmr.__version__")


def test_importing_is_light() -> None:
    show = "print(*{name.partition('.')[0] for name in sys.modules})"
    code = f"import sys, multihmr; {show}; from multihmr import list_models, load_model; {show}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    package, doors = (set(line.split()) for line in run.stdout.splitlines())
    heavy = {"timm", "trimesh", "PIL", "warp", "smplx", "gradio", "ray", "anny", "matplotlib"}
    assert not package & (heavy | {"torch", "numpy"})
    assert not doors & heavy


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


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_house_rules(path: Path) -> None:
    tree, room = parse(path), room_of(path)
    assert not {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts} & FORBIDDEN_NAMES
    assert path.name == "__init__.py" or not code_lines(path) or ast.get_docstring(tree) or room == "__main__"
    for node in ast.walk(tree):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        words = ast.unparse(node) if isinstance(node, (ast.Attribute, ast.Name)) else ""
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        assert called != "print" or room in ("cli", "commands"), f"{where}: only commands print"
        assert called != "sys.exit" or room == "cli", f"{where}: only cli.py exits"
        assert words not in ("torch.float64", "torch.double"), (
            f"{where}: no float64 tensors, Apple MPS has none"
        )
        assert words not in ("os.environ", "os.getenv") or room in ENVIRONMENT_READERS, (
            f"{where}: hub.py does that"
        )
