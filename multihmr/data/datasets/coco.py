"""COCO keypoints (Lin et al. 2014), COCO-WholeBody (Jin et al. 2020), and your own pictures in their format.

Where        https://cocodataset.org/#download: 2017 train images, val images, train/val annotations;
             https://github.com/jin-s13/COCO-WholeBody for coco_wholebody_{train,val}_v1.0.json
Licence      annotations CC BY 4.0, pictures as their owners on Flickr say; WholeBody non-commercial research
Files        annotations/person_keypoints_val2017.json and val2017/*.jpg, and so for train2017
Format       {"images": [{id, file_name, width, height}], "categories": [{id, keypoints: names}],
             "annotations": [{image_id, category_id, iscrowd, keypoints: 17 times x, y, v}]}; v is 0 for a
             point that is not labelled. WholeBody adds foot_kpts (6), face_kpts (68), lefthand_kpts and
             righthand_kpts (21), each with a flag such as face_valid.

Your own pictures: any tool that exports COCO keypoints will do. Name the file person_keypoints_default.json
and put the pictures into images/ or images/default/; the split is "default". Points in another order are
sorted by the names in `categories`. Of pictures with an EXIF orientation, `width` and `height` tell whether
points belong to the stored or to the upright picture.

Nothing else is known: K and translation are NaN and there are no body parameters. Crowds, people without a
labelled point and points outside of their picture are left out and counted in `skipped`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...bodies.keypoint_sets import keypoint_names
from ..dataset import DatasetInfo, PoseDataset
from ..index import Fields, Record

_PARTS = {"foot": 6, "face": 68, "lefthand": 21, "righthand": 21}  # of WholeBody, in the order of its points


class Coco(PoseDataset):
    """COCO keypoints: 17 points per person."""

    about = DatasetInfo(
        name="coco",
        title="COCO keypoints",
        licence="annotations CC BY 4.0, pictures as their owners say",
        register="https://cocodataset.org/#download",
        files=("train2017.zip", "val2017.zip", "annotations_trainval2017.zip"),
        tree="ROOT/\n  annotations/person_keypoints_val2017.json\n  val2017/000000000139.jpg ...\n"
        "  or one's own: annotations/person_keypoints_default.json, images/...",
        size="18 GB train, 1 GB val, 0.8 GB annotations",
        citation="Lin et al., Microsoft COCO, ECCV 2014",
    )
    splits: ClassVar[tuple[str, ...]] = ("val2017", "train2017", "default", "train", "val", "test")
    needed: ClassVar[dict[str, str]] = {
        "annotations/person_keypoints_{split}.json": "unpack annotations_trainval2017.zip, or export your own"
    }
    people_fields: ClassVar[Fields] = {"keypoints_2d": ("f4", 17, 2)}
    picture_fields: ClassVar[Fields] = {"annotated_size": ("i4", 2)}  # height, width; 0 if not given
    required = ()
    keypoint_set = "coco17"
    parts: ClassVar[tuple[str, ...]] = ()  # parts of WholeBody that are read

    def annotation_files(self) -> Sequence[Path]:
        return [self.root / pattern.format(split=self.split) for pattern in self.needed]

    def scan(self, path: Path) -> Iterator[Record]:
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=_without_outlines)
        orders = self._orders(content["categories"])
        sizes = {picture["id"]: _size(picture) for picture in content["images"]}
        people = self._people(content["annotations"], orders, sizes)
        folder = self._picture_folder()
        for picture in content["images"]:
            points = people.get(picture["id"])
            if points is None:
                self.skipped["pictures without labelled people"] += 1
                continue
            file = str(picture["file_name"])
            yield Record(
                Path(file).with_suffix("").as_posix(),
                folder + file,
                {"keypoints_2d": np.stack(points)},
                {"K": np.full((3, 3), np.nan), "annotated_size": np.array(sizes[picture["id"]])},
            )

    def _people(
        self,
        annotations: Sequence[Any],
        orders: dict[Any, list[int] | None],
        sizes: dict[Any, tuple[int, int]],
    ) -> dict[Any, list[np.ndarray]]:
        """Picture -> the points (M, 2) of each of its people."""
        people: dict[Any, list[np.ndarray]] = defaultdict(list)
        for person in annotations:
            if person.get("iscrowd"):
                self.skipped["crowds"] += 1
                continue
            order = orders.get(person.get("category_id"), orders[None])
            if order is None:
                self.skipped["people with other points than COCO's"] += 1
                continue
            points = self._points(person, order)
            outside = _outside(points, sizes.get(person["image_id"], (0, 0)))
            if outside.any():
                self.skipped["labelled points outside of their picture"] += int(outside.sum())
                points[outside] = np.nan
            if np.isnan(points).all():
                self.skipped["people without a labelled point"] += 1
                continue
            people[person["image_id"]].append(points)
        return people

    def _points(self, person: Any, order: list[int]) -> np.ndarray:
        """(M, 2) pixels, NaN where not labelled; order: index of each of COCO's points in the annotation."""
        rows = [_rows(person, "keypoints", len(order))[order]]
        rows[0][:, :2] += 0.5  # they are indices of pixels, and the first pixel's centre is at 0.5
        for part in self.parts:
            rows.append(_rows(person, f"{part}_kpts", _PARTS[part]))
            if not person[f"{part}_valid"]:
                rows[-1][:, 2] = 0
        points = np.concatenate(rows)
        return np.where(points[:, 2:] > 0, points[:, :2], np.nan)

    def _orders(self, categories: Sequence[Any]) -> dict[Any, list[int] | None]:
        """Category -> index of each of COCO's points among its own, None if it has others; None -> the first.

        Raises:
            ValueError: no category has COCO's points.
        """
        known = keypoint_names("coco17")
        orders: dict[Any, list[int] | None] = {}
        for category in categories:
            names = list(category.get("keypoints") or known)
            same = sorted(names) == sorted(known)
            orders[category.get("id")] = [names.index(name) for name in known] if same else None
        usable = [order for order in orders.values() if order is not None]
        if categories and not usable:
            raise ValueError(f"its points must be those of COCO, {known}, got {names}")
        return {None: usable[0] if usable else list(range(17)), **orders}

    def _picture_folder(self) -> str:
        """Folder of this split's pictures below the root, with a "/" at its end."""
        year = "" if self.split.endswith("2017") else "2017"
        places = [f"{self.split}/", f"{self.split}{year}/"]
        places += [f"images/{place}" for place in places] + ["images/"]
        for place in places:
            if (self.root / place).is_dir():
                return place
        raise FileNotFoundError(f"{self.root} has none of the folders {', '.join(places)} with the pictures")


class CocoFeet(Coco):
    """COCO-WholeBody, body and feet: 23 points per person."""

    about = DatasetInfo(
        name="coco-feet",
        title="COCO-WholeBody, body and feet",
        licence="non-commercial research, pictures as their owners say",
        register="https://github.com/jin-s13/COCO-WholeBody",
        files=(
            "coco_wholebody_train_v1.0.json",
            "coco_wholebody_val_v1.0.json",
            "train2017.zip",
            "val2017.zip",
        ),
        tree="ROOT/\n  annotations/coco_wholebody_val_v1.0.json\n  val2017/000000000139.jpg ...",
        size="18 GB train, 1 GB val, 0.9 GB annotations",
        citation="Jin et al., Whole-Body Human Pose Estimation in the Wild, ECCV 2020",
    )
    splits = ("val", "train")
    needed: ClassVar[dict[str, str]] = {
        "annotations/coco_wholebody_{split}_v1.0.json": "it is linked from the page of COCO-WholeBody"
    }
    people_fields: ClassVar[Fields] = {"keypoints_2d": ("f4", 23, 2)}
    keypoint_set = "coco23"
    parts: ClassVar[tuple[str, ...]] = ("foot",)


class CocoWholeBody(CocoFeet):
    """COCO-WholeBody: 133 points per person."""

    about = replace(CocoFeet.about, name="coco-wholebody", title="COCO-WholeBody")
    people_fields: ClassVar[Fields] = {"keypoints_2d": ("f4", 133, 2)}
    keypoint_set = "coco133"
    parts = tuple(_PARTS)


def _rows(person: Any, key: str, count: int) -> np.ndarray:
    """(count, 3) x, y and the label flag of the points."""
    values = np.array(person[key], np.float64)
    if values.shape != (3 * count,):
        raise ValueError(
            f"{key} of annotation {person.get('id')} must be {3 * count} numbers, got {values.shape}"
        )
    return values.reshape(count, 3)


def _without_outlines(entry: dict[str, Any]) -> dict[str, Any]:
    """Drop outlines, which are most of the file and are not used."""
    entry.pop("segmentation", None)
    return entry


def _size(picture: Any) -> tuple[int, int]:
    """(height, width) of a picture according to its entry, 0 if it does not say."""
    return int(picture.get("height") or 0), int(picture.get("width") or 0)


def _outside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(M,) points more than a pixel outside of a picture of known size (height, width)."""
    height, width = size
    if height < 1 or width < 1:
        return np.zeros(len(points), bool)
    with np.errstate(invalid="ignore"):
        beyond: np.ndarray = (points < -1) | (points > (width + 1, height + 1))
    return np.asarray(beyond.any(-1))
