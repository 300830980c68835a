"""UBody (Lin et al. 2023): upper bodies in videos of 15 kinds of scenes, SMPL-X fitted to detected keypoints.

Where        https://osx-ubody.github.io (a form to sign; then links)
Licence      non-commercial research
Files        videos, annotations, splits. Frames are taken out of the videos by tool/UBody/video2image.py of
             github.com/IDEA-Research/OSX (30 a second, %06d.png)
Format       annotations/SCENE/keypoint_annotation.json as COCO-WholeBody: images (id, file_name
             "VIDEO/000001.png", height, width), annotations (id, image_id, iscrowd, num_keypoints,
             valid_label, keypoints (17 x 3), foot_kpts (6 x 3), lefthand_valid, righthand_valid,
             face_valid, ...). annotations/SCENE/smplx_annotation.json: id of the annotation -> smplx_param
             (root_pose (3,), body_pose (63,), lhand_pose and rhand_pose (45,), jaw_pose (3,), shape (10,),
             expr (10,), trans (3,)) and cam_param (focal (2,), princpt (2,)).
             splits/intra_scene_test_list.npy: names of videos.
Splits       "test" (videos of the list, the part before "_Trim"), "train" (all others)

Fits are of the neutral body with hands relative to SMPL-X's mean hand (the smplx package's default), so that
the mean hands of SMPLX_NEUTRAL.npz are needed. The cameras are not measured: each is derived from the
person's box, so that depths mean little, and people of one picture may have different ones. Such pictures
have neither K nor translations. Hands and faces that are not visible are NaN. The fits are pseudo ground
truth, for training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..annotations import MEAN_HANDS, read_json, read_mean_hands
from ..dataset import DatasetInfo, PoseDataset, smplx_fields
from ..index import Fields, Record

LEFT_HAND, RIGHT_HAND, JAW = slice(22, 37), slice(37, 52), slice(52, 53)


class UBody(PoseDataset):
    """UBody: SMPL-X with hands and faces where visible, and 23 keypoints of COCO-WholeBody."""

    about = DatasetInfo(
        name="ubody",
        title="UBody",
        licence="non-commercial research",
        register="https://osx-ubody.github.io",
        files=("the videos", "the annotations", "the splits"),
        tree="ROOT/\n  annotations/Interview/keypoint_annotation.json smplx_annotation.json ...\n"
        "  images/Interview/VIDEO/000001.png ...\n  splits/intra_scene_test_list.npy\n"
        "  SMPLX_NEUTRAL.npz (yours, of SMPL-X v1.1)",
        size="1.05 million frames; about 1 TB as png (estimated)",
        citation="Lin et al., One-Stage 3D Whole-Body Mesh Recovery with Component Aware Transformer, "
        "CVPR 2023",
    )
    splits = ("test", "train")
    needed: ClassVar[dict[str, str]] = {
        "annotations/*/keypoint_annotation.json": "unpack the annotations there",
        "annotations/*/smplx_annotation.json": "unpack the annotations there",
        "splits/intra_scene_test_list.npy": "unpack the splits there",
        "images/*/*": "take the frames out of the videos there",
        **MEAN_HANDS,
    }
    people_fields: ClassVar[Fields] = {
        **smplx_fields(10),
        "keypoints_2d": ("f4", 23, 2),
    }
    required = ("shape",)
    keypoint_set = "coco23"

    @cached_property
    def _mean_hands(self) -> np.ndarray:
        return read_mean_hands(self.root / "SMPLX_NEUTRAL.npz")

    @cached_property
    def _test_videos(self) -> set[str]:
        return set(np.load(self.root / "splits/intra_scene_test_list.npy", allow_pickle=False).tolist())

    def annotation_files(self) -> Sequence[Path]:
        return sorted((self.root / "annotations").glob("*/keypoint_annotation.json"))

    def also_read(self) -> Sequence[Path]:
        fits = (self.root / "annotations").glob("*/smplx_annotation.json")
        return [
            *sorted(fits),
            self.root / "splits/intra_scene_test_list.npy",
            self.root / "SMPLX_NEUTRAL.npz",
        ]

    def scan(self, path: Path) -> Iterator[Record]:
        content, fits = read_json(path), read_json(path.with_name("smplx_annotation.json"))
        people: dict[int, list[Any]] = {}
        for person in content["annotations"]:
            people.setdefault(person["image_id"], []).append(person)
        for image in content["images"]:
            name = image["file_name"].lstrip("/")
            is_test = name.split("/")[-2].split("_Trim")[0] in self._test_videos
            if is_test == (self.split == "test") and image["id"] in people:
                record = self._record(f"{path.parent.name}/{name}", people[image["id"]], fits)
                if record is not None:
                    yield record

    def unusable(self, record: Record) -> Mapping[str, np.ndarray]:
        broken = ~np.isfinite(record.people["pose"][:, :22]).all((1, 2))
        return {**super().unusable(record), "people with NaN or infinity in their body's pose": broken}

    def _record(self, name: str, people: Sequence[Any], fits: Mapping[str, Any]) -> Record | None:
        fitted = [
            person
            for person in people
            if not person["iscrowd"] and person["valid_label"] and str(person["id"]) in fits
        ]
        if len(fitted) < len(people):
            self.skipped["people without a fit"] += len(people) - len(fitted)
        if not fitted:
            self.skipped["pictures without a fit"] += 1
            return None
        cameras = [fits[str(person["id"])]["cam_param"] for person in fitted]
        Ks = np.stack([_intrinsics(camera) for camera in cameras])
        rows = [self._person(person, fits[str(person["id"])]["smplx_param"]) for person in fitted]
        arrays = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        if not np.allclose(Ks, Ks[0], atol=0.5):
            Ks = np.full((1, 3, 3), np.nan)
            arrays["translation"] = np.full((len(rows), 3), np.nan)
        return Record(name.rpartition(".")[0], f"images/{name}", arrays, {"K": Ks[0]})

    def _person(self, person: Mapping[str, Any], fit: Mapping[str, Any]) -> dict[str, np.ndarray]:
        parts = ("root_pose", "body_pose", "lhand_pose", "rhand_pose", "jaw_pose")
        pose = np.concatenate([np.reshape(fit[part], (-1, 3)) for part in parts]).astype(float)
        pose[LEFT_HAND.start : RIGHT_HAND.stop] += self._mean_hands
        expression = np.array(fit["expr"], float)
        for valid, part in (("lefthand", LEFT_HAND), ("righthand", RIGHT_HAND), ("face", JAW)):
            if not fit.get(
                f"{valid[0]}hand_valid" if "hand" in valid else "face_valid", person[f"{valid}_valid"]
            ):
                pose[part] = np.nan
        if np.isnan(pose[JAW]).any():
            expression[:] = np.nan
        points = np.reshape([*person["keypoints"], *person["foot_kpts"]], (23, 3)).astype(float)
        points[points[:, 2] <= 0] = np.nan
        return {
            "pose": pose,
            "shape": np.array(fit["shape"]),
            "expression": expression,
            "translation": np.array(fit["trans"]),
            "keypoints_2d": points[:, :2],
        }


def _intrinsics(camera: Mapping[str, Any]) -> np.ndarray:
    if "R" in camera or "t" in camera:
        raise ValueError("its cameras have extrinsics, unlike those of UBody")
    (fx, fy), (cx, cy) = camera["focal"], camera["princpt"]
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], float)
