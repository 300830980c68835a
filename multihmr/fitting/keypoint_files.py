"""Keypoints in files of COCO, COCO-WholeBody and OpenPose; what cannot be used is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from multihmr.bodies.keypoint_sets import keypoint_names
from multihmr.fitting.point_sets import FACE_NAMES
from multihmr.humans.distortion import Distortion
from multihmr.humans.fields import K_SOURCES

_HAND = [f"{finger}{k}" for finger in ("thumb", "index", "middle", "ring", "pinky") for k in range(1, 5)]
HAND_NAMES = {
    side: [f"{side}_hand_root", *(f"{side}_{name}" for name in _HAND)] for side in ("left", "right")
}
# OpenPose's older body of 18 points, "COCO" in its options.
_OPENPOSE18 = (
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip "
    "right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear"
)
FEWEST = 6  # points of a person; with less no pose can be told
OCCLUDED = 0.5  # confidence of points that COCO labels though they are hidden


@dataclass(frozen=True)
class FileCamera:
    """Camera of a picture in a file of keypoints: K (3, 3) in pixels as in Humans, and the lens.

    source: where K came from, as `Humans.K_source`; "given" where the file does not say.
    """

    K: np.ndarray
    source: str = "given"
    distortion: Distortion | None = None


@dataclass(frozen=True)
class PictureKeypoints:
    """People of one picture: xy (N, M, 2) in pixels as in Humans, confidence (N, M), the M names.

    size: (height, width) of the picture, if the file says so.
    camera: of the picture, if the file has one.
    upright: whether the file says that all this is of the picture turned as its EXIF orientation says.
    """

    picture: str
    names: tuple[str, ...]
    xy: np.ndarray
    confidence: np.ndarray
    size: tuple[int, int] | None = None
    camera: FileCamera | None = None
    upright: bool = False


@dataclass(frozen=True)
class KeypointFile:
    """All people of a file or folder by picture, and how many entries are left out, by reason."""

    pictures: tuple[PictureKeypoints, ...]
    skipped: Counter[str]


def read_keypoints(path: Path | str, *, least: float = 0.1) -> KeypointFile:
    """The people in a file of COCO (annotations or results) or of OpenPose, or in a folder of such files.

    Of a folder its *_keypoints.json are read, as OpenPose writes them, or else its *.coco.json.

    least: confidence from which on a point counts.

    An entry of COCO's 'images' may have a "camera": {"K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]} in pixels
    whose first has its centre at (0.5, 0.5), and of a lens "distortion": {"model": "opencv", "coefficients":
    [k1, k2, p1, p2, k3]}, as `Humans.save("x.coco.json")` writes it.

    Raises:
        FileNotFoundError: there is no such file; ValueError: it is in neither format.
    """
    path = Path(path)
    skipped: Counter[str] = Counter()
    if path.is_dir():
        people = list(_of_folder(path, skipped))
    else:
        content = _load(path)
        if isinstance(content, dict) and str(content.get("format")).startswith("multihmr-"):
            raise ValueError(
                f"{path} was written by multihmr and holds people who have meshes already; their "
                "keypoints alone are in .coco.json files (--format coco.json)"
            )
        if isinstance(content, dict) and "people" in content:
            people = [_of_openpose(content, path, skipped)]
        else:
            people = list(_of_coco(content, path, skipped))
    pictures = []
    for one in people:
        confidence = np.where(one.confidence >= least, one.confidence, 0)
        kept = (confidence > 0).sum(1) >= FEWEST
        skipped[f"people with less than {FEWEST} points"] += int((~kept).sum())
        if kept.any():
            pictures.append(replace(one, xy=one.xy[kept], confidence=confidence[kept]))
    return KeypointFile(tuple(pictures), +skipped)


def _of_folder(folder: Path, skipped: Counter[str]) -> Iterable[PictureKeypoints]:
    files = sorted(folder.glob("*_keypoints.json"))
    if files:
        return [_of_openpose(_load(file), file, skipped) for file in files]
    files = sorted(folder.rglob("*.coco.json"))  # subfolders are those of the pictures
    if not files:
        raise FileNotFoundError(
            f"{folder} has neither files of OpenPose (*_keypoints.json) nor *.coco.json; give the file "
            "itself if it has another name"
        )
    found: list[PictureKeypoints] = []
    for file in files:
        below = file.parent.relative_to(folder)
        for picture in _of_coco(_load(file), file, skipped):
            found.append(replace(picture, picture=(below / picture.picture).as_posix()))
    return found


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no readable JSON file: it holds no text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no readable JSON file: {error}") from None


# --- OpenPose -------------------------------------------------------------------------------------------


def _of_openpose(content: Any, path: Path, skipped: Counter[str]) -> PictureKeypoints:
    """Body of 25 or 18 points, hands, and 68 of the face's 70: the pupils, its last two, are left out."""
    found = []
    entries = content.get("people") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f"{path} is no file of OpenPose: it has no list of 'people'")
    for entry in entries:
        try:
            found.append(_openpose_person(entry))
        except (TypeError, ValueError, KeyError, AttributeError):
            skipped["entries with broken keypoints"] += 1
    return _gather(path.name.removesuffix(".json").removesuffix("_keypoints"), found)


def _openpose_person(entry: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    body = _triples(entry["pose_keypoints_2d"])
    names = {25: list(keypoint_names("openpose25")), 18: _OPENPOSE18.split()}.get(len(body))
    if names is None:
        raise ValueError(f"{len(body)} points")
    person = dict(zip(names, body.tolist(), strict=True))
    for side in ("left", "right"):
        hand = _triples(entry.get(f"hand_{side}_keypoints_2d") or [])
        if len(hand) == len(HAND_NAMES[side]):
            person |= dict(zip(HAND_NAMES[side], hand.tolist(), strict=True))
    face = _triples(entry.get("face_keypoints_2d") or [])
    if len(face) in (len(FACE_NAMES), len(FACE_NAMES) + 2):
        person |= dict(zip(FACE_NAMES, face.tolist(), strict=False))
    return {name: (x, y, c) for name, (x, y, c) in person.items()}


# --- COCO -----------------------------------------------------------------------------------------------


def _of_coco(content: Any, path: Path, skipped: Counter[str]) -> Iterable[PictureKeypoints]:
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ValueError(
            f"{path} holds keypoints in no known format: COCO has 'annotations', OpenPose 'people'"
        )
    table = content.get("images", []) if isinstance(content, dict) else []
    try:
        files = {_key(picture["id"]): str(picture["file_name"]) for picture in table}
        sizes = {
            str(p["file_name"]): (int(p["height"]), int(p["width"]))
            for p in table
            if p.get("height") and p.get("width")
        }
    except (TypeError, ValueError, KeyError, AttributeError):
        raise ValueError(f"{path} has an entry of 'images' without id and file_name") from None
    cameras = {str(p["file_name"]): _camera(p["camera"], path, p) for p in table if _has_camera(p)}
    upright = {str(p["file_name"]) for p in table if p.get("upright") is True}
    orders = _orders(content.get("categories") if isinstance(content, dict) else None)
    by_picture: dict[str, list[dict[str, tuple[float, float, float]]]] = {}
    for entry in entries:
        try:
            reason = _unusable(entry, files, results=isinstance(content, list))
            if reason:
                skipped[reason] += 1
                continue
            names = orders.get(entry.get("category_id"), keypoint_names("coco17"))
            if names is None and len(_triples(entry["keypoints"])) == 17:
                skipped["people with other points than COCO's"] += 1
                continue
            picture = files.get(_key(entry["image_id"]), _key(entry["image_id"]))
            by_picture.setdefault(picture, []).append(_coco_person(entry, names))
        except (TypeError, ValueError, KeyError, AttributeError):
            skipped["entries with broken keypoints"] += 1
    return [
        replace(
            _gather(picture, p),
            size=sizes.get(picture),
            camera=cameras.get(picture),
            upright=picture in upright,
        )
        for picture, p in by_picture.items()
    ]


def _has_camera(picture: Mapping[str, Any]) -> bool:
    """Of others "camera" may be anything, such as the name of one."""
    camera = picture.get("camera")
    return isinstance(camera, dict) and "K" in camera


def _camera(stored: Any, path: Path, picture: Mapping[str, Any]) -> FileCamera:
    """ValueError if it is no camera: it would be worse to leave out what the file says of it."""
    try:
        K = np.asarray(stored["K"], np.float64)
        if K.shape != (3, 3) or not np.isfinite(K).all():
            raise ValueError(f"K must be (3, 3) finite numbers, got {stored['K']!r}")
        lens = stored.get("distortion")
        source = stored.get("source") if stored.get("source") in K_SOURCES else "given"
        return FileCamera(K, source, None if lens is None else Distortion.from_json(lens))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has no readable camera of {picture['file_name']}: {error}") from None


def _key(number: Any) -> str:
    """The id of a picture as text: 7, 7.0 and "7" are one."""
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)


def _orders(categories: Any) -> dict[Any, tuple[str, ...] | None]:
    """Category -> the names of its 17 points if they are COCO's, in its own order, which may be another."""
    known = keypoint_names("coco17")
    found: dict[Any, tuple[str, ...] | None] = {}
    for category in categories if isinstance(categories, list) else ():
        names = category.get("keypoints") if isinstance(category, dict) else None
        if names:
            tidy = tuple(str(name).strip().lower().replace(" ", "_").replace("-", "_") for name in names)
            found[category.get("id")] = tidy if sorted(tidy) == sorted(known) else None
    return found


def _unusable(entry: Mapping[str, Any], files: Mapping[Any, str], *, results: bool) -> str | None:
    """Why an annotation is left out."""
    if entry.get("iscrowd"):
        return "crowds"
    if not entry.get("keypoints") or not np.any(_triples(entry["keypoints"])):
        return "people without keypoints"
    if not results and _key(entry["image_id"]) not in files:
        return "annotations of pictures that the file does not list"
    return None


def _coco_person(
    entry: Mapping[str, Any], order: tuple[str, ...] | None
) -> dict[str, tuple[float, float, float]]:
    """x, y, confidence by name; visibility flags 0, 1, 2 become confidences. order: names of 17 points."""
    rows = _triples(entry["keypoints"])
    names = {17: order, 133: keypoint_names("coco133")}.get(len(rows))
    if names is None:
        raise ValueError(f"{len(rows)} points")
    parts = [(list(names), rows)]
    whole = keypoint_names("coco133")
    slices = {"foot": (17, 23), "face": (23, 91), "lefthand": (91, 112), "righthand": (112, 133)}
    for part, (start, end) in slices.items():
        if len(rows) == 17 and entry.get(f"{part}_kpts") and entry.get(f"{part}_valid", True):
            parts.append((list(whole[start:end]), _triples(entry[f"{part}_kpts"])))
    person: dict[str, Any] = {}
    for part_names, points in parts:
        flags = np.isin(points[:, 2], (0, 1, 2)).all() and (points[:, 2] == 2).any()
        confidence = np.select([points[:, 2] >= 2, points[:, 2] >= 1], [1.0, OCCLUDED], 0.0)
        points[:, 2] = confidence if flags else points[:, 2].clip(0, 1)
        points[:, :2] += 0.5  # COCO counts pixels; the centre of the first is (0.5, 0.5) here
        person |= dict(zip(part_names, map(tuple, points.tolist()), strict=True))
    return person


# --- both -----------------------------------------------------------------------------------------------


def _triples(values: Any) -> np.ndarray:
    """(M, 3) of 3 M numbers, flat or as triples; a point without a number (null, NaN) is not labelled.

    ValueError for another count, or a labelled point that is not finite.
    """
    array = np.asarray(values, np.float64)
    if array.size % 3 or not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 3)):
        raise ValueError("no triples")
    rows = array.reshape(-1, 3).copy()
    rows[np.isnan(rows).any(1)] = 0
    if not np.isfinite(rows).all():
        raise ValueError("points that are not finite")
    return rows


def _gather(picture: str, people: list[dict[str, tuple[float, float, float]]]) -> PictureKeypoints:
    """People with the points that any of them has; those that one lacks have the confidence 0."""
    names = tuple(dict.fromkeys(name for person in people for name in person))
    table = np.array([[person.get(name, (0, 0, 0)) for name in names] for person in people], np.float64)
    table = table.reshape(len(people), len(names), 3)
    return PictureKeypoints(picture, names, table[..., :2], table[..., 2])
