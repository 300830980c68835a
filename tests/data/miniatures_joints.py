"""Miniatures of published data sets, file for file as they come, with pictures of puppets.

A puppet stands in for SMPL, whose files are licensed: the same 24 joints, the same meaning of pose, betas and
translation, boxes for limbs. `Scene` is truth in the world and the cameras that look at it; each `write_`
function turns it into the files of one data set.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
from PIL import Image

from multihmr.bodies.keypoint_sets import KEYPOINT_SETS
from multihmr.data.cameras import bend
from multihmr.data.sample import Sample
from multihmr.visualization.rasterizer import rasterize

SIZE = (240, 320)
JOINTS = KEYPOINT_SETS["smpl24"].split()
NAMES = [point.split("=")[0] for point in JOINTS]
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
# y up, facing z, the left side at +x, the pelvis beside the origin as SMPL's is
REST = np.array([
    (0, -0.22, 0.03), (0.07, -0.31, 0.02), (-0.07, -0.31, 0.02), (0, -0.11, 0), (0.1, -0.7, 0.02),
    (-0.1, -0.7, 0.02), (0, 0.03, 0), (0.09, -1.1, -0.02), (-0.09, -1.1, -0.02), (0, 0.08, 0.02),
    (0.11, -1.16, 0.1), (-0.11, -1.16, 0.1), (0, 0.29, 0), (0.08, 0.2, 0), (-0.08, 0.2, 0), (0, 0.38, 0.04),
    (0.18, 0.23, 0), (-0.18, 0.23, 0), (0.43, 0.21, -0.02), (-0.43, 0.21, -0.02), (0.68, 0.22, -0.02),
    (-0.68, 0.22, -0.02), (0.76, 0.21, -0.03), (-0.76, 0.21, -0.03),
])  # fmt: skip
HEAD = {  # points that turn with the head, from its joint
    "head_top": (0, 0.2, 0), "nose": (0, 0.05, 0.1), "left_eye": (0.03, 0.09, 0.08),
    "right_eye": (-0.03, 0.09, 0.08), "left_ear": (0.07, 0.07, 0.0), "right_ear": (-0.07, 0.07, 0.0),
}  # fmt: skip
CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
BOX = np.array([
    (0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1), (2, 3, 7),
    (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3),
])  # fmt: skip


def rotmat(rotvec: Any) -> np.ndarray:
    return roma.rotvec_to_rotmat(torch.from_numpy(np.asarray(rotvec, np.float32))).numpy().astype(float)


@dataclass(frozen=True)
class Puppet:
    """Vertices (V, 3) and faces of a posed puppet, its 24 joints and its named points."""

    vertices: np.ndarray
    joints: np.ndarray
    points: dict[str, np.ndarray]

    def keypoints(self, name: str) -> np.ndarray:
        """(M, 3) of a named set."""
        known = dict(zip(NAMES, self.joints, strict=True)) | self.points
        recipes = [point.split("=")[-1].split("+") for point in KEYPOINT_SETS[name].split()]
        return np.stack([np.mean([known[word] for word in words], 0) for words in recipes])


FACES = np.concatenate([BOX + 8 * i for i in range(24)])


def puppet(pose: np.ndarray, betas: np.ndarray, pelvis: np.ndarray | None = None) -> Puppet:
    """pose (24, 3, 3); betas (10,), of which the first is the size; the pelvis at rest if it is not given."""
    rest = REST * (1 + 0.05 * betas[0])
    joints, turns = [rest[0] if pelvis is None else pelvis], [pose[0]]
    for joint in range(1, 24):
        parent = PARENTS[joint]
        joints.append(joints[parent] + turns[parent] @ (rest[joint] - rest[parent]))
        turns.append(turns[parent] @ pose[joint])
    boxes = []
    for joint in range(1, 24):
        middle, half = (joints[joint] + joints[PARENTS[joint]]) / 2, (rest[joint] - rest[PARENTS[joint]]) / 2
        boxes.append(middle + (CORNERS * (np.abs(half) + 0.05)) @ turns[PARENTS[joint]].T)
    boxes.append(joints[15] + ((0, 0.1, 0.02) + CORNERS * (0.09, 0.13, 0.11)) @ turns[15].T)
    points = {name: joints[15] + turns[15] @ np.array(place) for name, place in HEAD.items()}
    return Puppet(np.concatenate(boxes), np.stack(joints), points)


def rebuilt(sample: Sample) -> list[Puppet]:
    """The puppets in the camera frame that a sample of body "smpl" and anchor "pelvis" speaks of."""
    assert (sample.body, sample.anchor) == ("smpl", "pelvis")
    people = zip(sample.pose.astype(float), sample.shape, sample.translation, strict=True)
    return [puppet(*person) for person in people]


@dataclass(frozen=True)
class Camera:
    """World to camera: R @ point + t [m]."""

    R: np.ndarray
    t: np.ndarray
    K: np.ndarray
    lens: np.ndarray

    @classmethod
    def at(cls, place: Sequence[float], focal: float = 300, lens: Sequence[float] = (0,) * 5) -> Camera:
        """At this place in a world of y up, looking at the origin."""
        forward = -np.array(place, float) / np.linalg.norm(place)
        right = np.cross(forward, (0, 1, 0)) / np.linalg.norm(np.cross(forward, (0, 1, 0)))
        R = np.stack([right, np.cross(forward, right), forward])
        K = np.array([[focal, 0, SIZE[1] / 2 + 4], [0, focal + 5, SIZE[0] / 2 - 3], [0, 0, 1]])
        return cls(R, -R @ np.array(place, float), K, np.array(lens, float))

    def sees(self, points: np.ndarray) -> np.ndarray:
        return points @ self.R.T + self.t

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) in the world -> pixels of the picture as it is taken, through the lens."""
        seen = self.sees(points)
        return bend(seen[..., :2] / seen[..., 2:], self.lens) @ self.K[:2, :2].T + self.K[:2, 2]


@dataclass(frozen=True)
class Scene:
    """pose (N, 24, 3) rotation vectors, betas (N, 10), trans (N, 3): SMPL's, in the world."""

    pose: np.ndarray
    betas: np.ndarray
    trans: np.ndarray

    @classmethod
    def random(cls, seed: int, count: int = 2) -> Scene:
        rng = np.random.default_rng(seed)
        pose = 0.25 * rng.normal(size=(count, 24, 3))
        pose[:, 0] = [(0.2, turn, 0.1) for turn in rng.uniform(-1, 1, count)]
        trans = np.stack(
            [np.linspace(-0.9, 0.9, count), rng.uniform(0, 0.3, count), rng.uniform(-1, 1, count)], 1
        )
        return cls(pose, rng.normal(size=(count, 10)), trans)

    def puppets(self) -> list[Puppet]:
        """In the world. SMPL's translation is added to the body turned about its pelvis at rest."""
        rest = [puppet(rotmat(p), b) for p, b in zip(self.pose, self.betas, strict=True)]
        return [
            Puppet(r.vertices + t, r.joints + t, {name: p + t for name, p in r.points.items()})
            for r, t in zip(rest, self.trans, strict=True)
        ]

    def keypoints(self, name: str) -> np.ndarray:
        """(N, M, 3) in the world."""
        return np.stack([person.keypoints(name) for person in self.puppets()])


def silhouette(person: Puppet, camera: Camera, straight: bool = True) -> np.ndarray:
    """(H, W) bool: where this person alone is seen; as the lens shows it, or straight."""
    return _render([person], camera, straight) >= 0


def picture(scene: Scene, camera: Camera) -> np.ndarray:
    """(H, W, 3) uint8 as the lens shows it: people in their colours before a gradient."""
    face = _render(scene.puppets(), camera, False)
    rows, columns = np.indices(SIZE)
    image = np.stack([100 + rows // 4, 110 + columns // 8, np.full(SIZE, 140)], -1).astype(np.uint8)
    shades = 0.5 + 0.5 * (np.arange(len(FACES)) % 12) / 11
    colours = np.array([(230, 90, 60), (60, 200, 90), (240, 220, 80)])
    seen = face >= 0
    image[seen] = colours[face[seen] // len(FACES)] * shades[face[seen] % len(FACES), None]
    return image


def _render(people: Sequence[Puppet], camera: Camera, straight: bool) -> np.ndarray:
    vertices = np.concatenate([person.vertices for person in people])
    faces = np.concatenate([FACES + 8 * 24 * i for i in range(len(people))])
    lens = np.zeros(5) if straight else camera.lens
    pixels = Camera(camera.R, camera.t, camera.K, lens).pixels(vertices)
    return rasterize(
        pixels.astype(np.float32), (1 / camera.sees(vertices)[:, 2]).astype(np.float32), faces, SIZE
    )[0]


def save_picture(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95)


def share_inside(pixels: np.ndarray, mask: np.ndarray) -> float:
    """Share of the finite pixels (..., 2) in the picture that are in the mask or a pixel beside it."""
    at = np.floor(pixels.reshape(-1, 2)[np.isfinite(pixels).reshape(-1, 2).all(1)]).astype(int)
    at = at[((at >= 0) & (at < mask.shape[::-1])).all(1)]
    padded = np.pad(mask, 1)
    near = np.any(
        [padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(3) for x in range(3)], axis=0
    )
    return float(near[at[:, 1], at[:, 0]].mean())


def write_threedpw(
    root: Path, scenes: Sequence[Scene], cameras: Sequence[Camera], split: str = "test"
) -> None:
    """One sequence, whose frames are the scenes; pickled as Python 2 did, protocol 2."""
    people = len(scenes[0].pose)
    worlds = [scene.puppets() for scene in scenes]
    poses = np.stack([np.eye(4)] * len(scenes))
    poses[:, :3, :3], poses[:, :3, 3] = [c.R for c in cameras], [c.t for c in cameras]
    content = {
        "sequence": "street_00",
        "betas": [scenes[0].betas[i] for i in range(people)],
        "poses": [np.stack([scene.pose[i].reshape(72) for scene in scenes]) for i in range(people)],
        "trans": [np.stack([scene.trans[i] for scene in scenes]) for i in range(people)],
        "jointPositions": [
            np.stack([world[i].joints.reshape(72) for world in worlds]) for i in range(people)
        ],
        "genders": ["f", "m", "m"][:people],
        "campose_valid": [np.ones(len(scenes), int) for _ in range(people)],
        "cam_poses": poses,
        "cam_intrinsics": cameras[0].K,
        "img_frame_ids": np.arange(len(scenes)) * 2,
    }
    path = root / "sequenceFiles" / split / "street_00.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    for i, (scene, camera) in enumerate(zip(scenes, cameras, strict=True)):
        save_picture(root / f"imageFiles/street_00/image_{i:05d}.jpg", picture(scene, camera))


def write_mupots(root: Path, scenes: Sequence[Scene], camera: Camera) -> None:
    """TS1; the second person of the last frame is not annotated, the first joint of all is hidden."""
    from scipy.io import savemat

    annotations = np.empty((len(scenes), len(scenes[0].pose)), object)
    labels = np.empty_like(annotations)
    for i, scene in enumerate(scenes):
        save_picture(root / f"TS1/img_{i:06d}.jpg", picture(scene, camera))
        for k, points in enumerate(scene.keypoints("mupots17")):
            seen = camera.sees(points)
            annotations[i, k] = {
                "annot2": camera.pixels(points).T,
                "annot3": 1000 * seen.T,
                "univ_annot3": 900 * seen.T,
                "isValidFrame": int((i, k) != (len(scenes) - 1, 1)),
            }
            if not annotations[i, k]["isValidFrame"]:
                annotations[i, k]["annot3"] = np.zeros((0, 0))
            labels[i, k] = np.eye(1, 17)
    savemat(root / "TS1/annot.mat", {"annotations": annotations})
    savemat(root / "TS1/occlusion.mat", {"occlusion_labels": labels})


def write_panoptic(root: Path, scenes: Sequence[Scene], cameras: dict[str, Camera]) -> None:
    """160906_pizza1, centimetres."""
    folder = root / "160906_pizza1"
    entries = [
        {
            "name": name,
            "type": "hd",
            "resolution": SIZE[::-1],
            "K": camera.K.tolist(),
            "distCoef": camera.lens.tolist(),
            "R": camera.R.tolist(),
            "t": (100 * camera.t[:, None]).tolist(),
        }
        for name, camera in cameras.items()
    ]
    joints = folder / "hdPose3d_stage1_coco19"
    joints.mkdir(parents=True)
    (folder / "calibration_160906_pizza1.json").write_text(json.dumps({"cameras": entries}), encoding="utf-8")
    for i, scene in enumerate(scenes):
        for name, camera in cameras.items():
            save_picture(folder / f"hdImgs/{name}/{name}_{i:08d}.jpg", picture(scene, camera))
        rows = [np.column_stack([100 * p, np.full(19, 0.7)]).ravel() for p in scene.keypoints("panoptic19")]
        bodies = [{"id": k, "joints19": row.tolist()} for k, row in enumerate(rows)]
        (joints / f"body3DScene_{i:08d}.json").write_text(
            json.dumps({"version": 0.7, "bodies": bodies}), encoding="utf-8"
        )


def write_h36m(root: Path, scene: Scene, camera: Camera, *, subject: int, t_is_place: bool = False) -> None:
    """Frames 0, 1 and 64 of a subject, millimetres; all of them show the first person of the scene."""
    folder = f"s_{subject:02d}_act_02_subact_01_ca_01"
    t = -camera.R.T @ camera.t if t_is_place else camera.t
    K = camera.K
    files: dict[str, Any] = {
        "camera": {
            "1": {
                "R": camera.R.tolist(),
                "t": (1000 * t).tolist(),
                "f": [K[0, 0], K[1, 1]],
                "c": K[:2, 2].tolist(),
            }
        },
        "joint_3d": {"2": {"1": {}}},
        "data": {"images": [], "annotations": []},
    }
    pixels = camera.pixels(scene.keypoints("h36m17")[0])
    for frame in (0, 1, 64):
        name = f"{folder}/{folder}_{frame + 1:06d}.jpg"
        files["joint_3d"]["2"]["1"][str(frame)] = (1000 * scene.keypoints("h36m17")[0]).tolist()
        files["data"]["images"].append(
            {
                "id": frame,
                "file_name": name,
                "width": SIZE[1],
                "height": SIZE[0],
                "subject": subject,
                "action_idx": 2,
                "subaction_idx": 1,
                "cam_idx": 1,
                "frame_idx": frame,
            }
        )
        low, high = pixels.min(0), pixels.max(0)
        files["data"]["annotations"].append({"id": frame, "image_id": frame, "bbox": [*low, *(high - low)]})
        save_picture(root / "images" / name, picture(scene, camera))
    (root / "annotations").mkdir(exist_ok=True)
    for kind, content in files.items():
        (root / f"annotations/Human36M_subject{subject}_{kind}.json").write_text(
            json.dumps(content), encoding="utf-8"
        )


def write_hi4d(root: Path, scene: Scene, cameras: dict[int, Camera]) -> None:
    """pair00/dance00, frame 7 by all cameras, with masks."""
    folder = root / "pair00/dance00"
    people = scene.puppets()
    for part in ("cameras", "smpl"):
        (folder / part).mkdir(parents=True)
    np.savez(folder / "meta.npz", start=7, end=7, genders=np.array(["female", "male"]), mono_cam=16)
    np.savez(
        folder / "cameras/rgb_cameras.npz",
        ids=np.array(list(cameras)),
        intrinsics=np.stack([c.K for c in cameras.values()]),
        extrinsics=np.stack([np.column_stack([c.R, c.t]) for c in cameras.values()]),
        dist_coeffs=np.stack([c.lens for c in cameras.values()]),
    )
    pose = scene.pose.reshape(-1, 72)
    np.savez(
        folder / "smpl/000007.npz",
        global_orient=pose[:, :3],
        body_pose=pose[:, 3:],
        betas=scene.betas,
        transl=scene.trans,
        joints_3d=np.stack([person.joints for person in people]),
    )
    for number, camera in cameras.items():
        save_picture(folder / f"images/{number}/000007.jpg", picture(scene, camera))
        for i, person in enumerate(people):
            mask = np.uint8(255) * silhouette(person, camera, straight=False)
            save_picture(folder / f"seg/img_seg_mask/{number}/{i}/000007.png", mask)


def write_coco(root: Path, scene: Scene, camera: Camera) -> None:
    """val2017: a picture with people, one more with nobody; the first person's nose is hidden and his left
    ear is not labelled. The same as COCO-WholeBody, with points on the feet and nothing on the face."""
    pixels = np.floor(camera.pixels(scene.keypoints("coco17"))).astype(int)
    marks = np.full((len(pixels), 17), 2)
    marks[0, :4] = 1, 2, 2, 0
    rows = [np.column_stack([p, m]) * (m > 0)[:, None] for p, m in zip(pixels, marks, strict=True)]
    ankles = camera.pixels(scene.keypoints("coco17"))[:, [15] * 3 + [16] * 3]
    annotations: list[dict[str, Any]] = [
        {
            "id": i,
            "image_id": 139,
            "iscrowd": 0,
            "category_id": 1,
            "segmentation": [[1, 2, 3]],
            "keypoints": row.ravel().tolist(),
            "num_keypoints": int((row[:, 2] > 0).sum()),
            "foot_kpts": np.column_stack([feet, np.full(6, 0.8)]).ravel().tolist(),
            "foot_valid": True,
            "face_kpts": [9.0] * 204,
            "face_valid": False,
            "lefthand_kpts": [7.0] * 63,
            "lefthand_valid": True,
            "righthand_kpts": [0.0] * 63,
            "righthand_valid": True,
        }
        for i, (row, feet) in enumerate(zip(rows, ankles, strict=True))
    ]
    unlabelled = annotations[0] | {"keypoints": [0] * 51, "num_keypoints": 0, "foot_valid": False}
    annotations.append(unlabelled | {"lefthand_valid": False, "id": 8})
    annotations.append(unlabelled | {"iscrowd": 1, "segmentation": {"counts": [1], "size": [2, 2]}, "id": 9})
    names = KEYPOINT_SETS["coco17"].split()
    content = {
        "images": [
            {"id": 139, "file_name": "000000000139.jpg"},
            {"id": 285, "file_name": "000000000285.jpg"},
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
        "annotations": annotations,
    }
    (root / "annotations").mkdir(parents=True)
    for file in ("person_keypoints_val2017", "coco_wholebody_val_v1.0"):
        (root / f"annotations/{file}.json").write_text(json.dumps(content), encoding="utf-8")
    for entry in content["images"]:
        save_picture(root / "val2017" / str(entry["file_name"]), picture(scene, camera))
