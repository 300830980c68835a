"""`in_world().save(path)`: each format holds the points of that world."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from multihmr.bodies.anny import Anny
from multihmr.humans import Humans, rotvec_to_rotmat
from multihmr.io.save import load
from multihmr.world import in_world
from multihmr.world.placement import AXES, InWorld

from .test_ground import standing

pytestmark = pytest.mark.slow
LEFT_HANDED = ("unity", "unreal")


@pytest.fixture(scope="module")
def body() -> Anny:
    return Anny().eval()


@pytest.fixture(scope="module")
def humans(body: Anny) -> Humans:
    return standing(body, pitch=20, roll=4, height=1.8)


@pytest.fixture(params=AXES)
def world(humans: Humans, request: pytest.FixtureRequest) -> InWorld:
    return in_world(humans, request.param, camera_pitch=20, camera_roll=4)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".stl", ".off"])
def test_meshes_without_axes_of_their_own_have_those_of_the_world(
    world: InWorld, suffix: str, tmp_path: Path
) -> None:
    import trimesh

    loaded = trimesh.load(world.save(tmp_path / f"people{suffix}"), force="mesh", process=False)
    expected = world.vertices.reshape(-1, 3)
    atol = 1e-3 * (100 if world.unit == "cm" else 1)
    np.testing.assert_allclose(loaded.bounds, [expected.min(0), expected.max(0)], atol=atol)
    assert loaded.volume > 0  # faces outwards, in left-handed frames as well
    if suffix == ".ply":
        np.testing.assert_allclose(loaded.vertices, expected, atol=atol)


def test_formats_with_axes_keep_them(humans: Humans, tmp_path: Path) -> None:
    """A .glb has y up and metres; what reads it turns it to its own axes."""
    import trimesh

    world = in_world(humans, "unreal", camera_pitch=20, camera_roll=4)
    y_up = in_world(humans, camera_pitch=20, camera_roll=4).vertices.reshape(-1, 3)
    bounds = trimesh.load(world.save(tmp_path / "people.glb")).bounds
    np.testing.assert_allclose(bounds, [y_up.min(0), y_up.max(0)], atol=1e-3)
    assert world.save(tmp_path / "rigged.glb", rigged=True, bones="mixamo").stat().st_size > 1e5


def test_json_has_the_places_of_the_world(world: InWorld, tmp_path: Path) -> None:
    content = json.loads(world.save(tmp_path / "people.json").read_text(encoding="utf-8"))
    unit = 100 if world.unit == "cm" else 1
    assert content["format"] == "multihmr-world-json-1"
    assert content["units"] == ("centimetres and pixels" if unit == 100 else "metres and pixels")
    assert AXES[world.name] in content["frame"]
    np.testing.assert_allclose(content["world"]["camera_to_world"], world.camera_to_world, atol=1e-5)
    assert content["world"]["ground"]["camera_pitch_deg"] == pytest.approx(20)
    names, people = world.humans.topology.joint_names, world.humans
    keypoints = people.keypoints("coco17")
    for i, person in enumerate(content["people"]):
        np.testing.assert_allclose(person["pelvis"], world.pelvis[i], atol=1e-3 * unit)
        found = [person["joints"][name]["xyz"] for name in names]
        np.testing.assert_allclose(found, world.joints[i], atol=1e-3 * unit)
        assert person["distance"] == pytest.approx(people.distances[i] * unit, rel=1e-3)
        assert person["height_m"] == pytest.approx(world.height_m[i], abs=1e-3)
        assert person["over_floor_m"] == pytest.approx(world.over_floor[i], abs=1e-3)
        found = [person["coco17"][name]["xyz"] for name in keypoints.names]
        np.testing.assert_allclose(found, world.from_camera(keypoints.xyz[i]), atol=1e-3 * unit)
        found = [person["coco17"][name]["xy"] for name in keypoints.names]
        np.testing.assert_allclose(found, keypoints.xy[i], atol=0.01)
        assert ("orientation" in person) == (world.name not in LEFT_HANDED)
        if "orientation" in person:  # turns the body's axes to those of this world
            turned = rotvec_to_rotmat(np.array(person["orientation"], np.float32))
            expected = world.camera_to_world[:3, :3] @ people.pose[i, 0]
            np.testing.assert_allclose(turned, expected, atol=1e-3)


def test_csv_has_the_places_of_the_world(world: InWorld, tmp_path: Path) -> None:
    text = world.save(tmp_path / "people.csv").read_text(encoding="utf-8")
    for i, row in enumerate(csv.DictReader(text.splitlines())):
        found = [float(row[f"pelvis_{axis}_{world.unit}"]) for axis in "xyz"]
        np.testing.assert_allclose(found, world.pelvis[i], rtol=1e-5, atol=1e-4)
        assert float(row["height_m"]) == pytest.approx(world.height_m[i], abs=1e-4)
        assert f"nose_x_{world.unit}" in row
        assert "nose_x_px" in row


def test_npz_reads_back_and_leads_to_the_world(world: InWorld, body: Anny, tmp_path: Path) -> None:
    path = world.save(tmp_path / "people.npz")
    again = load(path, body)
    with np.load(path) as stored:
        assert str(stored["world_axes"]) == world.name
        np.testing.assert_array_equal(stored["world_joints"], world.joints)
        matrix = stored["camera_to_world"]
    vertices = again.vertices @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(vertices, world.vertices, atol=1e-3 * (100 if world.unit == "cm" else 1))


def test_people_of_the_world_have_its_sizes(humans: Humans) -> None:
    world = humans.in_world(camera_pitch=20, camera_roll=4, known_heights={1: 1.9})
    assert world.humans.height_m[0] == pytest.approx(1.9, abs=0.01)
    np.testing.assert_allclose(world.from_camera(world.humans.vertices), world.vertices, atol=1e-5)


def test_what_the_world_does_not_change_is_refused(humans: Humans, tmp_path: Path) -> None:
    world = in_world(humans, camera_pitch=20, camera_roll=4)
    with pytest.raises(
        ValueError, match=r"pixels alone, which are those of the image in every world: humans"
    ):
        world.save(tmp_path / "people.coco.json")
    with pytest.raises(ValueError, match=r"bones and people of a video are saved as \.glb"):
        world.save(tmp_path / "people.json", rigged=True)
    with pytest.raises(ValueError, match="its suffix must be one of"):
        world.save(tmp_path / "people.docx")
    with pytest.raises(
        ValueError, match=r"humans\.in_world\(\)\.save\(path\) writes them in that of the world"
    ):
        humans.save(tmp_path / "people.csv", ground=world.ground)
    assert world.save(tmp_path / "nobody.json")
    assert in_world(humans[:0], ground=world.ground).save(tmp_path / "nobody.ply")


def test_a_world_is_shown_in_one_line(humans: Humans) -> None:
    shown = repr(in_world(humans, "unreal", camera_pitch=20, camera_roll=4, floor=1.8))
    assert shown == "InWorld('unreal', 3 people, in cm, camera 1.80 m over the floor)"
    flat = repr(in_world(humans[:0], camera_pitch=20))
    assert flat == "InWorld('opengl', no people, in m, no floor known)"
