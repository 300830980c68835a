from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
import trimesh
from toys import ToyBody

from multihmr.bodies.body import Body, place
from multihmr.export import FORMATS, load, save
from multihmr.humans import Humans, project

PLACES = ((0, 0, 2), (0.5, 0, 3), (-1, 0.2, 5))
TO_GLTF = np.array([1, -1, -1])


@pytest.fixture(scope="module")
def toy_humans() -> Humans:
    """Two people made by the toy body from random parameters."""
    return dataclasses.replace(
        random_humans(ToyBody(), 2),
        K_source="exif",
        track_ids=np.array([5, 2]),
        unpredicted=("smile",),
        filled=np.array([True, False]),
    )


def random_humans(body: Body, count: int) -> Humans:
    generator = torch.Generator().manual_seed(0)
    pose = torch.linalg.qr(torch.randn(count, body.rotation_count, 3, 3, generator=generator))[0]
    pose = pose * torch.linalg.det(pose)[..., None, None]
    shape = torch.rand(count, body.shape_count, generator=generator)
    expression = torch.rand(count, body.expression_count, generator=generator)
    translation = torch.rand(count, 3, generator=generator) + torch.tensor([0, 0, 2.0])
    vertices, joints = place(body(pose, shape, expression), translation, body.center_joint)
    K = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1]], np.float32)
    return Humans(
        scores=np.linspace(0.9, 1 / 3, count),
        vertices=vertices.numpy(),
        joints=joints.numpy(),
        joints_2d=project(joints.numpy(), K),
        boxes=np.ones((count, 4)),
        translation=translation.numpy(),
        pelvis=joints[:, 0].numpy(),
        pose=pose.numpy(),
        shape=shape.numpy(),
        expression=expression.numpy(),
        K=K,
        K_source="given",
        image_size=(480, 640),
        body=body.name,
        topology=body.topology,
    )


def test_npz_rebuilds_everything(toy_humans, tmp_path):
    for humans in (
        toy_humans,
        toy_humans[[]],
        dataclasses.replace(toy_humans, track_ids=None, unpredicted=()),
    ):
        again = load(humans.save(tmp_path / "people.npz"), ToyBody())
        for field in dataclasses.fields(Humans):
            if field.name != "topology":
                np.testing.assert_array_equal(getattr(again, field.name), getattr(humans, field.name))


def test_npz_needs_no_pickle_and_names_its_columns(toy_humans, tmp_path):
    with np.load(save(toy_humans, tmp_path / "people.npz"), allow_pickle=False) as stored:
        assert stored["joint_names"].tolist() == ["root", "spine", "head"]
        assert str(stored["format"]) == "multihmr-humans-1"
        assert not {"vertices", "poses"} & set(stored)


def test_npz_of_smplx_feeds_its_own_package(fake_smplx_file, tmp_path):
    """AMASS's names; the package's forward pass gives our vertices back."""
    smplx = pytest.importorskip("smplx")
    from multihmr.bodies.smplx import SMPLX

    humans = random_humans(SMPLX(fake_smplx_file, shape_count=11), 3)
    with np.load(humans.save(tmp_path / "people.npz"), allow_pickle=False) as stored:
        given = {key: torch.from_numpy(stored[key]) for key in ("poses", "betas", "trans", "expression")}
        assert given["poses"].shape == (3, 165)
        assert str(stored["gender"]) == "neutral"
    settings = {"use_pca": False, "flat_hand_mean": True, "num_betas": 11, "use_face_contour": False}
    model = smplx.create(str(fake_smplx_file), model_type="smplx", batch_size=3, **settings)
    parts = {"global_orient": 3, "body_pose": 63, "jaw_pose": 3, "leye_pose": 3, "reye_pose": 3}
    parts |= {"left_hand_pose": 45, "right_hand_pose": 45}
    poses = dict(zip(parts, given["poses"].split(list(parts.values()), 1), strict=True))
    with torch.no_grad():
        output = model(**poses, betas=given["betas"], transl=given["trans"], expression=given["expression"])
    np.testing.assert_allclose(output.vertices, humans.vertices, atol=2e-5)
    np.testing.assert_allclose(output.joints, humans.joints, atol=2e-5)
    again = load(tmp_path / "people.npz", SMPLX(fake_smplx_file, shape_count=11))
    np.testing.assert_array_equal(again.vertices, humans.vertices)


def test_npz_of_another_body_is_refused(make_humans, tmp_path):
    path = save(make_humans(*PLACES), tmp_path / "balls.npz")
    with pytest.raises(ValueError, match="people of body 'ball', got body 'toy'"):
        load(path, ToyBody())


def test_what_is_no_npz_of_ours_is_refused(toy_humans, tmp_path):
    path = save(toy_humans, tmp_path / "people.npz")
    whole = path.read_bytes()
    for content in (b"", b"not a zip", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged or no"):
            load(path, ToyBody())
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ValueError, match="must have the format"):
        load(path, ToyBody())
    np.savez(path, format="multihmr-humans-1", body="toy")
    with pytest.raises(ValueError, match="lacks K, K_source, boxes"):
        load(path, ToyBody())
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere\.npz"):
        load(tmp_path / "nowhere.npz", ToyBody())


def test_glb_holds_the_people_as_upright_nodes(make_humans, tmp_path):
    humans = make_humans(*PLACES)
    scene = trimesh.load(save(humans, tmp_path / "people.glb"), process=False)
    assert set(scene.graph.nodes_geometry) == {"person_0", "person_1", "person_2"}
    for i in range(3):
        mesh = scene.geometry[f"person_{i}"]
        np.testing.assert_array_equal(mesh.vertices * TO_GLTF, humans.vertices[i])
        np.testing.assert_array_equal(mesh.faces, humans.topology.faces)
        np.testing.assert_allclose(mesh.vertex_normals * TO_GLTF, humans.normals[i], atol=1e-5)
    assert mesh.volume > 0  # faces still turn outwards


def test_glb_says_score_track_and_camera(make_humans, tmp_path):
    content = save(make_humans(*PLACES, track_ids=[3, 1, 8]), tmp_path / "people.glb").read_bytes()
    tree = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    assert tree["nodes"][2] == {"name": "person_1", "mesh": 1, "extras": {"score": 0.7, "track_id": 1}}
    assert tree["cameras"][0]["perspective"]["yfov"] == pytest.approx(2 * np.arctan(0.6))
    assert int.from_bytes(content[8:12], "little") == len(content)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".OBJ"])
def test_mesh_files_hold_all_people(make_humans, tmp_path, suffix):
    humans = make_humans(*PLACES)
    mesh = trimesh.load(save(humans, tmp_path / f"people{suffix}"), process=False, force="mesh")
    np.testing.assert_allclose(mesh.vertices * TO_GLTF, humans.vertices.reshape(-1, 3), atol=1e-6)
    assert mesh.faces.shape == (3 * len(humans.topology.faces), 3)
    colors = np.unique(np.asarray(mesh.visual.vertex_colors)[:, :3], axis=0)
    np.testing.assert_allclose(colors, np.unique(humans.colors, axis=0), atol=1)


def test_json_names_every_number(make_humans, tmp_path):
    humans = make_humans(*PLACES)
    content = json.loads(save(humans, tmp_path / "people.json").read_text())
    person = content["people"][1]
    np.testing.assert_allclose(person["translation"], humans.translation[1], atol=1e-4)
    np.testing.assert_allclose(person["joints"]["head"]["xy"], humans.joints_2d[1, 1], atol=0.01)
    np.testing.assert_allclose(
        person["coco17"]["middle"]["xyz"], humans.keypoints("poles").xyz[1, 1], atol=1e-4
    )
    assert content["camera"] == {"K": [[100, 0, 80], [0, 100, 60], [0, 0, 1]], "source": "given"}
    assert content["image"] == {"width": 160, "height": 120}


@pytest.mark.parametrize("suffix", FORMATS)
def test_nobody_makes_a_file_too(make_humans, tmp_path, suffix):
    path = make_humans().save(tmp_path / f"nobody{suffix}")
    assert path.stat().st_size > 0
    if suffix == ".glb":
        assert len(trimesh.load(path).geometry) == 0


def test_unknown_suffix_lists_the_known_ones(make_humans, tmp_path):
    with pytest.raises(ValueError, match=r"suffix must be one of \.bvh, \.coco\.json, \.glb, \.json"):
        save(make_humans(), tmp_path / "people.fbx")


def test_missing_folder_is_named(make_humans, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing; make it first"):
        save(make_humans(), tmp_path / "missing" / "people.glb")


def test_a_failed_write_leaves_the_old_file(make_humans, tmp_path, monkeypatch):
    path = save(make_humans(*PLACES), tmp_path / "people.json")
    before = path.read_bytes()

    def full_disk(self: object, content: bytes) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save(make_humans(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
