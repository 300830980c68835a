"""BEDLAM (Black et al. 2023): rendered people, SMPL-X bodies in simulated clothes; 380,000 pictures.

Where        https://bedlam.is.tue.mpg.de (register, then the page of downloads)
Licence      non-commercial scientific research
Files        for each scene the pictures (png), and the processed labels for training and validation, as the
             script fetch_training_data.sh of github.com/pixelite1201/BEDLAM lays them out; or labels made
             from the raw data by its data_processing/df_full_body.py
Format       all_npz_12_training/SCENE.npz, one row per person: imgname "seq_000000/seq_000000_0005.png" (rows
             of one name are people of one picture), pose_cam (165,) rotation vectors of SMPL-X's 55 joints
             in its own order with the root in the camera frame and hands relative to the flat hand, shape
             (11,) of the neutral body, trans_cam (3,), cam_ext (4, 4), cam_int (3, 3). A body is placed at
             trans_cam plus the last column of cam_ext, which is another one for each person. Not read:
             center, scale, gtkps, proj_verts, pose_world, trans_world, motion_info, gender (of the motion;
             bodies are neutral).
Splits       "training", "validation"

Pictures of scenes with "closeup" in their name are stored rotated by 90 degrees: annotations and cam_int
belong to the picture rotated back, clockwise, as in the samples. Faces have no expression:
those of the samples are 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..annotations import POSE53, read_npz
from ..dataset import DatasetInfo, PoseDataset
from ..index import Fields, Record
from ..sample import Sample

_ARRAYS: dict[str, tuple[int, ...]] = {
    "imgname": (),
    "pose_cam": (165,),
    "shape": (11,),
    "trans_cam": (3,),
    "cam_ext": (4, 4),
    "cam_int": (3, 3),
}


class Bedlam(PoseDataset):
    """BEDLAM: SMPL-X with 11 betas and hands, true cameras; several people in most pictures."""

    about = DatasetInfo(
        name="bedlam",
        title="BEDLAM",
        licence="non-commercial scientific research",
        register="https://bedlam.is.tue.mpg.de",
        files=(
            "the pictures (png) of each scene",
            "the labels all_npz_12_training and all_npz_12_validation",
        ),
        tree="ROOT/\n  training_labels/all_npz_12_training/20221010_3_1000_batch01hand_6fps.npz ...\n"
        "  training_images/20221010_3_1000_batch01hand_6fps/png/seq_000000/seq_000000_0000.png ...\n"
        "  validation_labels/all_npz_12_validation/ ..., validation_images/ ...",
        size="380,000 pictures of 1280x720; as png some 0.5 TB (estimated), as jpg a tenth",
        citation="Black et al., BEDLAM: A Synthetic Dataset of Bodies Exhibiting Detailed Lifelike Animated "
        "Motion, CVPR 2023",
    )
    splits = ("training", "validation")
    needed: ClassVar[dict[str, str]] = {
        "{split}_labels/all_npz_12_{split}/*.npz": "unpack the labels there",
        "{split}_images/*/*/seq_*": "unpack the pictures of at least one scene there, in png/ or jpg/",
    }
    people_fields: ClassVar[Fields] = {"pose": ("f4", 53, 3), "shape": ("f4", 11), "translation": ("f4", 3)}
    picture_fields: ClassVar[Fields] = {"turned": ("u1",)}
    required = ("pose", "shape", "translation")

    def annotation_files(self) -> Sequence[Path]:
        return sorted((self.root / f"{self.split}_labels" / f"all_npz_12_{self.split}").glob("*.npz"))

    def scan(self, path: Path) -> Iterator[Record]:
        rows = read_npz(path, _ARRAYS)
        names, row_of = np.unique(rows["imgname"].astype(str), return_inverse=True)
        folder = self._pictures(path.stem)
        if folder is None:
            self.skipped["pictures of missing scenes"] += len(names)
            return
        pose = rows["pose_cam"].reshape(-1, 55, 3)[:, POSE53]
        translation = rows["trans_cam"] + rows["cam_ext"][:, :3, 3]
        order = np.split(np.argsort(row_of, kind="stable"), np.cumsum(np.bincount(row_of))[:-1])
        for name, people in zip(names.tolist(), order if len(names) else [], strict=True):
            K = rows["cam_int"][people]
            if not np.allclose(K, K[0], atol=0.5):
                self.skipped["pictures with several cameras"] += 1
                continue
            person = {
                "pose": pose[people],
                "shape": rows["shape"][people],
                "translation": translation[people],
            }
            picture = {"K": K[0], "turned": np.array("closeup" in path.stem)}
            image = f"{folder}/{name.rpartition('.')[0]}.{Path(folder).name}"
            yield Record(f"{path.stem}/{name.rpartition('.')[0]}", image, person, picture)

    def sample(self, record: Record, image: np.ndarray) -> Sample:
        upright = np.ascontiguousarray(np.rot90(image, -1)) if record.picture["turned"] else image
        return replace(super().sample(record, upright), expression=np.zeros((len(record), 10), np.float32))

    def _pictures(self, scene: str) -> str | None:
        """Folder of a scene's pictures below the root; its name may lack the frame rate of the labels."""
        for name in (scene, re.sub(r"_\d+fps$", "", scene)):
            for kind in ("png", "jpg"):
                if (self.root / f"{self.split}_images" / name / kind).is_dir():
                    return f"{self.split}_images/{name}/{kind}"
        return None
