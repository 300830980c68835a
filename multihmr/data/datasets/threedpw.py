"""3DPW (von Marcard et al. 2018): one or two people outdoors, a moving phone, SMPL from IMUs and video.

Where        https://virtualhumans.mpi-inf.mpg.de/3DPW/license.html (agree, then download)
Licence      non-commercial scientific research
Files        imageFiles.zip, sequenceFiles.zip
Format       sequenceFiles/test/SEQUENCE.pkl, a pickle of Python 2. A list with one array per actor: poses (F,
             72), trans (F, 3), betas (10,), jointPositions (F, 72) in the world [m], campose_valid (F,),
             genders "m" or "f"; and cam_poses (F, 4, 4) world to camera, cam_intrinsics (3, 3). Frame i is
             the picture imageFiles/SEQUENCE/image_0000i.jpg.
Splits       "test", "train", "validation"

Bodies are those of SMPL, one model per gender, moved into the camera frame. The pelvis, joint 0 of
jointPositions, is their position, so that no SMPL file is needed: trans could only be moved with the rest
pelvis of the shape. People with a campose_valid of 0 in a frame are left out there. Some people in the
pictures were never annotated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..annotations import read_pickle
from ..cameras import into_camera, pixels_of, turn_roots
from ..dataset import GENDERS, SMPL_FIELDS, DatasetInfo, PoseDataset
from ..index import Fields, Record

_GENDERS = {"m": GENDERS.index("male"), "f": GENDERS.index("female")}


class ThreeDPW(PoseDataset):
    """3DPW: SMPL parameters and 24 joints."""

    about = DatasetInfo(
        name="3dpw",
        title="3DPW",
        licence="non-commercial scientific research",
        register="https://virtualhumans.mpi-inf.mpg.de/3DPW/license.html",
        files=("imageFiles.zip", "sequenceFiles.zip"),
        tree="ROOT/\n  sequenceFiles/test/downtown_arguing_00.pkl ... (and train/, validation/)\n"
        "  imageFiles/downtown_arguing_00/image_00000.jpg ...",
        size="51,000 pictures of 2 megapixels, a few GB",
        citation="von Marcard et al., Recovering Accurate 3D Human Pose in The Wild, ECCV 2018",
    )
    splits = ("test", "train", "validation")
    needed: ClassVar[dict[str, str]] = {
        "sequenceFiles/{split}/*.pkl": "unpack sequenceFiles.zip",
        "imageFiles/*/image_*.jpg": "unpack imageFiles.zip",
    }
    people_fields: ClassVar[Fields] = SMPL_FIELDS
    body = "smpl"
    anchor = "pelvis"
    keypoint_set = "smpl24"

    def annotation_files(self) -> Sequence[Path]:
        return sorted((self.root / "sequenceFiles" / self.split).glob("*.pkl"))

    def scan(self, path: Path) -> Iterator[Record]:
        sequence = read_pickle(path)
        cameras = np.asarray(sequence["cam_poses"])
        K = np.asarray(sequence["cam_intrinsics"])
        actors = _actors(sequence, len(cameras))
        for i, camera in enumerate(cameras):
            valid = actors["campose_valid"][:, i].astype(bool)
            self._count("people without a valid camera (campose_valid is 0)", ~valid)
            if not valid.any():
                self.skipped["pictures without a valid camera"] += 1
                continue
            joints = into_camera(actors["jointPositions"][valid, i], camera[:3, :3], camera[:3, 3])
            people = {
                "pose": turn_roots(actors["poses"][valid, i], camera[:3, :3]),
                "shape": actors["betas"][valid],
                "translation": joints[:, 0],
                "gender": actors["genders"][valid],
                "keypoints_3d": joints,
                "keypoints_2d": pixels_of(joints, K),
            }
            image = f"imageFiles/{path.stem}/image_{i:05d}.jpg"
            yield Record(f"{path.stem}/{i:05d}", image, people, {"K": K})


def _actors(sequence: Mapping[str, Any], frames: int) -> dict[str, np.ndarray]:
    """The arrays of all actors, stacked: poses and jointPositions (A, F, 24, 3), campose_valid (A, F)."""
    arrays = {}
    for key, shape in (
        ("poses", (frames, 24, 3)),
        ("jointPositions", (frames, 24, 3)),
        ("campose_valid", (frames,)),
    ):
        for actor, array in enumerate(sequence[key]):
            if np.size(array) != np.prod(shape) or len(array) != frames:
                raise ValueError(
                    f"{key} of actor {actor} must be ({frames}, ...) as its cam_poses, got {np.shape(array)}"
                )
        arrays[key] = np.stack([np.reshape(array, shape) for array in sequence[key]])
    arrays["betas"] = np.stack([np.ravel(betas)[:10] for betas in sequence["betas"]])
    arrays["genders"] = np.array([_GENDERS[str(gender)[0]] for gender in sequence["genders"]])
    return arrays
