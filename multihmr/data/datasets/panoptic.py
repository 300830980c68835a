"""CMU Panoptic (Joo et al. 2015): people in a dome of cameras, 19 joints in 3D triangulated from all of them.

Where        http://domedb.perception.cs.cmu.edu/, through the scripts of panoptic-toolbox (getData.sh, then
             extractAll.sh, which cut the videos into pictures)
Licence      non-commercial research; no registration
Files        of each sequence calibration_SEQUENCE.json, hdPose3d_stage1_coco19.tar, and the HD videos 00_16
             and 00_30 as pictures
Format       calibration: {"cameras": [{"name": "00_16", "K", "distCoef" (k1, k2, p1, p2, k3), "R", "t"
             [cm]}]}; body3DScene_00000000.json: {"bodies": [{"joints19": 19 times x, y, z [cm],
             confidence}]}, confidence -1 for a joint that was not found. Joints are "panoptic19".
Splits       the four activities that papers report on, by the cameras 16 and 30 (Zanfir et al. 2018, Jiang et
             al. 2020): haggling, mafia, ultimatum, pizza, one sequence each as in 3DCrowdNet (Choi et al.
             2022); "test" is all of them. Papers take 9600 frames, whose list we did not find; the reader
             takes those whose pictures are in hdImgs.

Pictures are undistorted, so that K describes their camera. At the edges some pixels are lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..annotations import read_json
from ..cameras import inside, into_camera, pixels_of, straighten
from ..dataset import DatasetInfo, PoseDataset
from ..index import Fields, Record

SEQUENCES = {
    "haggling": "160422_haggling1",
    "mafia": "160422_mafia2",
    "ultimatum": "160422_ultimatum1",
    "pizza": "160906_pizza1",
}
CAMERAS = ("00_16", "00_30")
SURE = 0.1  # smallest confidence of a joint
MIN_JOINTS = 6  # in the picture, of a person who is used (as in ROMP's evaluation)


class Panoptic(PoseDataset):
    """CMU Panoptic: people with at least six joints in the picture; undetected joints are NaN."""

    about = DatasetInfo(
        name="panoptic",
        title="CMU Panoptic",
        licence="non-commercial research",
        register="http://domedb.perception.cs.cmu.edu/",
        files=("calibration_SEQUENCE.json", "hdPose3d_stage1_coco19.tar", "hdVideos hd_00_16 and hd_00_30"),
        tree="ROOT/\n  160422_ultimatum1/\n    calibration_160422_ultimatum1.json\n"
        "    hdPose3d_stage1_coco19/body3DScene_00000000.json ...\n    hdImgs/00_16/00_16_00000000.jpg ...\n"
        f"  and so for {', '.join(SEQUENCES.values())}",
        size="a video of some GB for each camera and sequence; pictures 0.3 MB each, up to 27,000 a video",
        citation="Joo et al., Panoptic Studio, ICCV 2015",
    )
    splits = ("test", *SEQUENCES)
    needed: ClassVar[dict[str, str]] = {}
    people_fields: ClassVar[Fields] = {"keypoints_3d": ("f4", 19, 3), "keypoints_2d": ("f4", 19, 2)}
    picture_fields: ClassVar[Fields] = {"lens": ("f4", 5)}
    required = ()
    keypoint_set = "panoptic19"

    @classmethod
    def missing(cls, root: str | Path, split: str | None = None) -> list[str]:
        lacking = super().missing(root, split)
        for sequence in _sequences(split or cls.splits[0]):
            parts = [f"calibration_{sequence}.json", "hdPose3d_stage1_coco19"]
            parts += [f"hdImgs/{camera}" for camera in CAMERAS]
            folders = [Path(root) / sequence / part for part in parts]
            lacking += [f"{p} is not there: run getData.sh {sequence}" for p in folders if not p.exists()]
        return lacking

    def annotation_files(self) -> Sequence[Path]:
        """The folders of joints: one file per frame is too many to check at every start."""
        return [self.root / name / "hdPose3d_stage1_coco19" for name in _sequences(self.split)]

    def scan(self, path: Path) -> Iterator[Record]:
        sequence = path.parent.name
        cameras = _cameras(path.parent / f"calibration_{sequence}.json")
        joint_files = {file.stem[-8:]: file for file in path.rglob("body3DScene_*.json")}
        for camera in CAMERAS:
            for picture in sorted((path.parent / "hdImgs" / camera).glob(f"{camera}_*.*")):
                file = joint_files.get(picture.stem[-8:])
                if file is None:
                    self.skipped["pictures without a file of joints"] += 1
                    continue
                people = self._people(_bodies(file), cameras[camera])
                if not len(people["keypoints_3d"]):
                    self.skipped["pictures without people with enough joints"] += 1
                    continue
                about = {key: cameras[camera][key] for key in ("K", "lens")}
                place = picture.relative_to(self.root).as_posix()
                yield Record(f"{sequence}/{picture.stem}", place, people, about)

    def read_picture(self, record: Record) -> np.ndarray:
        return straighten(super().read_picture(record), record.picture["K"], record.picture["lens"])

    def _people(self, joints: np.ndarray, camera: Any) -> dict[str, np.ndarray]:
        points = into_camera(joints[..., :3], camera["R"], camera["t"]) / 100
        points[joints[..., 3] < SURE] = np.nan
        pixels = pixels_of(points, camera["K"])
        few = inside(pixels, camera["size"]).sum(1) < MIN_JOINTS
        self._count(f"people with fewer than {MIN_JOINTS} joints in the picture", few)
        return {"keypoints_3d": points[~few], "keypoints_2d": pixels[~few]}


def _sequences(split: str) -> list[str]:
    return list(SEQUENCES.values()) if split == "test" else [SEQUENCES[split]]


def _cameras(path: Path) -> dict[str, Any]:
    """Name -> K (3, 3), lens (5,), R (3, 3), t (3,) [cm], size (height, width)."""
    return {
        camera["name"]: {
            "K": np.reshape(camera["K"], (3, 3)),
            "lens": np.reshape(camera["distCoef"], 5),
            "R": np.reshape(camera["R"], (3, 3)),
            "t": np.reshape(camera["t"], 3),
            "size": tuple(camera["resolution"][::-1]),
        }
        for camera in read_json(path)["cameras"]
        if camera["name"] in CAMERAS
    }


def _bodies(path: Path) -> np.ndarray:
    """(N, 19, 4) x, y, z [cm] and confidence."""
    joints = [body["joints19"] for body in read_json(path)["bodies"]]
    for values in joints:
        if len(values) != 76:
            raise ValueError(f"joints19 in {path.name} must have 76 numbers, got {len(values)}")
    return np.reshape(np.array(joints, float), (-1, 19, 4))
