"""AGORA (Patel et al. 2021): 4,240 scans of adults and children, 5 to 15 in each of 17,000 pictures.

Where        https://agora.is.tue.mpg.de (register, then the page of downloads)
Licence      non-commercial scientific research
Files        train_SMPLX.zip, validation_SMPLX.zip (tables with joints and vertices), smplx_gt.zip (fits),
             and the pictures of 1280x720 (or of 3840x2160), those of each zip file in a folder of its name
Format       SMPLX/train_0_withjv.pkl ..., tables of pandas, one row per picture: imgPath "NAME.png", camYaw,
             and lists with one entry per person: gt_path_smplx "smplx_gt/SCANS/PERSON.obj", Yaw [degrees],
             gender, kid, occlusion [percent], gt_joints_3d (127, 3) in the camera frame [m]. Not read: X,
             Y, Z, camX, camY, camZ, isValid, age, ethnicity, gt_joints_2d, gt_verts.
             smplx_gt/SCANS/PERSON.pkl, a dict of arrays with one row: betas (10, or 11 of children),
             global_orient (3), body_pose (63), left_hand_pose and right_hand_pose (45, from the mean hand),
             jaw_pose (3), expression (10), in the frame of the scan. 1280x720/train_0/NAME_1280x720.png,
             3840x2160/train_0/NAME.png.
Splits       "validation", "train" (the truth of the test pictures is not published)

The tables are read without pandas, as pandas 0.25 to 3 store columns of objects and numbers; columns of its
own text types (only in re-saved files) are refused by name. Fits are of the gendered bodies: `gender` tells
which, "neutral" for girls, as the authors advise. A child's body is a mixture with SMIL, which SMPL-X cannot
represent: its shape is NaN. People are placed at the pelvis of gt_joints_3d. The rotation from a scan to the
camera is computed from angles; people rotated otherwise than the hips of gt_joints_3d are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from ...humans import rotmat_to_rotvec, rotvec_to_rotmat
from ..annotations import MEAN_HANDS, read_mean_hands, read_pickle
from ..dataset import GENDERS, DatasetInfo, PoseDataset, smplx_fields
from ..index import Fields, Record

SIZES = ("1280x720", "3840x2160")
SENSOR_MM = 36  # sensor width
HIPS_AGREE = 0.8  # smallest cosine between hip axes; a yaw of the wrong sign nearly always fails it

# (part of the name, focal length [mm], pitch [degrees], yaw [degrees] or the table's): the authors' rigs
_RIGS: tuple[tuple[str, int, int, int | None], ...] = (
    ("hdri", 50, 0, 0),
    ("cam00", 18, 30, 135),
    ("cam01", 18, 30, -135),
    ("cam02", 18, 30, -45),
    ("cam03", 18, 30, 45),
    ("ag2", 28, 15, 0),
    ("", 28, 0, None),
)


class Agora(PoseDataset):
    """AGORA: gendered SMPL-X with hands and faces, true cameras; crowds with much occlusion."""

    about = DatasetInfo(
        name="agora",
        title="AGORA",
        licence="non-commercial scientific research",
        register="https://agora.is.tue.mpg.de",
        files=("train_SMPLX.zip", "validation_SMPLX.zip", "smplx_gt.zip", "the pictures of 1280x720"),
        tree="ROOT/\n  train_SMPLX/SMPLX/train_0_withjv.pkl ..., validation_SMPLX/SMPLX/ ...\n"
        "  smplx_gt/trainset_3dpeople_adults_bfh/10004_w_Amaya_0_0.pkl ...\n"
        "  1280x720/train_0/NAME_1280x720.png ... train_9/, validation/\n"
        "  SMPLX_NEUTRAL.npz (yours, of SMPL-X v1.1)",
        size="17,000 pictures; some 30 GB in 1280x720 (estimated), tables with vertices as much again",
        citation="Patel et al., AGORA: Avatars in Geography Optimized for Regression Analysis, CVPR 2021",
    )
    splits = ("validation", "train")
    needed: ClassVar[dict[str, str]] = {
        "{split}_SMPLX/SMPLX/{split}_*_withjv.pkl": "unpack {split}_SMPLX.zip in a folder {split}_SMPLX",
        "smplx_gt/*/*.pkl": "unpack smplx_gt.zip",
        "*x*/{split}*/*.png": "unpack the pictures in a folder for each zip file, in 1280x720 or 3840x2160",
        **MEAN_HANDS,
    }
    people_fields: ClassVar[Fields] = {
        **smplx_fields(10),
        "visibility": ("f4",),
        "gender": ("u1",),
        "hips": ("f4", 3),
    }
    anchor = "pelvis"

    @cached_property
    def _mean_hands(self) -> np.ndarray:
        return read_mean_hands(self.root / "SMPLX_NEUTRAL.npz")

    def annotation_files(self) -> Sequence[Path]:
        return sorted((self.root / f"{self.split}_SMPLX" / "SMPLX").glob(f"{self.split}_*_withjv.pkl"))

    def also_read(self) -> Sequence[Path]:
        return [self.root / "SMPLX_NEUTRAL.npz"]

    def scan(self, path: Path) -> Iterator[Record]:
        table = read_pickle(path)
        size = next(size for size in SIZES if (self.root / size).is_dir())
        folder = path.name.removesuffix("_withjv.pkl") if self.split == "train" else self.split
        for row, name in enumerate(table["imgPath"]):
            stem = name.rpartition(".")[0]
            people = [self._person(table, row, i) for i in range(len(table["gt_path_smplx"][row]))]
            if not people:
                self.skipped["pictures without people in the table"] += 1
                continue
            arrays = {key: np.stack([person[key] for person in people]) for key in people[0]}
            ending = ".png" if size == SIZES[1] else f"_{size}.png"
            K = intrinsics(name, *map(int, size.split("x")))
            yield Record(stem, f"{size}/{folder}/{stem}{ending}", arrays, {"K": K})

    def unusable(self, record: Record) -> Mapping[str, np.ndarray]:
        across = rotvec_to_rotmat(record.people["pose"][:, 0])[:, :, 0]  # from the right to the left hip
        agree = (across * record.people["hips"]).sum(1)
        return {**super().unusable(record), "people turned otherwise than their hips": agree < HIPS_AGREE}

    def _person(self, table: Mapping[str, Any], row: int, i: int) -> dict[str, Any]:
        fit = _read_fit(self.root / PurePosixPath(table["gt_path_smplx"][row][i]).with_suffix(".pkl"))
        turn = camera_turn(table["imgPath"][row], float(table["camYaw"][row])) @ scan_turn(
            table["Yaw"][row][i]
        )
        parts = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose")
        pose = np.concatenate([np.reshape(fit[part], (-1, 3)) for part in parts]).astype(np.float32)
        pose[0] = rotmat_to_rotvec(turn @ rotvec_to_rotmat(pose[0]))
        pose[22:52] += self._mean_hands
        joints = np.reshape(table["gt_joints_3d"][row][i], (-1, 3))
        hips = joints[1] - joints[2]
        is_kid, occlusion = bool(table["kid"][row][i]), float(table["occlusion"][row][i])
        gender = str(table["gender"][row][i])
        gender = "neutral" if is_kid and gender == "female" else gender
        return {
            "pose": pose,
            "shape": np.full(10, np.nan) if is_kid else np.ravel(fit["betas"])[:10],
            "expression": np.ravel(fit["expression"])[:10],
            "translation": joints[0],
            "visibility": np.float32(np.clip(1 - occlusion / 100, 0, 1)),
            "gender": np.uint8(GENDERS.index(gender)),
            "hips": hips / np.linalg.norm(hips),
        }


@lru_cache(maxsize=8192)  # a scan is in some forty pictures
def _read_fit(path: Path) -> dict[str, Any]:
    return read_pickle(path)


def intrinsics(name: str, width: int, height: int) -> np.ndarray:
    """(3, 3) K of the picture `name`, which contains the name of its rig."""
    focal = _rig(name)[1] / SENSOR_MM * width
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def camera_turn(name: str, yaw_deg: float) -> np.ndarray:
    """(3, 3) rotation from the world, y down, to the camera: about the vertical, then by the rig's pitch."""
    _, _, pitch, yaw = _rig(name)
    return about_x(pitch) @ about_y(-(yaw_deg if yaw is None else yaw))


def scan_turn(yaw_deg: float) -> np.ndarray:
    """(3, 3) rotation from a scan's frame, y up, to the world, y down; its yaw has another origin."""
    return np.diag([-1.0, -1.0, 1.0]) @ about_y(-(yaw_deg + 90))


def about_x(angle_deg: float) -> np.ndarray:
    return rotvec_to_rotmat(np.array([np.deg2rad(angle_deg), 0, 0]))


def about_y(angle_deg: float) -> np.ndarray:
    return rotvec_to_rotmat(np.array([0, np.deg2rad(angle_deg), 0]))


def _rig(name: str) -> tuple[str, int, int, int | None]:
    return next(rig for rig in _RIGS if rig[0] in name)
