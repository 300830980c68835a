"""Miniatures of data sets of SMPL-X, file for file as they are published, with pictures of a made-up body.

A `Crowd` is the truth in the camera frame, in the words of the smplx package (55 joints in its own order,
flat hands, `transl`); each `write_` function turns crowds into the files of one data set and gives back what
its samples should speak of.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation

from multihmr.data.sample import Sample
from multihmr.humans import project
from multihmr.visualization.rasterizer import rasterize

ORDER53 = [*range(22), *range(25, 40), *range(40, 55), 22]  # of the smplx package's 55: no eyes, the jaw last


@dataclass(frozen=True)
class Crowd:
    """pose (N, 55, 3) rotation vectors, betas (N, 11), expression (N, 10), transl (N, 3)."""

    pose: np.ndarray
    betas: np.ndarray
    expression: np.ndarray
    transl: np.ndarray

    @classmethod
    def random(cls, seed: int, count: int = 2, distance: float = 4.0) -> Crowd:
        """Upright, side by side before the camera, turned by up to a radian."""
        rng = np.random.default_rng(seed)
        pose = 0.2 * rng.normal(size=(count, 55, 3))
        pose[:, 23:25] = 0
        turns = Rotation.from_euler("x", np.pi) * Rotation.from_euler("y", rng.uniform(-1, 1, (count, 1)))
        pose[:, 0] = turns.as_rotvec()
        transl = np.stack([np.linspace(-1, 1, count + 2)[1:-1], rng.uniform(-0.1, 0.1, count)], 1)
        transl = np.concatenate([transl, distance + rng.uniform(0, 1, (count, 1))], 1)
        return cls(pose, rng.normal(size=(count, 11)), np.zeros((count, 10)), transl)

    def __len__(self) -> int:
        return len(self.pose)


def posed(body: Any, crowd: Crowd) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, V, 3) and joints (N, J, 3) in the camera frame, as the smplx package would give them."""
    rotvecs = torch.from_numpy(crowd.pose[:, ORDER53].reshape(-1, 3)).float()
    turns = torch.from_numpy(Rotation.from_rotvec(rotvecs.numpy()).as_matrix()).float().unflatten(0, (-1, 53))
    betas = torch.from_numpy(crowd.betas).float()
    output = body(turns, betas, torch.from_numpy(crowd.expression).float())
    offset = (rest_pelvis(body, crowd.betas, crowd.expression) + crowd.transl)[:, None]
    return output.vertices_PV3.numpy() + offset, output.joints_PJ3.numpy() + offset


def faces_of(body: Any) -> np.ndarray:
    """Those of the made-up body that stay around one joint; where its numbering wraps, they cross it."""
    faces = body.topology.faces
    return faces[np.ptp(faces, axis=1) <= 110]


def rest_pelvis(body: Any, betas: np.ndarray, expression: np.ndarray) -> np.ndarray:
    rest = body.topology.rest_pelvis.astype(float)
    return rest[0] + np.concatenate([betas, expression], 1) @ rest[1:]


def rebuilt(sample: Sample, body: Any) -> np.ndarray:
    """(N, V, 3) the vertices that a sample of body "smplx" speaks of; 10 betas are 11 whose last is 0."""
    assert sample.body == "smplx"
    betas = np.zeros((len(sample), 11), np.float32)
    betas[:, : sample.shape.shape[1]] = sample.shape
    tensors = [torch.from_numpy(a).float() for a in (sample.pose, betas, sample.expression)]
    pelvis = sample.translation + (
        rest_pelvis(body, betas, sample.expression) if sample.anchor == "transl" else 0
    )
    return body(*tensors).vertices_PV3.numpy() + pelvis[:, None]


def intrinsics(focal: float, size: tuple[int, int]) -> np.ndarray:
    return np.array([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]])


def painted(vertices: np.ndarray, faces: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) picture of the people, nearest in front, each of his own colour, lit from the camera."""
    count, many = vertices.shape[:2]
    points = vertices.reshape(-1, 3)
    all_faces = (faces + many * np.arange(count)[:, None, None]).reshape(-1, 3)
    if not count:
        return sky(size).astype(np.uint8)
    face, _ = rasterize(project(points, K).astype(np.float32), 1 / points[:, 2], all_faces, size)
    a, b, c = (points[all_faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    light = 0.35 + 0.65 * np.abs(normal[:, 2]) / np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    colors = np.array([(235, 120, 90), (90, 170, 235), (150, 210, 100), (230, 200, 90)])[np.arange(count) % 4]
    paint = np.repeat(colors, len(faces), 0) * light[:, None]
    return np.where(face[..., None] >= 0, paint[face], sky(size)).astype(np.uint8)


def sky(size: tuple[int, int]) -> np.ndarray:
    return np.linspace((70, 75, 85), (40, 42, 48), size[0])[:, None].repeat(size[1], 1)


def silhouette(vertices: np.ndarray, faces: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool, where one person (V, 3) alone would be seen, and some pixels around."""
    xy = project(vertices, K).astype(np.float32)
    return widened(rasterize(xy, 1 / vertices[:, 2], faces, size)[0] >= 0)


def widened(mask: np.ndarray) -> np.ndarray:
    """By one pixel in 320: some vertices of the made-up body have no triangle."""
    return binary_dilation(mask, iterations=max(1, mask.shape[1] // 320))


def share_inside(points: np.ndarray, K: np.ndarray, mask: np.ndarray) -> float:
    """How many of the points (M, 3) that K puts into the picture fall on the mask."""
    xy = np.floor(project(points, K)).astype(int)
    seen = ((xy >= 0) & (xy < mask.shape[::-1])).all(1)
    return float(mask[xy[seen, 1], xy[seen, 0]].mean())


def assert_drawn_right(sample: Sample, vertices: np.ndarray, truth: np.ndarray, faces: np.ndarray) -> None:
    """The vertices of a sample are the true ones, and K puts them where their picture shows the person."""
    np.testing.assert_allclose(vertices, truth, atol=2e-4)
    size = sample.image.shape[:2]
    for person, true_person in zip(vertices, truth, strict=True):
        mask = silhouette(true_person, faces, sample.K, size)
        assert share_inside(person, sample.K, mask) > 0.99
        visible = np.abs(sample.image - sky(size)).max(2) > 25
        assert share_inside(person, sample.K, widened(visible)) > 0.97


def save(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, quality=95, compress_level=1)


# --- BEDLAM ----------------------------------------------------------------------------------------------

SCENE, CLOSEUP = "20221010_3_1000_batch01hand_6fps", "20221011_1_250_batch01hand_closeup_suburb_a_6fps"


def write_bedlam(root: Path, body: Any, kind: str = "png") -> list[np.ndarray]:
    """Two pictures with two people each, and a close-up that is stored turned; their vertices."""
    crowds = {SCENE: [Crowd.random(1), Crowd.random(2)], CLOSEUP: [Crowd.random(3, 1, 2.6)]}
    truth = []
    for scene, pictures in crowds.items():
        is_closeup = scene == CLOSEUP
        size = (320, 180) if is_closeup else (180, 320)
        K = intrinsics(300, size)
        rows: list[dict[str, Any]] = []
        for number, crowd in enumerate(pictures):
            name = f"seq_000000/seq_000000_{5 * number:04d}.png"
            vertices, _ = posed(body, crowd)
            truth.append(vertices)
            picture = painted(vertices, faces_of(body), K, size)
            stored = np.rot90(picture) if is_closeup else picture
            path = root / "training_images" / scene / kind / Path(name).with_suffix(f".{kind}")
            save(np.ascontiguousarray(stored), path)
            rows += [bedlam_row(name, crowd, i, K) for i in range(len(crowd))]
        order = np.random.default_rng(0).permutation(len(rows))  # people of one picture are not neighbours
        labels = root / "training_labels" / "all_npz_12_training" / f"{scene}.npz"
        labels.parent.mkdir(parents=True, exist_ok=True)
        np.savez(labels, **{key: np.array([rows[i][key] for i in order]) for key in rows[0]})
        truth[-len(pictures) :] = [
            vertices[[i % len(vertices) for i in order if i // len(vertices) == number]]
            for number, vertices in enumerate(truth[-len(pictures) :])
        ]
    return truth


def bedlam_row(name: str, crowd: Crowd, i: int, K: np.ndarray) -> dict[str, Any]:
    extrinsics = np.eye(4)
    extrinsics[:3, 3] = np.random.default_rng(i).normal(size=3)
    return {
        "imgname": name,
        "center": np.zeros(2),
        "scale": 1.0,
        "pose_cam": crowd.pose[i].reshape(165),
        "pose_world": np.zeros(165),
        "shape": crowd.betas[i],
        "trans_cam": crowd.transl[i] - extrinsics[:3, 3],
        "trans_world": np.zeros(3),
        "gtkps": np.zeros((127, 3)),
        "cam_int": K,
        "cam_ext": extrinsics,
        "gender": "female",
        "proj_verts": np.zeros((437, 3)),
        "motion_info": np.array({"label": "walk"}, object),
        "sub": "rp_aaron_posed_002",
    }


# --- AGORA -----------------------------------------------------------------------------------------------


def write_agora(root: Path, body: Any, mean_hands: np.ndarray) -> list[np.ndarray]:
    """A picture of a fixed rig and one whose camera is in the table; the second person of it is a girl."""
    names = (
        "ag_trainset_3dpeople_bfh_archviz_5_10_cam02_00001",
        "ag_trainset_renderpeople_bfh_flowers_5_15_00012",
    )
    rigs = ((18, 30.0, -45.0), (28, 0.0, 70.0))
    rows, truth = [], []
    for number, (name, (lens, pitch, yaw)) in enumerate(zip(names, rigs, strict=True)):
        crowd = Crowd.random(10 + number, 2, 2.5)
        crowd.betas[:] *= 0.2  # the hips of the made-up body are soon askew
        crowd.betas[:, 10] = 0
        vertices, joints = posed(body, crowd)
        truth.append(vertices)
        K = intrinsics(lens / 36 * 1280, (720, 1280))
        picture = painted(vertices, faces_of(body), K, (720, 1280))
        save(picture, root / "1280x720" / "train_0" / f"{name}_1280x720.png")
        yaws = [10.0, -100.0]
        camera = Rotation.from_euler("yxz", [-yaw, pitch, 0], degrees=True)
        for i in range(2):
            scan = Rotation.from_euler("yxz", [-(yaws[i] + 90), 0, 180], degrees=True)
            turn = (camera * scan).inv() * Rotation.from_rotvec(crowd.pose[i, 0])
            write_agora_fit(
                root / f"smplx_gt/trainset/{name}_{i}.pkl", crowd, i, turn.as_rotvec(), mean_hands
            )
        rows.append(
            {
                "imgPath": f"{name}.png",
                "camX": 0.0,
                "camYaw": yaw if "flowers" in name else 0.0,
                "Yaw": yaws,
                "gender": ["male", "female"],
                "kid": [False, number == 1],
                "occlusion": [0.0, 25.0],
                "gt_path_smplx": [f"smplx_gt/trainset/{name}_{i}.obj" for i in range(2)],
                "gt_joints_3d": list(joints),
            }
        )
    table = root / "train_SMPLX" / "SMPLX" / "train_0_withjv.pkl"
    table.parent.mkdir(parents=True)
    table.write_bytes(old_data_frame({key: [row[key] for row in rows] for key in rows[0]}))
    np.savez(
        root / "SMPLX_NEUTRAL.npz", hands_meanl=mean_hands[:15].ravel(), hands_meanr=mean_hands[15:].ravel()
    )
    return truth


def write_agora_fit(path: Path, crowd: Crowd, i: int, root: np.ndarray, mean_hands: np.ndarray) -> None:
    pose = crowd.pose[i].astype(np.float32)
    fit = {
        "betas": crowd.betas[i : i + 1, :10],
        "global_orient": root[None],
        "body_pose": pose[1:22].reshape(1, 63),
        "jaw_pose": pose[None, 22],
        "leye_pose": pose[None, 23],
        "reye_pose": pose[None, 24],
        "left_hand_pose": (pose[25:40] - mean_hands[:15]).reshape(1, 45),
        "right_hand_pose": (pose[40:55] - mean_hands[15:]).reshape(1, 45),
        "expression": crowd.expression[i : i + 1],
        "transl": np.zeros((1, 3)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(fit))


def old_data_frame(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """The pickle of a DataFrame as pandas 0.25 to 1.2 made it, without pandas."""
    names = list(columns)
    numbers = [name for name in names if all(isinstance(value, float) for value in columns[name])]
    others = [name for name in names if name not in numbers]
    count = len(columns[names[0]])
    table = np.empty((len(others), count), object)
    for row, name in enumerate(others):
        for i, value in enumerate(columns[name]):
            table[row, i] = value
    modules = {name: ModuleType(name) for name in ("pandas", "pandas.core")}

    def made(module: str, kind: Any) -> Any:
        kind.__module__, kind.__qualname__ = module, kind.__name__
        setattr(modules.setdefault(module, ModuleType(module)), kind.__name__, kind)
        return kind

    class BlockManager:
        def __getstate__(self) -> Any:
            axes = [index(np.array(names, object)), index(np.arange(count))]
            blocks = [
                {"values": np.array([columns[name] for name in numbers]), "mgr_locs": places(numbers)},
                {"values": table, "mgr_locs": places(others)},
            ]
            blocks = [block for block in blocks if len(block["values"])]
            return (
                axes,
                [block["values"] for block in blocks],
                [],
                {"0.14.1": {"axes": axes, "blocks": blocks}},
            )

    class DataFrame:
        pass

    class Index:
        def __reduce__(self) -> Any:
            return _new_Index, (type(self), {"data": self.data, "name": None}), None

    def _new_Index(kind: Any, content: Any) -> Any:
        raise AssertionError("only its name is wanted")

    def index(data: np.ndarray) -> Any:
        labels = Index()
        labels.data = data
        return labels

    def places(some: Sequence[str]) -> Any:
        found = [names.index(name) for name in some]
        return slice(found[0], found[0] + 1, 1) if len(found) == 1 else np.array(found)

    made("pandas.core.internals.managers", BlockManager)
    made("pandas.core.frame", DataFrame)
    made("pandas.core.indexes.base", Index)
    made("pandas.core.indexes.base", _new_Index)
    frame = DataFrame()
    frame.__dict__ |= {"_mgr": BlockManager(), "_typ": "dataframe", "_metadata": [], "attrs": {}}
    with patch.dict(sys.modules, modules):
        return pickle.dumps(frame, protocol=4)


# --- EHF -------------------------------------------------------------------------------------------------


def write_ehf(root: Path, body: Any) -> list[np.ndarray]:
    """Two pictures, the second blank; the first mesh in binary, with normals, the second as text."""
    K = np.array([[1498.22426237, 0, 790.263706], [0, 1498.22426237, 578.90334], [0, 0, 1]])
    turn = Rotation.from_rotvec([-2.98747896, 0.01172457, -0.05704687])
    truth = []
    for number in (1, 2):
        vertices = posed(body, Crowd.random(20 + number, 1, 3.0))[0]
        truth.append(vertices)
        people = vertices[: 2 - number]
        save(painted(people, faces_of(body), K, (1200, 1600)), root / f"{number:02d}_img.jpg")
        scanned = turn.inv().apply(vertices[0] - (-0.03609917, 0.43416458, 2.37101226)).astype(np.float32)
        write_ply(root / f"{number:02d}_align.ply", scanned, faces_of(body), as_text=number == 2)
        (root / f"{number:02d}_2Djnt.json").write_text('{"people": []}', encoding="utf-8")
    return truth


def write_ply(path: Path, vertices: np.ndarray, faces: np.ndarray, *, as_text: bool) -> None:
    form, normals = ("ascii", ()) if as_text else ("binary_little_endian", ("nx", "ny", "nz"))
    lines = ["ply", f"format {form} 1.0", "comment made by nobody", f"element vertex {len(vertices)}"]
    lines += [f"property float {axis}" for axis in ("x", "y", "z", *normals)]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header\n"]
    if as_text:
        content = "".join(f"{x:.7f} {y:.7f} {z:.7f}\n" for x, y, z in vertices).encode()
        content += "".join(f"3 {a} {b} {c}\n" for a, b, c in faces).encode()
    else:
        content = np.concatenate([vertices, np.zeros_like(vertices)], 1).astype("<f4").tobytes()
        row = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
        content += np.array([(3, face) for face in faces.tolist()], row).tobytes()
    path.write_bytes("\n".join(lines).encode() + content)


# --- UBody -----------------------------------------------------------------------------------------------


def write_ubody(root: Path, body: Any, mean_hands: np.ndarray) -> list[np.ndarray]:
    """A test video with one person whose right hand was not seen; a training video with two people."""
    size, K = (180, 320), intrinsics(300, (180, 320))
    images, people, fits, truth = [], [], {}, []
    for number, (video, count) in enumerate((("Interview_S1_Trim1", 1), ("Interview_S2_Trim1", 2)), 1):
        crowd = Crowd.random(30 + number, count, 3.0)
        crowd.betas[:, 10] = 0
        crowd.expression[:] = 0.5
        vertices, joints = posed(body, crowd)
        truth.append(vertices)
        name = f"{video}/000001.png"
        save(painted(vertices, faces_of(body), K, size), root / "images" / "Interview" / name)
        images.append({"id": number, "file_name": f"/{name}", "height": size[0], "width": size[1]})
        for i in range(count):
            key = 10 * number + i
            points = np.concatenate([project(joints[i, :23], K), np.full((23, 1), 2)], 1)
            points[5, 2] = 0
            people.append(ubody_person(key, number, points, seen=number == 2))
            fits[str(key)] = ubody_fit(crowd, i, mean_hands, focal=300 + 40 * i)
    people.append(ubody_person(99, 2, np.zeros((23, 3)), seen=False) | {"iscrowd": 1})
    folder = root / "annotations" / "Interview"
    folder.mkdir(parents=True)
    (folder / "keypoint_annotation.json").write_text(
        json.dumps({"images": images, "annotations": people}), encoding="utf-8"
    )
    (folder / "smplx_annotation.json").write_text(json.dumps(fits), encoding="utf-8")
    (root / "splits").mkdir()
    np.save(root / "splits" / "intra_scene_test_list.npy", np.array(["Interview_S1"]))
    np.savez(
        root / "SMPLX_NEUTRAL.npz", hands_meanl=mean_hands[:15].ravel(), hands_meanr=mean_hands[15:].ravel()
    )
    return truth


def ubody_person(key: int, image: int, points: np.ndarray, *, seen: bool) -> dict[str, Any]:
    return {
        "id": key,
        "image_id": image,
        "iscrowd": 0,
        "num_keypoints": 17,
        "valid_label": 2,
        "bbox": [0, 0, 100, 100],
        "keypoints": points[:17].ravel().tolist(),
        "foot_kpts": points[17:].ravel().tolist(),
        "face_kpts": [0] * 204,
        "lefthand_kpts": [0] * 63,
        "righthand_kpts": [0] * 63,
        "lefthand_valid": True,
        "righthand_valid": seen,
        "face_valid": True,
    }


def ubody_fit(crowd: Crowd, i: int, mean_hands: np.ndarray, focal: float) -> dict[str, Any]:
    pose = crowd.pose[i]
    param = {
        "root_pose": pose[0],
        "body_pose": pose[1:22],
        "lhand_pose": pose[25:40] - mean_hands[:15],
        "rhand_pose": pose[40:55] - mean_hands[15:],
        "jaw_pose": pose[22],
        "shape": crowd.betas[i, :10],
        "expr": crowd.expression[i],
        "trans": crowd.transl[i],
    }
    camera = {"focal": [focal, focal], "princpt": [160, 90]}
    return {"smplx_param": {key: value.ravel().tolist() for key, value in param.items()}, "cam_param": camera}


# --- CUFFS -----------------------------------------------------------------------------------------------


def write_cuffs(root: Path, body: Any) -> list[np.ndarray]:
    """One person in each of two pictures, in the form that the reader assumes."""
    size, K = (240, 240), intrinsics(260, (240, 240))
    content, truth = {}, []
    for number in range(2):
        crowd = Crowd.random(40 + number, 1, 2.5)
        vertices, _ = posed(body, crowd)
        truth.append(vertices)
        save(painted(vertices, faces_of(body), K, size), root / "images" / f"{number:06d}.jpg")
        pose = crowd.pose[0]
        person = {
            "smplx_root_pose": pose[0],
            "smplx_body_pose": pose[1:22],
            "smplx_jaw_pose": pose[22],
            "smplx_left_hand_pose": pose[25:40],
            "smplx_right_hand_pose": pose[40:55],
            "smplx_shape": crowd.betas[0],
            "smplx_transl": crowd.transl[0],
        }
        content[f"{number:06d}.jpg"] = {"K": K, "humans": [person]}
    (root / "cuffs_annots_20240905.pkl").write_bytes(pickle.dumps(content))
    return truth
