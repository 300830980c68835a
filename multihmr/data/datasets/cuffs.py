"""CUFFS (Baradel et al. 2024): 60,000 close-ups of rendered full bodies with clearly visible hands.

Where        https://huggingface.co/datasets/naver/CUFFS (agree to the licence), or
             https://download.europe.naverlabs.com/ComputerVision/MultiHMR/CUFFS/
Licence      NAVER, non-commercial
Files        cuffs.zip (6 GB)
Format       the zip file has the pictures, the licence and cuffs_annots_20240905.pkl. That much is
             published; the content of the pickle is not, and was not available to us. ASSUMED: a
             dict from the picture's path (below the root, or below a folder images/) to a dict with K (3,
             3), or focal and princpt, and humans, a list with one dict per person: smplx_root_pose (3),
             smplx_body_pose (21, 3), smplx_left_hand_pose and smplx_right_hand_pose (15, 3), smplx_jaw_pose
             (3), smplx_shape (10 or 11), smplx_transl (3), and smplx_expression (10) where there is one.
             Without the prefix, and by the names of the smplx package (global_orient, betas), they are
             accepted as well; hands are taken to be relative to the flat hand, roots and translations in
             the camera frame. If the file differs, an error says which keys it has: please report them.
Splits       "train"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..annotations import read_pickle
from ..dataset import DatasetInfo, PoseDataset, smplx_fields
from ..index import Fields, Record

_OTHER_NAMES = {"root_pose": "global_orient", "shape": "betas", "transl": "translation"}
_POSE = {"root_pose": 1, "body_pose": 21, "left_hand_pose": 15, "right_hand_pose": 15, "jaw_pose": 1}


class Cuffs(PoseDataset):
    """CUFFS: SMPL-X with 11 betas and hands, true cameras."""

    about = DatasetInfo(
        name="cuffs",
        title="CUFFS (Close-Up Frames of Full-body Subjects)",
        licence="NAVER, non-commercial",
        register="https://huggingface.co/datasets/naver/CUFFS",
        files=("cuffs.zip",),
        tree="ROOT/\n  cuffs_annots_20240905.pkl\n  the pictures as the zip file has them",
        size="60,000 pictures, 6 GB",
        citation="Baradel et al., Multi-HMR: Multi-Person Whole-Body Human Mesh Recovery in a Single Shot, "
        "ECCV 2024",
    )
    splits = ("train",)
    needed: ClassVar[dict[str, str]] = {"cuffs_annots_*.pkl": "unpack cuffs.zip (of September 2024 or later)"}
    people_fields: ClassVar[Fields] = smplx_fields(11)
    required = ("pose", "shape", "translation")

    def annotation_files(self) -> Sequence[Path]:
        return sorted(self.root.glob("cuffs_annots_*.pkl"))[-1:]

    def scan(self, path: Path) -> Iterator[Record]:
        content = read_pickle(path)
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}, expected a dict of pictures")
        folder = "images/" if (self.root / "images").is_dir() else ""
        for image, picture in content.items():
            people = [_person(person) for person in _of(picture, "humans")]
            arrays = {
                key: np.stack([person[key] for person in people]) if people else np.zeros((0, *shape))
                for key, (_, *shape) in self.people_fields.items()
            }
            place = image if image.startswith(folder) else folder + image
            yield Record(image.rpartition(".")[0], place, arrays, {"K": _intrinsics(picture)})


def _person(fit: Mapping[str, Any]) -> dict[str, np.ndarray]:
    pose = [np.reshape(_of(fit, part), (count, 3)) for part, count in _POSE.items()]
    shape = np.zeros(11)
    betas = np.ravel(_of(fit, "shape"))
    shape[: len(betas)] = betas
    has_expression = any(key in fit for key in ("smplx_expression", "expression"))
    return {
        "pose": np.concatenate(pose),
        "shape": shape,
        "expression": np.ravel(_of(fit, "expression")) if has_expression else np.full(10, np.nan),
        "translation": np.ravel(_of(fit, "transl")),
    }


def _intrinsics(picture: Mapping[str, Any]) -> np.ndarray:
    if "K" in picture:
        return np.asarray(picture["K"])
    fx, fy = np.broadcast_to(np.ravel(_of(picture, "focal")), 2)
    cx, cy = np.ravel(_of(picture, "princpt"))
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _of(content: Mapping[str, Any], key: str) -> Any:
    for name in (f"smplx_{key}", key, _OTHER_NAMES.get(key, key)):
        if name in content:
            return content[name]
    raise ValueError(f"no {key} where its other keys are {', '.join(map(str, content))}")
