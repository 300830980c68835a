"""Hi4D (Yin et al. 2023): two people in close contact, eight cameras, SMPL fitted to 4D scans.

Where        https://hi4d.ait.ethz.ch (register, then the archives pairNN_1.zip ... of each pair)
Licence      non-commercial research of ETH Zurich
Files        of each pair and action images, cameras, smpl, meta.npz; seg where masks are wanted. Not the
             scans (frames, frames_vis), which are most of it.
Format       meta.npz: start, end (first and last frame), genders (2,), mono_cam (the camera of the monocular
             benchmark). cameras/rgb_cameras.npz: ids (C,), intrinsics (C, 3, 3), extrinsics (C, 3, 4) world
             to camera [m], dist_coeffs (C, 5) as in OpenCV. smpl/000001.npz: global_orient (2, 3), body_pose
             (2, 69), betas (2, 10), joints_3d (2, 24, 3) in the world [m]. seg/img_seg_mask/CAM/0/000001.png:
             mask of person 0.
Splits       "mono" is the camera mono_cam of each sequence, "all" all eight.

Bodies are those of SMPL, one model per gender, moved into the camera frame; the pelvis is joint 0 of
joints_3d, so that no SMPL file is needed to place them. Pictures and masks are undistorted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...preprocessing.image import read_image
from ..annotations import READ_ERRORS, read_npz
from ..cameras import into_camera, pixels_of, straighten, turn_roots
from ..dataset import GENDERS, SMPL_FIELDS, DatasetInfo, PoseDataset
from ..index import Fields, Record
from ..sample import Sample


class Hi4D(PoseDataset):
    """Hi4D: SMPL parameters and 24 joints of both people, and masks if `seg` is there."""

    about = DatasetInfo(
        name="hi4d",
        title="Hi4D",
        licence="non-commercial research",
        register="https://hi4d.ait.ethz.ch",
        files=("pair00_1.zip ... (all or some pairs)",),
        tree="ROOT/\n  pair00/dance00/\n    meta.npz\n    cameras/rgb_cameras.npz\n    smpl/000001.npz ...\n"
        "    images/4/000001.jpg ...\n    seg/img_seg_mask/4/0/000001.png ...",
        size="11,000 frames by 8 cameras; a few GB a pair without the scans",
        citation="Yin et al., Hi4D: 4D Instance Segmentation of Close Human Interaction, CVPR 2023",
    )
    splits = ("mono", "all")
    needed: ClassVar[dict[str, str]] = {
        "*/*/meta.npz": "unpack the archives so that a pair's folder is below the root",
        "*/*/cameras/rgb_cameras.npz": "it comes with the pair",
        "*/*/smpl/*.npz": "it comes with the pair",
        "*/*/images/*/*.jpg": "it comes with the pair",
    }
    people_fields: ClassVar[Fields] = {**SMPL_FIELDS, "person": ("u1",)}  # index of the person in the masks
    picture_fields: ClassVar[Fields] = {"lens": ("f4", 5)}
    body = "smpl"
    anchor = "pelvis"
    keypoint_set = "smpl24"

    def annotation_files(self) -> Sequence[Path]:
        return sorted(self.root.glob("*/*/meta.npz"))

    def scan(self, path: Path) -> Iterator[Record]:
        meta = _read(path)
        genders = [GENDERS.index(str(gender)) for gender in meta["genders"]]
        cameras = _cameras(path.parent / "cameras/rgb_cameras.npz")
        if self.split == "mono":
            cameras = {str(meta["mono_cam"]): cameras[str(meta["mono_cam"])]}
        for frame in range(int(meta["start"]), int(meta["end"]) + 1):
            file = path.parent / f"smpl/{frame:06d}.npz"
            if not file.is_file():
                self.skipped["frames without SMPL parameters"] += 1
                continue
            bodies = _bodies(file) | {"gender": np.array(genders), "person": np.arange(len(genders))}
            for name, camera in cameras.items():
                folder = path.parent.relative_to(self.root).as_posix()
                people = _seen_by(camera, bodies)
                about = {key: camera[key] for key in ("K", "lens")}
                image = f"{folder}/images/{name}/{frame:06d}.jpg"
                yield Record(f"{folder}/{name}/{frame:06d}", image, people, about)

    def read_picture(self, record: Record) -> np.ndarray:
        return straighten(super().read_picture(record), record.picture["K"], record.picture["lens"])

    def sample(self, record: Record, image: np.ndarray) -> Sample:
        sequence, _, picture = record.image.partition("/images/")
        camera, _, frame = picture.removesuffix(".jpg").partition("/")
        folder = self.root / sequence / "seg/img_seg_mask" / camera
        mask = np.zeros(image.shape[:2], np.uint8)
        for row, person in enumerate(record.people["person"]):
            file = folder / str(person) / f"{frame}.png"
            if not file.is_file():
                return super().sample(record, image)
            silhouette = straighten(read_image(file), record.picture["K"], record.picture["lens"])
            if silhouette.shape != image.shape:
                raise ValueError(f"{file} is {silhouette.shape[:2]}, its picture {image.shape[:2]}")
            mask[silhouette.max(-1) > 127] = row + 1
        return replace(super().sample(record, image), mask=mask)


def _seen_by(camera: dict[str, np.ndarray], bodies: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The people in the camera frame."""
    R, t = camera["Rt"][:, :3], camera["Rt"][:, 3]
    joints = into_camera(bodies["keypoints_3d"], R, t)
    return bodies | {
        "pose": turn_roots(bodies["pose"], R),
        "translation": joints[:, 0],
        "keypoints_3d": joints,
        "keypoints_2d": pixels_of(joints, camera["K"]),
    }


def _bodies(path: Path) -> dict[str, np.ndarray]:
    """The people of one frame in world coordinates."""
    shapes = {"global_orient": (3,), "body_pose": (69,), "betas": (10,), "joints_3d": (24, 3)}
    file = read_npz(path, shapes)
    pose = np.concatenate([file["global_orient"], file["body_pose"]], axis=-1).reshape(-1, 24, 3)
    return {"pose": pose, "shape": file["betas"], "keypoints_3d": file["joints_3d"]}


def _cameras(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Camera number -> K (3, 3), lens (5,), Rt (3, 4)."""
    file = _read(path)
    arrays = zip(file["ids"], file["intrinsics"], file["extrinsics"], file["dist_coeffs"], strict=True)
    return {
        str(number): {"K": K, "lens": np.pad(np.ravel(lens), (0, 5))[:5], "Rt": Rt[:3]}
        for number, K, Rt, lens in arrays
    }


def _read(path: Path) -> Any:
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except READ_ERRORS as error:
        raise ValueError(f"{path} was not read: {error}") from error
