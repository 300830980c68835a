from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation
from toys import ToyBody, random_humans

from multihmr.bodies.keypoint_sets import keypoint_names
from multihmr.bodies.topology import KeypointSet
from multihmr.data.datasets.coco import Coco
from multihmr.humans import Humans
from multihmr.io.records import humans_to_coco, mask_to_rle
from multihmr.io.save import FORMATS, load, save, save_coco
from multihmr.io.track_files import add_metadata
from multihmr.video.tracks import collect, load_track, save_track

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
        refined=np.array([[True, False, True], [False, False, False]]),
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


@pytest.mark.slow
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
    assert set(scene.graph.nodes_geometry) == {"person_1", "person_2", "person_3"}
    for i in range(3):
        mesh = scene.geometry[f"person_{i + 1}"]
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


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".usda", ".usdc", ".usd", ".usdz"])
def test_usd_holds_the_people(make_humans, tmp_path, suffix):
    pxr = pytest.importorskip("pxr.Usd", reason="usd-core is an extra")
    from pxr import Gf, UsdGeom

    humans = make_humans(*PLACES)
    path = save(humans, tmp_path / f"people{suffix}")
    stage = pxr.Stage.Open(str(path))
    assert (UsdGeom.GetStageUpAxis(stage), UsdGeom.GetStageMetersPerUnit(stage)) == ("Y", 1.0)
    points = UsdGeom.Mesh.Get(stage, "/people/person_2").GetPointsAttr().Get()
    np.testing.assert_allclose(np.array(points) * TO_GLTF, humans.vertices[1], atol=1e-6)
    camera = UsdGeom.Camera.Get(stage, "/people/camera").GetCamera()
    angle = camera.GetFieldOfView(Gf.Camera.FOVVertical)
    assert angle == pytest.approx(np.degrees(2 * np.arctan(0.6)), abs=1e-4)


def test_usd_passes_its_own_validators(make_humans, tmp_path):
    validation = pytest.importorskip("pxr.UsdValidation", reason="usd-core is an extra, and has it lately")
    from pxr import Usd

    stage = Usd.Stage.Open(str(save(make_humans(*PLACES), tmp_path / "people.usdz")))
    validators = validation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 10
    assert not validation.ValidationContext(validators).Validate(stage)


def test_coco_comes_back_through_the_reader_of_datasets(make_humans, tmp_path):
    humans = with_coco_names(make_humans((0, 0, 2), (0.5, 0, 3), (-0.8, 0, 1)))
    for folder in ("annotations", "images"):
        (tmp_path / folder).mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((120, 160, 3), np.uint8)).save(tmp_path / "images" / name)
    path = tmp_path / "annotations/person_keypoints_default.json"
    save_coco({"a.png": humans, "b.png": humans[1]}, path)
    first, second = Coco(tmp_path, "default")
    expected = humans.keypoints("coco17").xy
    outside = ((expected < 0) | (expected >= [160, 120])).any(-1)
    assert 0 < outside.sum() < outside.size
    np.testing.assert_array_equal(np.isnan(first.keypoints_2d[..., 0]), outside)
    np.testing.assert_allclose(first.keypoints_2d[~outside], expected[~outside], atol=0.006)
    assert len(second) == 1


def with_coco_names(humans: Humans) -> Humans:
    """The same balls with 17 of their vertices for keypoints."""
    corners = np.linspace(0, humans.vertices.shape[1] - 1, 17).astype(int)[:, None]
    points = KeypointSet(keypoint_names("coco17"), corners, np.ones((17, 1)))
    topology = dataclasses.replace(humans.topology, keypoint_sets={"coco17": points})
    return dataclasses.replace(humans, topology=topology)


def test_coco_of_one_picture_is_named_after_its_file(make_humans, tmp_path):
    humans = make_humans(*PLACES, track_ids=[3, 1, 8])
    content = json.loads(humans.save(tmp_path / "street.jpg.coco.json").read_text(encoding="utf-8"))
    (picture,) = content["images"]
    camera = picture.pop("camera")
    size = {"height": 120, "width": 160}
    assert picture == {"id": 1, "file_name": "street.jpg", **size, "upright": True}
    assert camera["K"] == humans.K.tolist()
    assert camera["source"] == "given"
    assert [person["track_id"] for person in content["annotations"]] == [3, 1, 8]
    assert content["categories"][0]["skeleton"] == [[1, 2]]
    x0, y0, x1, y1 = humans.boxes[0].tolist()
    np.testing.assert_allclose(content["annotations"][0]["bbox"], [x0, y0, x1 - x0, y1 - y0], atol=0.01)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("photos/a b.jpg", "a b.jpg"),
        ("https://host/x/a%20b.png?size=2", "a b.png"),
        ("-", "street"),
        ("data:image/png;base64,AAAA", "street"),
    ],
)
def test_coco_with_metadata_names_the_file_that_was_read(make_humans, tmp_path, source, name):
    path = make_humans(*PLACES).save(tmp_path / "street.coco.json")
    add_metadata(path, {"source": source})
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [image["file_name"] for image in content["images"]] == [name]
    assert content["info"]["multihmr"] == {"source": source}


@pytest.mark.parametrize("content", [b"", b"frame,x\n1,2\n", b"{}"])
def test_files_that_are_no_archive_are_not_called_pickles(tmp_path, content):
    path = tmp_path / "people.npz"
    path.write_bytes(content)
    reason = "it does not begin as one does" if content else "it is empty"
    for read in (load, load_track):
        with pytest.raises(ValueError, match=f"people.npz is damaged or no .npz file: {reason}$"):
            read(path)


def test_archives_of_others_are_not_to_be_saved_anew(tmp_path):
    np.savez(tmp_path / "other.npz", pose=np.zeros(3))
    with pytest.raises(
        ValueError, match=r"names none: it was not written by humans\.save or multihmr predict"
    ):
        load(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="names none: it was not written by save_track or multihmr video"):
        load_track(tmp_path / "other.npz")


@pytest.mark.filterwarnings("ignore:OpenCV")  # supervision misses it, and does without
def test_supervision_gets_boxes_and_points(make_humans):
    pytest.importorskip("supervision", reason="supervision is an extra")
    humans = make_humans(*PLACES, track_ids=[3, 1, 8])
    detections, points = humans.to_supervision()
    np.testing.assert_array_equal(detections.xyxy, humans.boxes)
    np.testing.assert_array_equal(detections[detections["distance"] > 3].tracker_id, [1, 8])
    np.testing.assert_allclose(points.xy, humans.keypoints("coco17").xy)
    assert points[1].visible.tolist() == [[True, True]]
    assert len(make_humans().to_supervision()[0]) == 0


@pytest.mark.parametrize(
    ("package", "use", "extra"),
    [
        ("pxr", lambda humans, folder: humans.save(folder / "people.usdz"), "usd"),
        ("supervision", lambda humans, folder: humans.to_supervision(), "supervision"),
        ("pandas", lambda humans, folder: humans.to_pandas(), "tables"),
    ],
)
def test_a_missing_package_is_named(make_humans, tmp_path, monkeypatch, package, use, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'multihmr\[{extra}\]'"):
        use(make_humans(*PLACES), tmp_path)


def test_json_names_every_number(make_humans, tmp_path):
    humans = make_humans(*PLACES)
    content = json.loads(save(humans, tmp_path / "people.json").read_text(encoding="utf-8"))
    person = content["people"][1]
    np.testing.assert_allclose(person["translation"], humans.translation[1], atol=1e-4)
    np.testing.assert_allclose(person["joints"]["head"]["xy"], humans.joints_2d[1, 1], atol=0.01)
    np.testing.assert_allclose(
        person["coco17"]["middle"]["xyz"], humans.keypoints("poles").xyz[1, 1], atol=1e-4
    )
    assert content["camera"] == {"K": [[100, 0, 80], [0, 100, 60], [0, 0, 1]], "source": "given"}
    assert content["image"] == {"width": 160, "height": 120}
    assert person["refined"] is None


def test_json_and_csv_say_which_hands_and_faces_were_found(make_humans, tmp_path):
    humans = make_humans(*PLACES)
    refined = np.zeros((len(humans), 3), bool)
    refined[1] = [True, False, True]
    humans = dataclasses.replace(humans, refined=refined)
    content = json.loads(save(humans, tmp_path / "people.json").read_text(encoding="utf-8"))
    assert content["people"][1]["refined"] == {"left_hand": True, "right_hand": False, "face": True}
    header, _, second = save(humans, tmp_path / "people.csv").read_text(encoding="utf-8").splitlines()[:3]
    row = dict(zip(header.split(","), second.split(","), strict=True))
    sides = ("left_hand", "right_hand", "face")
    assert [row[f"refined_{name}"].lower() for name in sides] == ["true", "false", "true"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_nobody_makes_a_file_too(make_humans, tmp_path, suffix):
    path = make_humans().save(tmp_path / f"nobody{suffix}")
    assert path.stat().st_size > 0
    if suffix == ".glb":
        assert len(trimesh.load(path).geometry) == 0


def test_unknown_suffix_lists_the_known_ones(make_humans, tmp_path):
    with pytest.raises(ValueError, match=r"must be one of \.bvh, \.coco\.json, \.csv, \.fbx, \.glb, \.json"):
        save(make_humans(), tmp_path / "people.max")


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


OFF_CENTRE = np.array([[100, 0, 60], [0, 100, 75], [0, 0, 1]], np.float32)  # by 20 and 15 of 160 x 120 pixels


def _seen_by_gltf(path, points: np.ndarray) -> np.ndarray:
    """(..., 2) pixels of points (..., 3) of the scene through the file's camera, as viewers do it."""
    content = path.read_bytes()
    tree = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    lens = tree["cameras"][0]["perspective"]
    x, y, z, w = tree["nodes"][0].get("rotation", [0, 0, 0, 1])
    turn = Rotation.from_quat([x, y, z, w]).as_matrix()  # from the camera to the scene
    local = points @ turn
    scale = 1 / np.tan(lens["yfov"] / 2)
    ndc = local[..., :2] / -local[..., 2:] * [scale / lens["aspectRatio"], scale]
    return np.stack([80 * (1 + ndc[..., 0]), 60 * (1 - ndc[..., 1])], -1)


def test_glb_camera_has_the_principal_point(make_humans, tmp_path):
    humans = make_humans((-0.4, 0, 2), (0.5, 0.3, 3), K=OFF_CENTRE)
    path = save(humans, tmp_path / "people.glb")
    content = path.read_bytes()
    node = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])["nodes"][0]
    assert node["extras"]["K"] == OFF_CENTRE.tolist()
    assert node["extras"]["image_size"] == [120, 160]
    assert node["extras"]["blender_shift"] == pytest.approx([20 / 160, 15 / 160])
    seen = _seen_by_gltf(path, humans.joints * TO_GLTF)
    middle = _seen_by_gltf(path, np.array([0.2, -0.15, 1]) * TO_GLTF)  # the ray through the middle: exact
    np.testing.assert_allclose(middle, [80, 60], atol=1e-3)
    assert np.linalg.norm(seen - humans.joints_2d, axis=-1).max() < 8  # 25 without the turn
    straight = save(make_humans((-0.4, 0, 2)), tmp_path / "centred.glb")
    assert "rotation" not in str(straight.read_bytes()[:2000])
    np.testing.assert_allclose(
        _seen_by_gltf(straight, make_humans((-0.4, 0, 2)).joints * TO_GLTF),
        make_humans((-0.4, 0, 2)).joints_2d,
        atol=1e-3,
    )


def test_usd_camera_has_the_principal_point(make_humans, tmp_path):
    pxr = pytest.importorskip("pxr.Usd", reason="usd-core is an extra")
    from pxr import Gf, UsdGeom

    humans = make_humans((-0.4, 0, 2), (0.5, 0.3, 3), K=OFF_CENTRE)
    stage = pxr.Stage.Open(str(save(humans, tmp_path / "people.usdc")))
    frustum = UsdGeom.Camera.Get(stage, "/people/camera").GetCamera().frustum
    matrix = frustum.ComputeViewMatrix() * frustum.ComputeProjectionMatrix()
    for joint, pixel in zip(humans.joints.reshape(-1, 3), humans.joints_2d.reshape(-1, 2), strict=True):
        ndc = matrix.Transform(Gf.Vec3d(*(joint * TO_GLTF).tolist()))
        np.testing.assert_allclose([80 * (1 + ndc[0]), 60 * (1 - ndc[1])], pixel, atol=0.01)


@pytest.mark.parametrize("suffix", [".stl", ".off"])
def test_meshes_without_colours(make_humans, tmp_path, suffix):
    humans = make_humans(*PLACES)
    mesh = trimesh.load(save(humans, tmp_path / f"people{suffix}"), force="mesh")
    assert len(mesh.faces) == 3 * len(humans.topology.faces)
    np.testing.assert_allclose(np.sort(mesh.bounds * TO_GLTF, 0)[0], humans.vertices.min((0, 1)), atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_masks_are_read_by_pycocotools(make_humans, tmp_path):
    mask_tools = pytest.importorskip("pycocotools.mask")
    humans = make_humans((-0.6, 0, 2), (0.1, 0, 3))
    rng = np.random.default_rng(0)
    for mask in (
        *humans.masks(),
        rng.random((7, 5)) > 0.5,
        np.zeros((3, 4), bool),
        np.ones((3, 4), bool),
        rng.random((90, 70)) > 0.98,
    ):
        rle = mask_to_rle(mask)
        np.testing.assert_array_equal(mask_tools.decode(rle).astype(bool), mask)
        theirs = mask_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert rle == {"size": theirs["size"], "counts": theirs["counts"].decode()}


def test_coco_has_masks_and_their_areas(make_humans):
    body = make_humans().topology
    pole = KeypointSet(keypoint_names("coco17"), np.zeros((17, 1), int), np.ones((17, 1)))
    topology = dataclasses.replace(body, keypoint_sets={"coco17": pole})
    humans = make_humans((-0.6, 0, 2), (0.1, 0, 3), topology=topology)
    content = json.loads(humans_to_coco({"a.jpg": humans}))
    for annotation, mask in zip(content["annotations"], humans.masks(), strict=True):
        assert annotation["segmentation"] == mask_to_rle(mask)
        assert annotation["area"] == mask.sum()


def test_supervision_gets_masks(make_humans):
    pytest.importorskip("supervision", reason="supervision is an extra")
    humans = make_humans(*PLACES)
    detections, _ = humans.to_supervision("poles")
    np.testing.assert_array_equal(detections.mask, humans.masks())
    assert humans.to_supervision("poles", masks=False)[0].mask is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("people.glb", "cannot be read back: only .npz files hold every parameter"),
        ("people.json", "cannot be read back: only .npz files hold every parameter"),
        ("people.jpg", r"is an image: load_model\(\)\.predict\(path\)"),
    ],
)
def test_what_load_cannot_read_says_what_can(make_humans, tmp_path, name, sentence):
    path = tmp_path / name
    path.write_bytes(b"something")
    with pytest.raises(ValueError, match=sentence):
        load(path, ToyBody())


def test_load_of_a_track_names_what_reads_it(tmp_path):
    people = dataclasses.replace(random_humans(ToyBody(), 1), track_ids=np.array([1]))
    path = save_track(collect([people])[0], tmp_path / "track.npz")
    with pytest.raises(ValueError, match=r"person of a video: read it with multihmr\.video\.load_track"):
        load(path, ToyBody())


def test_what_save_cannot_write_names_what_does(make_humans, tmp_path):
    humans = make_humans((0, 0, 2))
    for name, sentence in {
        "people.rrd": r"; humans\.to_rerun\(\)\.save\(path\) writes recordings$",
        "people.PNG": r"; Image\.fromarray\(humans\.draw\(image\)\)\.save\(path\) writes an overlay$",
        "people.xyz": r"\.usdz$",
    }.items():
        with pytest.raises(
            ValueError, match=rf"cannot save '{name}': its suffix must be one of .*{sentence}"
        ):
            humans.save(tmp_path / name)
    with pytest.raises(IsADirectoryError, match="is a folder; give a file in it"):
        load(tmp_path)


def test_a_tilde_is_the_home_folder(make_humans, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert make_humans((0, 0, 2)).save("~/people.json") == tmp_path / "people.json"
    assert (tmp_path / "people.json").is_file()
