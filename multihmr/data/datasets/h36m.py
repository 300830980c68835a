"""Human3.6M (Ionescu et al. 2014) as Moon et al. 2019 (3DMPPE) converted it: pictures and JSON.

Where        http://vision.imar.ro/human3.6m/ (register with an academic address), then the conversion that
             https://github.com/mks0601/3DMPPE_POSENET_RELEASE links to, or its tool/Human36M on one's own
             copy
Licence      academic research only
Files        images/s_09_act_02_subact_01_ca_01/s_09_act_02_subact_01_ca_01_000001.jpg ...
             annotations/Human36M_subject9_data.json, ..._camera.json, ..._joint_3d.json of each subject
Format       data: {"images": [{id, file_name, subject, action_idx, subaction_idx, cam_idx, frame_idx}],
             "annotations": [{image_id, bbox}]}; camera: {cam_idx: {R, t, f, c}} [mm, pixels]; joint_3d:
             {action_idx: {subaction_idx: {frame_idx: (17, 3)}}} in the world [mm], "h36m17"
Splits       "test" is subjects 9 and 11, every 64th frame; "train" is 1, 5, 6, 7 and 8, every 5th: protocol 2
             of that code, all four cameras. MPJPE is usually given for "h36m14" of these joints.

In some releases t is the camera's position, cam = R (world - t), in others the translation, cam = R world +
t; the reader uses the one that puts people into their boxes. Lens distortion, some pixels at the edges of
these pictures, is ignored as in that code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..annotations import read_json
from ..cameras import NEAREST, inside, into_camera, pixels_of
from ..dataset import DatasetInfo, PoseDataset
from ..index import Fields, Record

SUBJECTS = {"test": (9, 11), "train": (1, 5, 6, 7, 8)}
STEP = {"test": 64, "train": 5}  # frames per used picture
PELVIS = 0
_PROBES = 64  # pictures by which the meaning of t is determined

Camera = tuple[np.ndarray, np.ndarray, np.ndarray]  # R (3, 3), translation (3,) in mm, K (3, 3)


class H36M(PoseDataset):
    """Human3.6M: one person per picture, 17 joints, no body parameters."""

    about = DatasetInfo(
        name="h36m",
        title="Human3.6M",
        licence="academic research only",
        register="http://vision.imar.ro/human3.6m/",
        files=("images.zip and annotations.zip of the 3DMPPE conversion",),
        tree="ROOT/\n  annotations/Human36M_subject9_{data,camera,joint_3d}.json ...\n"
        "  images/s_09_act_02_subact_01_ca_01/s_09_act_02_subact_01_ca_01_000001.jpg ...",
        size="more than 100 GB; a thirtieth of it for the split test alone",
        citation="Ionescu et al., Human3.6M, TPAMI 2014; Moon et al., 3DMPPE, ICCV 2019",
    )
    splits = ("test", "train")
    needed: ClassVar[dict[str, str]] = {
        "annotations/Human36M_subject*_data.json": "unpack annotations.zip",
        "images/s_*": "unpack images.zip",
    }
    people_fields: ClassVar[Fields] = {"keypoints_3d": ("f4", 17, 3), "keypoints_2d": ("f4", 17, 2)}
    required = ("keypoints_3d",)
    keypoint_set = "h36m17"

    @classmethod
    def missing(cls, root: str | Path, split: str | None = None) -> list[str]:
        found = super().missing(root, split)
        files = [
            Path(root) / f"annotations/Human36M_subject{subject}_{kind}.json"
            for subject in SUBJECTS[split or cls.splits[0]]
            for kind in ("data", "camera", "joint_3d")
        ]
        lacking = [f"{file} is not there: unpack annotations.zip" for file in files if not file.is_file()]
        return found or lacking

    def annotation_files(self) -> Sequence[Path]:
        return [
            self.root / f"annotations/Human36M_subject{subject}_data.json" for subject in SUBJECTS[self.split]
        ]

    def scan(self, path: Path) -> Iterator[Record]:
        content = _read(path, "data")
        pictures = [p for p in content["images"] if p["frame_idx"] % STEP[self.split] == 0]
        boxes = {person["image_id"]: person["bbox"] for person in content["annotations"]}
        joints = _read(path, "joint_3d")
        probes = [(p, boxes[p["id"]]) for p in pictures[:: max(1, len(pictures) // _PROBES)]]
        cameras = _cameras(_read(path, "camera"), probes, joints)
        for picture in pictures:
            R, t, K = cameras[str(picture["cam_idx"])]
            points = into_camera(_joints(joints, picture), R, t)[None] / 1000
            people = {"keypoints_3d": points, "keypoints_2d": pixels_of(points, K)}
            file = str(picture["file_name"])
            yield Record(Path(file).stem, f"images/{file}", people, {"K": K})

    def unusable(self, record: Record) -> Mapping[str, np.ndarray]:
        behind = record.people["keypoints_3d"][:, PELVIS, 2] < NEAREST
        return {**super().unusable(record), "people behind the camera": behind}


def _read(path: Path, kind: str) -> Any:
    return read_json(path.with_name(path.name.replace("_data", f"_{kind}")))


def _joints(joints: Any, picture: Any) -> np.ndarray:
    """(17, 3) in the world [mm]."""
    points = joints[str(picture["action_idx"])][str(picture["subaction_idx"])][str(picture["frame_idx"])]
    if np.shape(points) != (17, 3):
        raise ValueError(f"joints of {picture['file_name']} must be (17, 3), got {np.shape(points)}")
    return np.array(points)


def _cameras(entries: Any, probes: Sequence[tuple[Any, Any]], joints: Any) -> dict[str, Camera]:
    """Cameras by number, with t as the translation, whichever convention the file has.

    probes: pictures with the boxes (x, y, width, height) of their people.
    """
    best: tuple[int, dict[str, Camera]] = (0, {})
    for is_place in (False, True):
        cameras = {number: _camera(entry, is_place) for number, entry in entries.items()}
        visible = sum(_shows(cameras[str(p["cam_idx"])], _joints(joints, p), box) for p, box in probes)
        best = max(best, (visible, cameras), key=lambda found: found[0])
    if 2 * best[0] < len(probes):
        raise ValueError(
            f"its cameras show {best[0]} of {len(probes)} people; R, t, f or c have another meaning"
        )
    return best[1]


def _camera(entry: Any, is_place: bool) -> Camera:
    R, t = np.array(entry["R"], float).reshape(3, 3), np.array(entry["t"], float).reshape(3)
    K = np.diag([*np.reshape(entry["f"], 2), 1.0])
    K[:2, 2] = np.reshape(entry["c"], 2)
    return R, -R @ t if is_place else t, K


def _shows(camera: Camera, joints: np.ndarray, box: Any) -> bool:
    """Whether the pelvis is in the box."""
    R, t, K = camera
    pelvis = pixels_of(into_camera(joints[PELVIS], R, t), K)
    return bool(inside(pelvis - box[:2], (box[3], box[2])))
