"""What docs/ says is true: fields, joints and sets are those of the package, links and pictures are there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from multihmr.bodies.loading import load_body
from multihmr.bodies.topology import Topology
from multihmr.humans import _SHAPES, Humans, project
from multihmr.io.coordinate_frames import FRAMES

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXT = {page.stem: page.read_text() for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "README.md"]}


def rows(page: str) -> list[list[str]]:
    """The cells of all lines of tables on a page."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT[page].splitlines()
        if line.startswith("|")
    ]


def test_the_table_of_fields_is_that_of_the_class():
    fields = [field.name for field in dataclasses.fields(Humans)]
    table = {row[0].strip("`"): row[1] for row in rows("fields")}
    assert [name for name in table if name in fields] == sorted(fields, key=list(table).index)
    assert set(fields) <= set(table)
    for name, trailing in _SHAPES.items():
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
        np.testing.assert_array_equal([axes[word] for word in row[1:4]], FRAMES[name])
        assert row[4] == ("right" if np.linalg.det(FRAMES[name]) > 0 else "left")


def test_the_code_on_coordinates_runs(make_humans):
    humans = make_humans((0.3, -0.5, 4))
    names = {"humans": humans}
    for block in re.findall(r"```python\n(.*?)```", TEXT["coordinates"], flags=re.DOTALL):
        exec(compile(block, "coordinates.md", "exec"), names)
    np.testing.assert_allclose(names["pixels"], humans.joints_2d, atol=1e-4)
    np.testing.assert_allclose(project(humans.joints, humans.K), humans.joints_2d, atol=1e-4)


def test_ten_lines_for_each_who_comes():
    parts = TEXT["coming_from"].split("\n## ")[1:]
    assert [part.splitlines()[0] for part in parts] == ["Multi-HMR", "ROMP and BEV", "SMPLer-X and SMPLest-X"]
    for part in parts:
        assert re.findall(r"^(\d+)\. ", part, flags=re.MULTILINE) == [str(n) for n in range(1, 11)]


@pytest.mark.parametrize("page", sorted(TEXT))
def test_links_lead_somewhere_and_pictures_are_small(page):
    folder = ROOT / "docs" if page not in ("CHANGELOG", "README") else ROOT
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", TEXT[page]):
        assert (folder / link).exists(), link
        assert not link.endswith(".png") or (folder / link).stat().st_size <= 200_000, link


def test_the_changelog_has_every_version():
    import multihmr

    versions = re.findall(r"^## (\S+)", TEXT["CHANGELOG"], flags=re.MULTILINE)
    assert multihmr.__version__ in versions
    assert versions == sorted(versions, key=lambda v: (v == "Next", v), reverse=True)
