"""Rigged files, read back by others than wrote them: tests/gltf_reader.py, Khronos' validator, Blender."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from gltf_reader import Reader
from toys import ToyBody

from multihmr.bodies.anny import Anny
from multihmr.bodies.anny163 import Anny163
from multihmr.bodies.base import Body
from multihmr.data.synthetic.bvh import read_bvh
from multihmr.io.animation import tracks_to_clips
from multihmr.io.bone_names import bone_names
from multihmr.io.bvh import rotmat_to_zxy
from multihmr.io.save import save
from multihmr.video.tracks import Track, collect, with_meshes, without_meshes

TO_GLTF = np.array([1, -1, -1])
K = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1]], np.float32)


@pytest.fixture(scope="module")
def anny() -> Body:
    return Anny()


def random_track(body: Body, frames: list[int], *, identity: int = 1, angle: float = 0.3) -> Track:
    """Somebody of a random shape who takes a random pose in each frame, at 25 frames a second."""
    generator = torch.Generator().manual_seed(identity)
    count = len(frames)
    pose = roma.rotvec_to_rotmat(angle * torch.randn(count, body.rotation_count, 3, generator=generator))
    pose[:, 0] = roma.random_rotmat(count, generator=generator) @ body.mean_pose_R33[0]
    return Track(
        id=identity,
        frames=np.array(frames),
        times=np.array(frames) / 25,
        pose=pose.numpy(),
        shape=torch.rand(body.shape_count, generator=generator).numpy(),
        expression=torch.rand(count, body.expression_count, generator=generator).numpy(),
        translation=torch.randn(count, 3, generator=generator).numpy() + [0, 0, 4],
        pelvis=np.zeros((count, 3)),
        scores=np.ones(count),
        boxes=np.zeros((count, 4)),
        filled=np.zeros(count, bool),
        K=np.tile(K, (count, 1, 1)),
        image_sizes=np.tile([480, 640], (count, 1)),
        fps=25,
        body=body.name,
        topology=body.topology,
    )


def distance_mm(points: np.ndarray, others: np.ndarray) -> float:
    return 1000 * float(np.linalg.norm(points - others * TO_GLTF, axis=-1).max())


@pytest.mark.slow
def test_animated_people_stand_as_humans(anny, tmp_path):
    tracks = [random_track(anny, [0, 1, 2], identity=4), random_track(anny, [1, 2], identity=7)]
    reader = Reader(save(tracks, tmp_path / "two.glb", body=anny))
    for track in tracks:
        for humans, seconds in zip(track.humans(anny), track.times, strict=True):
            posed = reader.vertices(f"person_{track.id}_body", float(seconds))
            assert distance_mm(posed, humans.vertices[0]) < 0.3


@pytest.mark.slow
def test_who_is_away_has_no_size(anny, tmp_path):
    tracks = [random_track(anny, [0, 1, 9]), random_track(anny, [2, 3, 6], identity=2)]
    reader = Reader(save(tracks, tmp_path / "away.glb", body=anny))
    person = reader.node("person_2")
    seen = [np.linalg.det(reader.nodes(frame / 25 + 0.02)[person]) for frame in range(9)]
    np.testing.assert_allclose(seen, [0, 0, 1, 1, 0, 0, 1, 0, 0], atol=1e-9)


@pytest.mark.slow
def test_people_of_a_picture_get_bones_too(anny, tmp_path):
    (humans,) = random_track(anny, [0]).humans(anny)
    reader = Reader(humans.save(tmp_path / "one.glb", rigged=True, body=anny))
    assert distance_mm(reader.vertices("person_1_body"), humans.vertices[0]) < 0.3
    assert not reader.gltf.animations
    assert reader.gltf.nodes[reader.node("person_1")].extras["track_id"] == 1
    assert reader.gltf.nodes[reader.node("camera")].camera == 0


@pytest.mark.slow
def test_face_and_bones_have_their_names(anny, tmp_path):
    path = save(random_track(anny, [0, 1]), tmp_path / "named.glb", body=anny, bones="mixamo")
    reader = Reader(path)
    assert reader.gltf.meshes[0].extras["targetNames"] == list(anny.topology.expression_names)
    names = [reader.gltf.nodes[joint].name for joint in reader.gltf.skins[0].joints]
    assert {"mixamorig:Hips", "mixamorig:LeftForeArm", "mixamorig:RightHandPinky3", "spine05"} <= set(names)
    assert path.stat().st_size < 2.5e6  # 52 morph targets of zeros alone would have 8.6 MB


@pytest.mark.slow
@pytest.mark.parametrize("name", ["anny-163", "smplx"])
def test_other_bodies_are_rigged_likewise(name, tmp_path, request):
    if name == "smplx":
        pytest.importorskip("smplx")
        from multihmr.bodies.smplx import SMPLX

        body: Body = SMPLX(request.getfixturevalue("fake_smplx_file"))
    else:
        body = Anny163()
    track = random_track(body, [0, 1])
    reader = Reader(save(track, tmp_path / "other.glb", body=body))
    for humans, seconds in zip(track.humans(body), track.times, strict=True):
        assert distance_mm(reader.vertices("person_1_body", float(seconds)), humans.vertices[0]) < 0.6


def test_bvh_puts_the_joints_where_they_are(anny, tmp_path):
    track = random_track(anny, [0, 1, 2], angle=0.8)
    path = save(track, tmp_path / "one.bvh", body=anny)
    motion = read_bvh(path)
    assert motion.names[:2] == ("root", "pelvis.L")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert "Frame Time: 0.04" in lines
    roots = np.array([line.split()[:3] for line in lines[-3:]], float)
    where = [anny.topology.joint_names.index(name) for name in motion.names]
    for humans, root, turns in zip(track.humans(anny), roots, motion.rotations, strict=True):
        joints = follow(motion.parents, motion.offsets, root, turns)
        assert distance_mm(joints, humans.joints[0, where]) < 0.3


def follow(
    parents: tuple[int, ...], offsets: np.ndarray, root: np.ndarray, rotations: np.ndarray
) -> np.ndarray:
    joints, turns = [root], [rotations[0]]
    for bone, parent in enumerate(parents[1:], start=1):
        joints.append(joints[parent] + turns[parent] @ offsets[bone])
        turns.append(turns[parent] @ rotations[bone])
    return np.array(joints)


def test_bvh_stands_still_while_away_and_turns_without_jumps(anny, tmp_path):
    track = random_track(anny, [0, 1, 4])
    spin = torch.tensor([[0.0, 3.0, 0], [0, 3.3, 0], [0, 3.6, 0]])  # through half a turn
    pose = track.pose.copy()
    pose[:, 1] = roma.rotvec_to_rotmat(spin)
    path = save(dataclasses.replace(track, pose=pose), tmp_path / "away.bvh", body=anny)
    rows = np.array([line.split() for line in path.read_text(encoding="utf-8").splitlines()[-5:]], float)
    np.testing.assert_array_equal(rows[1], rows[3])
    assert np.abs(np.diff(rows[:, 6:9], axis=0)).max() < 20  # degrees; 17 and the tilt of its axes


def test_angles_are_those_of_the_rotation_also_at_the_pole():
    angles = np.array([[0.3, -0.5, 2.0], [1.0, np.pi / 2, 0.0], [-2.0, -np.pi / 2, 0.0]])
    z, x, y = (
        roma.rotvec_to_rotmat(torch.tensor(angles[:, [i]] * np.eye(3)[a])) for i, a in enumerate((2, 0, 1))
    )
    np.testing.assert_allclose(rotmat_to_zxy((z @ x @ y).numpy()), angles, atol=1e-7)


def test_bone_names_name_bones_that_there_are(anny):
    for body in (anny, Anny163()):
        for standard in ("mixamo", "smplx", "vrm"):
            names = bone_names(body.name, standard)
            assert set(names) - {"jaw"} <= set(body.topology.joint_names)
            assert len(set(names.values())) == len(names)
    assert bone_names("smplx", "vrm")["right_thumb1"] == "rightThumbMetacarpal"


@pytest.mark.slow
def test_collected_people_are_saved_as_they_were(anny, tmp_path):
    stream = [with_meshes(without_meshes(humans), anny) for humans in random_track(anny, [0, 1]).humans(anny)]
    reader = Reader(save(collect(stream, fps=25), tmp_path / "stream.glb", body=anny))
    assert distance_mm(reader.vertices("person_1_body", 1 / 25), stream[1].vertices[0]) < 0.3


def test_what_cannot_be_rigged_is_said(anny, tmp_path):
    track, path = random_track(anny, [0, 1]), tmp_path / "x.glb"
    (humans,) = track[0].humans(anny)
    refused = [
        (ValueError, "track 1 has no frames", track[[]], "x.glb", {}),
        (ValueError, "people are of body 'anny', got body 'toy'", track, "x.glb", {"body": ToyBody()}),
        (ValueError, "one person, got 2", [track, track], "x.bvh", {}),
        (ValueError, r"saved as \.glb, \.bvh, \.fbx, got 'x\.ply'", track, "x.ply", {}),
        (ValueError, r"saved as \.glb, \.bvh, \.fbx, got 'x\.obj'", humans, "x.obj", {"rigged": True}),
        (ValueError, "no bone names of 'maya'.*mixamo, smplx, vrm", track, "x.glb", {"bones": "maya"}),
        (ValueError, "two bones would have the name 'head'", track, "x.glb", {"bones": {"root": "head"}}),
        (TypeError, r"a list with Humans; multihmr\.video\.tracks\.collect", [humans], "x.glb", {}),
    ]
    for error, sentence, people, name, wishes in refused:
        with pytest.raises(error, match=sentence):
            save(people, tmp_path / name, **{"body": anny, **wishes})
    assert not list(tmp_path.iterdir())
    assert len(Reader(save([], path)).gltf.nodes) == 0


def test_numbers_that_make_no_motion_are_named(anny, tmp_path):
    track = random_track(anny, [0, 1])
    changes = {
        "pose of track 1 contains numbers that are not finite": {"pose": track.pose * np.nan},
        "times of track 1 must rise": {"times": np.zeros(2)},
    }
    for sentence, change in changes.items():
        with pytest.raises(ValueError, match=sentence):
            save(dataclasses.replace(track, **change), tmp_path / "x.glb", body=anny)


def test_a_body_without_bones_says_so(tmp_path):
    with pytest.raises(ValueError, match="body 'toy' has no rig"):
        save(random_track(ToyBody(), [0]), tmp_path / "toy.glb", body=ToyBody())


@pytest.mark.nightly
def test_khronos_finds_nothing_to_correct(anny, tmp_path):
    """Needs node and, at $GLTF_VALIDATOR, the folder of `npm install gltf-validator`."""
    modules = Path(os.environ.get("GLTF_VALIDATOR", ".")) / "node_modules"
    if not (modules / "gltf-validator").is_dir():
        pytest.skip("no gltf-validator: npm install gltf-validator, and set GLTF_VALIDATOR to that folder")
    track = random_track(anny, [0, 1, 5])
    files = [save([track, random_track(anny, [2], identity=2)], tmp_path / "video.glb", body=anny)]
    (humans,) = track[0].humans(anny)
    files += [
        humans.save(tmp_path / "rigged.glb", rigged=True, body=anny),
        humans.save(tmp_path / "as_it_is.glb"),
    ]
    script = (
        "const v = require('gltf-validator'), fs = require('fs');"
        "Promise.all(process.argv.slice(1).map(f => v.validateBytes(new Uint8Array(fs.readFileSync(f)))))"
        ".then(all => console.log(JSON.stringify(all.map(r => r.issues))))"
    )
    run = subprocess.run(
        ["node", "-e", script, *map(str, files)],
        env={**os.environ, "NODE_PATH": str(modules)}, capture_output=True, text=True, check=True,
        encoding="utf-8",
    )  # fmt: skip
    assert [(i["numErrors"], i["numWarnings"], i["messages"]) for i in json.loads(run.stdout)] == [
        (0, 0, [])
    ] * 3


@pytest.fixture(scope="module")
def blender() -> str:
    """A Python in which Blender is a module: that of $BLENDER_PYTHON, or this one."""
    python = os.environ.get("BLENDER_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import bpy"], capture_output=True, check=False).returncode:
        pytest.skip("no Blender: pip install bpy, and set BLENDER_PYTHON to the python that has it")
    return python


@pytest.mark.nightly
def test_blender_shows_the_people_where_they_were(anny, tmp_path, blender):
    track = random_track(anny, [0, 1, 3])
    save([track, random_track(anny, [1], identity=2)], tmp_path / "two.glb", body=anny)
    save(track, tmp_path / "one.bvh", body=anny)
    script = Path(__file__).parents[1].joinpath("blender_reader.py")
    subprocess.run([blender, str(script), str(tmp_path)], check=True)
    seen = np.load(tmp_path / "seen.npz")
    names = [anny.topology.joint_names.index(name) for name in seen["bones"]]
    for humans, frame in zip(track.humans(anny), track.frames, strict=True):
        there = humans.in_frame("blender")
        assert 1000 * np.linalg.norm(seen["vertices"][frame] - there.vertices[0], axis=-1).max() < 0.5
        assert 1000 * np.linalg.norm(seen["joints"][frame] - there.joints[0, names], axis=-1).max() < 0.5
    np.testing.assert_allclose(seen["size_of_other"][[0, 1, 2]] > 0.1, [False, True, False])
    assert seen["pixels"].std() > 10  # somebody is in the picture that Blender renders


def rest_joints(path: Path) -> dict[str, np.ndarray]:
    """Where the joints of a .bvh are when nothing is turned."""
    motion = read_bvh(path)
    count = len(motion.names)
    places = follow(motion.parents, motion.offsets, np.zeros(3), np.tile(np.eye(3), (count, 1, 1)))
    return dict(zip(motion.names, places, strict=True))


@pytest.mark.parametrize(("rest", "down"), [("t-pose", 0.0), ("a-pose", 45.0)])
def test_rest_poses_turn_arms_and_legs(anny, tmp_path, rest, down):
    places = rest_joints(save(random_track(anny, [0]), tmp_path / "one.bvh", body=anny, rest=rest))
    for side, sign in (("L", 1), ("R", -1)):
        aim = [sign * np.cos(np.radians(down)), -np.sin(np.radians(down)), 0]
        chain = [f"upperarm01.{side}", f"lowerarm01.{side}", f"wrist.{side}", f"finger3-1.{side}"]
        for start, end in itertools.pairwise(chain):
            along = places[end] - places[start]
            np.testing.assert_allclose(along / np.linalg.norm(along), aim, atol=1e-4)
        leg = places[f"foot.{side}"] - places[f"upperleg01.{side}"]
        np.testing.assert_allclose(leg / np.linalg.norm(leg), [0, -1, 0], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("rest", [None, "t-pose", "a-pose"])
def test_bvh_joints_are_exact_in_any_rest_pose(anny, tmp_path, rest):
    track = random_track(anny, [0, 1, 2], angle=0.8)
    path = save(track, tmp_path / "one.bvh", body=anny, rest=rest)
    motion = read_bvh(path)
    roots = np.array([line.split()[:3] for line in path.read_text(encoding="utf-8").splitlines()[-3:]], float)
    where = [anny.topology.joint_names.index(name) for name in motion.names]
    for humans, root, turns in zip(track.humans(anny), roots, motion.rotations, strict=True):
        joints = follow(motion.parents, motion.offsets, root, turns)
        assert distance_mm(joints, humans.joints[0, where]) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("rest", ["t-pose", "a-pose"])
@pytest.mark.parametrize("name", ["anny", "anny-163", "smplx"])
def test_glb_joints_are_exact_in_any_rest_pose(name, rest, tmp_path, request):
    if name == "smplx":
        pytest.importorskip("smplx")
        from multihmr.bodies.smplx import SMPLX

        body: Body = SMPLX(request.getfixturevalue("fake_smplx_file"), shape_count=11)
    else:
        body = Anny() if name == "anny" else Anny163()
    track = random_track(body, [0, 1], angle=0.3)
    if name == "smplx":
        track = dataclasses.replace(track, expression=np.zeros_like(track.expression))
    clip = tracks_to_clips([track], body, rest)[0]
    for humans, joints in zip(track.humans(body), clip.joints(), strict=True):
        assert distance_mm(joints, humans.joints[0, : joints.shape[0]]) < 0.01
    plain = tracks_to_clips([track], body)[0]
    assert np.abs(clip.rig.vertices - plain.rig.vertices).max() > 0.02  # it is another rest shape


@pytest.mark.slow
def test_a_mesh_in_another_rest_pose_moves_as_the_body(anny, tmp_path):
    """Exact where one bone moves a vertex; linear blend skinning of a bent rest differs at the shoulders."""
    poses = torch.zeros(1, anny.rotation_count, 3)
    track = random_track(anny, [0], angle=0.15)
    assert poses.shape[1] == track.pose.shape[1]
    reader = Reader(save(track, tmp_path / "one.glb", body=anny, rest="t-pose"))
    (humans,) = track.humans(anny)
    off_mm = 1000 * np.linalg.norm(reader.vertices("person_1_body") - humans.vertices[0] * TO_GLTF, axis=-1)
    assert np.median(off_mm) < 0.3
    assert off_mm.max() < 30


def test_unknown_rest_poses_are_refused(anny, tmp_path):
    with pytest.raises(ValueError, match="rest must be one of t-pose, a-pose or None, got 'i-pose'"):
        save(random_track(anny, [0]), tmp_path / "one.bvh", body=anny, rest="i-pose")


@pytest.mark.slow
def test_fbx_shows_the_people_where_they_were(anny, tmp_path, blender, monkeypatch):
    """Through Blender and back into Blender."""
    monkeypatch.setattr(sys, "executable", blender)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    track = random_track(anny, [0, 1, 2])
    path = save(track, tmp_path / "one.fbx", body=anny)
    script = (
        "import bpy, sys, numpy as np\n"
        "bpy.ops.wm.read_factory_settings(use_empty=True)\n"
        "bpy.ops.import_scene.fbx(filepath=sys.argv[1])\n"
        "(mesh,) = [o for o in bpy.data.objects if o.type == 'MESH']\n"
        "first = min(a.frame_range[0] for a in bpy.data.actions)\n"
        "last = max(a.frame_range[1] for a in bpy.data.actions)\n"
        "bpy.context.scene.frame_set(int(first))\n"
        "shown = mesh.evaluated_get(bpy.context.evaluated_depsgraph_get())\n"
        "points = np.array([v.co for v in shown.to_mesh().vertices])\n"
        "place = np.array(shown.matrix_world)\n"
        "np.save(sys.argv[2], points @ place[:3, :3].T + place[:3, 3])\n"
        "print(sum(o.type == 'ARMATURE' for o in bpy.data.objects), round(last - first))\n"
    )
    out = tmp_path / "seen.npy"
    done = subprocess.run(
        [blender, "-c", script, str(path), str(out)],
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.stdout.strip().splitlines()[-1] == "1 2"  # one skeleton, three frames
    there = next(track.humans(anny)).in_frame("blender").vertices[0]
    assert 1000 * np.linalg.norm(np.load(out) - there, axis=-1).max() < 2


def test_fbx_without_blender_says_what_to_do(anny, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'multihmr\[fbx\]'.*open it in Blender"):
        save(random_track(anny, [0]), tmp_path / "one.fbx", body=anny)
