"""Photographs with people labelled in COCO's keypoint format, as they are measured on.

Unlike the reader for training (data/datasets/coco.py), crowds and people with few points are kept, as places
where a detection is not false, and so are pictures without people. Coordinates are those in the file, as in
COCO's own evaluation.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...bodies.keypoint_sets import keypoint_names
from ...data.orientation import MIRRORED, annotated_orientation, stored_raster, turn_points

POINTS = keypoint_names("coco17")
LEAST_POINTS = 3  # people with fewer labelled points need not be found
# COCO's areas are those of outlines; without one, the share of the box that they fill on average.
_AREA_OF_BOX = 0.53
_SOURCE = re.compile(r"coco(?:-(?P<split>[\w-]+))?@(?P<place>.+)", re.DOTALL)
_ANNOTATIONS = "annotations/person_keypoints_{split}.json"


@dataclass(frozen=True, eq=False)
class LabelledPerson:
    """A person in a photograph, as labelled by a human.

    Attributes:
        xy: (17, 2) COCO's points in pixels, NaN where not labelled.
        box: (4,) x, y, width, height in pixels.
        area: of the outline, in square pixels.
        crowd: a group whose people are not labelled one by one.
        ignored: need not be found, and is no false detection: crowds, people marked `ignore`, and those with
            fewer than three labelled points.
    """

    xy: np.ndarray
    box: np.ndarray
    area: float
    crowd: bool = False
    ignored: bool = False


@dataclass(frozen=True, eq=False)
class Photograph:
    """A photograph and the people in it.

    Attributes:
        name: as the annotation file calls it.
        path: of the picture.
        people: all that are labelled; none in a photograph without people.
    """

    name: str
    path: Path
    people: list[LabelledPerson]


@dataclass(frozen=True, eq=False)
class Photographs:
    """Photographs of an annotation file.

    Attributes:
        path: of the annotation file.
        photographs: those whose picture is there, in the file's order.
        skipped: reason -> how many pictures and people were left out for it.
    """

    path: Path
    photographs: list[Photograph]
    skipped: Counter[str] = field(default_factory=Counter)


def find_annotations(data: str) -> Path | None:
    """The COCO annotation file that a data source names; None if it is of another kind.

    Args:
        data: "coco@FOLDER" with FOLDER/annotations/person_keypoints_SPLIT.json, "coco-SPLIT@FOLDER" where
            there are several, "coco@FILE.json", or just such a folder or file.

    Raises:
        FileNotFoundError: there is no such file or folder, or the folder has no annotation file.
        ValueError: the folder has several; the message lists them.
    """
    match = _SOURCE.fullmatch(data)
    place = Path(match["place"] if match else data)
    split = match["split"] if match else None
    if match is None and not _is_annotated(place):
        return None
    if place.is_file() and split is None:
        return place
    if not place.is_dir():
        raise FileNotFoundError(f"there is no {'folder' if split else 'folder or COCO file'} {place}")
    files = sorted(place.glob(_ANNOTATIONS.format(split=split or "*")))
    if not files:
        wanted = _ANNOTATIONS.format(split=split or "SPLIT")
        raise FileNotFoundError(f"{place} has no {wanted}; give the file itself as coco@FILE.json")
    if len(files) > 1:
        splits = ", ".join(file.stem.removeprefix("person_keypoints_") for file in files)
        raise ValueError(f"{place} has the splits {splits}; choose one, as in coco-SPLIT@{place}")
    return files[0]


def _is_annotated(place: Path) -> bool:
    if place.is_dir():
        shards = next(place.glob("*.tar"), None)
        return shards is None and next(place.glob(_ANNOTATIONS.format(split="*")), None) is not None
    return place.suffix == ".json" and place.is_file()


def read_photographs(path: Path) -> Photographs:
    """Read a COCO annotation file and look for its pictures.

    Pictures are looked for beside the file, and in the folders images/ and SPLIT/ beside it or one level up.

    Raises:
        ValueError: it is not in COCO's keypoint format, or none of its pictures is there.
        FileNotFoundError: there is no such file.
    """
    content = _content(path)
    skipped: Counter[str] = Counter()
    annotations = _by_picture(content, path, skipped)
    roots = _picture_roots(path)
    photographs = []
    lost = ""
    for picture in content["images"]:
        name = str(picture["file_name"])
        found = next((root / name for root in roots if (root / name).is_file()), None)
        if found is None:
            lost = lost or name
            skipped["picture file missing"] += 1
            continue
        people = list(_people(annotations[picture["id"]], skipped))
        try:
            people = _upright(people, found, picture)
        except (ValueError, ImportError) as error:
            skipped[_reason(error, found)] += 1
            continue
        photographs.append(Photograph(name, found, people))
    if not photographs:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in skipped.items())
        missing = f"the first, {lost}, is not in {roots[0]} or the folders beside" if lost else reasons
        raise ValueError(f"none of the {len(content['images'])} pictures of {path} can be used: {missing}")
    return Photographs(path, photographs, skipped)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path} is not in COCO's format: it has no list '{key}'")
    if not content["images"]:
        raise ValueError(f"{path} has no images to measure on")
    for picture in content["images"]:
        if not isinstance(picture, dict) or not {"id", "file_name"} <= set(picture):
            raise ValueError(f"{path}: every image needs an id and a file_name, got {str(picture)[:80]}")
    return content


def _by_picture(content: dict[str, Any], path: Path, skipped: Counter[str]) -> dict[Any, list[Any]]:
    """Picture -> its annotations of people, with their points in COCO's order."""
    orders = _point_orders(content.get("categories") or [], path)
    known = {picture["id"] for picture in content["images"]}
    by_picture: dict[Any, list[Any]] = defaultdict(list)
    for entry in content["annotations"]:
        if not isinstance(entry, dict) or entry.get("image_id") not in known:
            skipped["annotation of a picture that is not listed"] += 1
        elif orders and entry.get("category_id", next(iter(orders))) not in orders:
            skipped["annotation of something else than a person"] += 1
        else:
            order = orders.get(entry.get("category_id"), list(range(len(POINTS))))
            by_picture[entry["image_id"]].append((entry, order))
    return by_picture


def _point_orders(categories: Sequence[Any], path: Path) -> dict[Any, list[int]]:
    """Category of people -> index of each of COCO's points among its own; empty without categories."""
    people = [c for c in categories if c.get("keypoints")]
    people = people or [c for c in categories if c.get("name") == "person"]
    orders = {}
    for category in people:
        names = list(category.get("keypoints") or POINTS)
        if sorted(names) == sorted(POINTS):
            orders[category.get("id")] = [names.index(name) for name in POINTS]
    if categories and not orders:
        raise ValueError(f"{path} has no category of people with COCO's 17 points ({', '.join(POINTS)})")
    return orders


def _people(annotations: Iterable[Any], skipped: Counter[str]) -> Iterator[LabelledPerson]:
    for entry, order in annotations:
        xy = _points(entry, order, skipped)
        known = np.isfinite(xy).all(axis=1)
        box = _numbers(entry.get("bbox"), 4)
        if box is None and not known.any():
            skipped["person without box and points"] += 1
            continue
        if box is None:
            low, high = xy[known].min(axis=0), xy[known].max(axis=0)
            box = np.concatenate([low, high - low])
        area = _numbers([entry.get("area")], 1)
        crowd = bool(entry.get("iscrowd"))
        yield LabelledPerson(
            xy,
            box,
            float(_AREA_OF_BOX * box[2] * box[3] if area is None else area[0]),
            crowd,
            ignored=crowd or bool(entry.get("ignore")) or int(known.sum()) < LEAST_POINTS,
        )


def _points(entry: Any, order: Sequence[int], skipped: Counter[str]) -> np.ndarray:
    """(17, 2) points of an annotation, NaN where not labelled."""
    if not entry.get("keypoints"):  # a box alone
        return np.full((len(POINTS), 2), np.nan)
    values = _numbers(entry["keypoints"], 3 * len(POINTS))
    if values is None:
        skipped["keypoints are not 17 times x, y, v: the person is ignored"] += 1
        return np.full((len(POINTS), 2), np.nan)
    rows = values.reshape(-1, 3)[list(order)]
    return np.where(rows[:, 2:] > 0, rows[:, :2], np.nan)


def _numbers(value: Any, count: int) -> np.ndarray | None:
    """(count,) finite numbers; None if the value is anything else."""
    try:
        numbers = np.array(value, np.float64)
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _picture_roots(path: Path) -> list[Path]:
    """Folders that names of pictures may be relative to."""
    split = path.stem.removeprefix("person_keypoints_")
    names = ("", split, f"{split}2017", "images", f"images/{split}", f"images/{split}2017")
    above = [path.parent, path.parent.parent] if path.parent.name == "annotations" else [path.parent]
    return [folder / name for folder in above for name in names]


def _upright(people: list[LabelledPerson], path: Path, picture: dict[str, Any]) -> list[LabelledPerson]:
    """The people with points and boxes in the upright picture, as which it is read.

    Raises:
        ValueError: the picture cannot be read, or has another size than its annotations say.
    """
    raster = stored_raster(path)
    size = int(picture.get("height") or 0), int(picture.get("width") or 0)
    if not people or picture.get("upright") is True:  # as this package's own files say
        return people
    orientation = annotated_orientation(raster, size if all(size) else None)
    if orientation == 1:
        return people
    turned = []
    for person in people:
        # COCO's coordinates are indices of pixels; edges of boxes are edges of pixels
        xy = turn_points(person.xy + 0.5, orientation, raster.size) - 0.5
        if orientation in MIRRORED:
            xy = xy[[POINTS.index(_other_side(name)) for name in POINTS]]
        corners = np.stack([person.box[:2], person.box[:2] + person.box[2:]])
        corners = turn_points(corners, orientation, raster.size)
        low, high = corners.min(axis=0), corners.max(axis=0)
        box = np.concatenate([low, high - low])
        turned.append(LabelledPerson(xy, box, person.area, person.crowd, person.ignored))
    return turned


def _other_side(name: str) -> str:
    side, _, rest = name.partition("_")
    return f"{ {'left': 'right', 'right': 'left'}[side] }_{rest}" if rest else name


def _reason(error: Exception, path: Path) -> str:
    """Why a picture cannot be used, the same for all pictures of one kind."""
    if "annotations are for" in str(error):
        return "picture of another size than its annotations say"
    if "EXIF" in str(error):
        return "picture with an EXIF orientation and labels that do not tell which way up they are"
    return f"picture that cannot be read ({path.suffix or 'no suffix'})"
