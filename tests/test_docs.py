"""The documentation is true: its code runs, its commands exist, and its tables are those of the package."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import shutil
from configparser import ConfigParser
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from multihmr.bodies.loading import load_body
from multihmr.bodies.topology import Topology
from multihmr.cli.main import COMMANDS, run
from multihmr.humans import Humans, project
from multihmr.humans.fields import SHAPES
from multihmr.io.coordinate_frames import FRAMES
from multihmr.model import Model, load_model

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FILES = [*PAGES, *sorted(ROOT.glob("*.md")), *sorted((ROOT / "weights").glob("*.md"))]
IDS = [path.relative_to(ROOT).as_posix() for path in FILES]
TEXT = {page.relative_to(DOCS).with_suffix("").as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
CODE = re.compile(r"(?:<!-- example: ([^\n]*) -->\n)?```python\n(.*?)```", flags=re.DOTALL)


def rows(page: str) -> list[list[str]]:
    """The cells of all lines of tables on a page."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT[page].splitlines()
        if line.startswith("|")
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with the files that the pages name; the video is cut to its first frames."""
    images = tmp_path / "examples/images"
    images.mkdir(parents=True)
    for name in (images / "astronaut.jpg", tmp_path / "street.jpg"):
        shutil.copy(ROOT / "examples/images/astronaut.jpg", name)
    shutil.copy(ROOT / "examples/images/group.jpg", images / "group.jpg")  # people who stand
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shorten_video(path: Path) -> None:
    """Write the first four frames of the example video to `path`."""
    from multihmr.video.reader import open_video
    from multihmr.video.writer import VideoWriter

    with VideoWriter(path, fps=30) as writer:
        for frame in islice(open_video(ROOT / "examples/images/walk.mp4"), 4):
            writer.write(frame.image.pixels, frame.time)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, text in TEXT.items() if "```python" in text])
def test_the_code_of_a_page_runs(page, folder, make_humans):
    """All blocks of a page in order; a comment before a block names the packages that it needs."""
    names: dict = {"humans": make_humans((0.3, -0.5, 4))}
    for needs, code in CODE.findall(TEXT[page]):
        compiled = compile(code, f"{page}.md", "exec")
        if needs.startswith("not run"):
            continue
        for package in needs.removeprefix("needs ").split(", ") if needs else ():
            pytest.importorskip(package)
        if "walk.mp4" in code:
            shorten_video(folder / "examples/images/walk.mp4")
        if "in_frame" in code and not hasattr(Humans, "in_frame"):
            pytest.xfail("Humans.in_frame is not there yet")
        exec(compiled, names)


@pytest.fixture(scope="module")
def help_of():
    """The help text of a command, by its name."""
    import contextlib
    import functools
    import io

    @functools.cache
    def text(*command: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
            run([*command, "--help"])
        return out.getvalue()

    return text


def commands(text: str) -> list[str]:
    """The calls of multihmr in a text's blocks of code, one line each."""
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [line.strip() for line in text.splitlines() if line.startswith("    ")]
    calls = (re.search(r"(?:^|[/ ])multihmr (?=[a-z])([^#&]*)", line) for line in lines)
    return [call[1].strip() for call in calls if call]


@pytest.mark.slow  # help of evaluate and train imports torch
@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_commands_have_the_options_that_are_shown(path, help_of):
    for call in commands(path.read_text(encoding="utf-8")):
        command = call.split()[0]
        assert command in COMMANDS, call
        known = help_of(command, call.split()[1]) if command == "data" else help_of(command)
        for option in re.findall(r"(?<!\S)--[a-z][\w-]*", call):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", known, re.IGNORECASE), f"{option} of: {call}"


@pytest.mark.slow
def test_options_that_are_named_alone_exist(help_of):
    """`--option` in code font, on the pages of the site and in the README."""
    known = "".join(help_of(command) for command in COMMANDS) + help_of("data", "check") + "--traceback"
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "scripts").rglob("*.py"))
    for page, text in [*TEXT.items(), ("README", (ROOT / "README.md").read_text(encoding="utf-8"))]:
        for option in re.findall(r"`(--[a-z][\w-]*)", text):
            found = re.search(rf"(?<![\w-]){option}(?![\w-])", known + scripts)
            assert found, f"{page}.md names {option}"


def flags_of_commands(text):
    """(flag, commands) of phrases such as "`--tiles N` for `predict`, `video` and `live`", in a page."""
    for flag, names in re.findall(
        r"`(--[a-z][\w-]*)[^`]*` (?:in|for)((?:,? (?:and )?`[a-z]+`)+)", " ".join(text.split())
    ):
        yield flag, set(re.findall(r"`([a-z]+)`", names))


@pytest.mark.slow
def test_all_commands_that_have_a_flag_are_named(help_of):
    found = {(flag, frozenset(names)) for text in TEXT.values() for flag, names in flags_of_commands(text)}
    assert {"--tiles", "--hands-and-faces", "--no-limbs", "--backend"} <= {flag for flag, _ in found}
    for flag, names in found:
        having = {name for name in COMMANDS if re.search(rf"(?<![\w-]){flag}(?![\w-])", help_of(name))}
        assert names == having, flag


@pytest.mark.slow
def test_first_steps_has_all_options_of_predict():
    named = {name for row in rows("first_steps") for name in re.findall(r"`(\w+)`", row[0])}
    assert set(inspect.signature(Model.predict).parameters) - {"self", "image"} <= named


@pytest.mark.slow
def test_numbers_of_the_example_pictures_are_those_of_the_bundled_model():
    pytest.importorskip("pandas")
    humans = load_model(device="cpu").predict(ROOT / "examples/images/group.jpg")
    shown = re.search(r"```text\n(.*?)```", TEXT["guides/tables"], flags=re.DOTALL)[1].split()
    table = humans.to_pandas()[shown[:5]].reset_index().to_numpy(float)
    np.testing.assert_allclose(np.array(shown[5:], float).reshape(-1, 6), table, atol=0.05)

    camera, unreal = re.search(
        r"nearest head is at `(\(.*?\))`.*?`(\(.*?\))`", TEXT["guides/retargeting"], re.DOTALL
    ).groups()
    np.testing.assert_allclose(ast.literal_eval(camera), humans.translation[0], atol=0.02)
    np.testing.assert_allclose(ast.literal_eval(unreal), humans.in_frame("unreal").translation[0], atol=2)


def test_every_command_is_on_its_page():
    named = re.findall(r"`multihmr ([a-z]+)", TEXT["reference/command_line"])
    assert set(named) == set(COMMANDS)


def test_every_page_is_in_the_navigation():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in TEXT:
        assert re.search(rf"[ :]{re.escape(page)}\.md\n", config), f"add {page}.md to nav in mkdocs.yml"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_links_lead_somewhere_and_pictures_are_small(path):
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http|#)([^)#]+)", text) + re.findall(
        r"^\[[^\]]+\]: (?!http)([^\s#]+)", text, re.M
    )
    for link in links:
        assert (path.parent / link).exists(), link
        assert not link.endswith(".png") or (path.parent / link).stat().st_size <= 200_000, link
    for name in re.findall(r'^--8<-- "(.+)"', text, re.M):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.name != "CHANGELOG.md"],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_files_and_modules_that_are_named_exist(path):
    """Paths, from the root or from the package, and dotted names of modules and what they define."""
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"[`\s]((?:\w+/)+\w+\.(?:py|md|ipynb|cpu|cuda))(?=[`\s,;:.)])", text):
        if "NAME" not in name:
            assert (ROOT / name).exists() or (ROOT / "multihmr" / name).exists(), name
    for name in re.findall(r"(?<![\w/.])multihmr(?:\.\w+)+", text):
        place, rest = ROOT / "multihmr", name.split(".")[1:]
        while rest and ((place / rest[0]).is_dir() or (place / f"{rest[0]}.py").exists()):
            place = place / rest.pop(0)
        if rest:
            module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            source = module.read_text(encoding="utf-8")
            defined = rf"^(class|def) {rest[0]}\b|^{rest[0]}\b|\"{rest[0]}\""  # or in __all__
            assert re.search(defined, source, re.M), name


def test_the_table_of_fields_is_that_of_the_class():
    fields = [field.name for field in dataclasses.fields(Humans)]
    table = {row[0].strip("`"): row[1] for row in rows("fields")}
    assert [name for name in table if name in fields] == sorted(fields, key=list(table).index)
    assert set(fields) <= set(table)
    for name, trailing in SHAPES.items():
        form = ", ".join(map(str, ("N", *trailing))) + ("" if trailing else ",")
        assert table[name] == f"({form})", name


def test_what_follows_from_the_fields_is_there():
    named = {row[0].strip("`").partition("(")[0] for row in rows("fields")}
    assert {"distances", "normals", "colors", "keypoints", "to_dicts"} <= named
    told = re.findall(r"`(\w+)`", TEXT["fields"].partition("\n`topology` holds")[2])
    assert {field.name for field in dataclasses.fields(Topology)} - set(told) == {
        "name",
        "pose_joints",
        "rest_pelvis",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["anny", "anny-163"])
def test_the_sizes_of_the_bodies(name):
    body = load_body(name)
    table = {row[0].strip("`"): row[1:] for row in rows("fields")}
    vertices = len(body.topology.skin_indices)
    sizes = [
        vertices,
        len(body.topology.joint_names),
        body.rotation_count,
        body.shape_count,
        body.expression_count,
    ]
    assert table[name] == [str(size) for size in sizes]


@pytest.mark.slow
def test_every_joint_has_its_number_and_every_set_its_names():
    topology = load_body("anny").topology
    cells = [cell.split() for row in rows("joints") for cell in row]
    numbered = {int(cell[0]): cell[1] for cell in cells if len(cell) == 2 and cell[0].isdigit()}
    assert numbered == dict(enumerate(topology.joint_names))
    sets = {row[0].strip("`"): row[1].split(", ") for row in rows("joints") if row[0].startswith("`")}
    assert sets == {name: list(points.names) for name, points in topology.keypoint_sets.items()}


def test_the_axes_of_other_programs():
    """Each row of the table, as a matrix whose rows are the axes in the camera frame."""
    axes = {"right": [1, 0, 0], "down": [0, 1, 0], "forward": [0, 0, 1], "up": [0, -1, 0], "back": [0, 0, -1]}
    for row in rows("coordinates")[2:]:
        name = (re.match(r'`"(\w+)"`', row[0]) or ["", "opencv"])[1]
        unit = 100 if "in centimetres" in row[0] else 1
        np.testing.assert_array_equal([unit * np.array(axes[word]) for word in row[1:4]], FRAMES[name])
        assert row[4] == ("right" if np.linalg.det(FRAMES[name]) > 0 else "left")


def test_projection_gives_the_joints_in_pixels(make_humans):
    humans = make_humans((0.3, -0.5, 4))
    names: dict = {"humans": humans}
    exec(CODE.search(TEXT["coordinates"])[2], names)
    np.testing.assert_allclose(names["pixels"], humans.joints_2d, atol=1e-4)
    np.testing.assert_allclose(project(humans.joints, humans.K), humans.joints_2d, atol=1e-4)


def test_ten_lines_for_each_who_comes():
    parts = TEXT["coming_from"].split("\n## ")[1:]
    assert [part.splitlines()[0] for part in parts] == ["Multi-HMR", "ROMP and BEV", "SMPLer-X and SMPLest-X"]
    for part in parts:
        assert re.findall(r"^(\d+)\. ", part, flags=re.MULTILINE) == [str(n) for n in range(1, 11)]


def test_the_changelog_has_every_version_with_its_date():
    import multihmr

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *heads = re.findall(r"^## (.+)", text, flags=re.MULTILINE)
    assert first == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - 20\d\d-\d\d-\d\d", head) for head in heads)
    versions = [tuple(map(int, head.split(" ")[0].split("."))) for head in heads]
    assert versions == sorted(versions, reverse=True)
    assert multihmr.__version__ in {head.split(" ")[0] for head in heads}


def test_notebooks_are_listed():
    notebooks = sorted((ROOT / "examples/notebooks").glob("*.ipynb"))
    assert re.findall(r"`(\w+\.ipynb)`", TEXT["notebooks"]) == [path.name for path in notebooks]


def test_version_and_python_versions_are_the_same_everywhere():
    import multihmr

    config, text = ConfigParser(), (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    config.read(ROOT / "setup.cfg")
    assert f"version: {multihmr.__version__}\n" in text
    pythons = re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"])
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert f"python: {json.dumps(pythons)}" in workflow
    oldest = re.search(r"^torch>=(\S+)", config["options"]["install_requires"], re.M)
    assert oldest
    assert f"torch=={oldest[1]}.*" in workflow
    extras = set(re.findall(r"`multihmr\[(\w+)\]`", TEXT["installation"]))
    assert extras == set(config["options.extras_require"])
