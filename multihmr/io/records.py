"""Export to JSON, COCO annotations and objects of the supervision library."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..humans import Humans, rotmat_to_rotvec
from ..humans.fields import REFINED
from ..world.placement import AXES, InWorld

JSON_FORMAT = "multihmr-humans-json-1"
WORLD_JSON_FORMAT = "multihmr-world-json-1"
PIXELS = "x right, y down, centre of the first (0.5, 0.5)"
FRAME = f"camera: x right, y down, z forward; pixels: {PIXELS}"


def humans_to_dicts(humans: Humans) -> list[dict[str, np.ndarray]]:
    """One dict of arrays per person, with the keys of the first Multi-HMR release; see `Humans.to_dicts`."""
    columns = {
        "scores": humans.scores,
        "loc": humans.project(humans.translation),
        "transl": humans.translation,
        "transl_pelvis": humans.pelvis,
        "rotvec": rotmat_to_rotvec(humans.pose),
        "expression": humans.expression,
        "shape": humans.shape,
        "v3d": humans.vertices,
        "j3d": humans.joints,
        "j2d": humans.joints_2d,
    }
    return [{key: value[i] for key, value in columns.items()} for i in range(len(humans))]


def humans_to_json(humans: Humans) -> bytes:
    """Scores, places, named joints and keypoints of one picture."""
    return json_text(record_of(humans))


def record_of(humans: Humans) -> dict[str, Any]:
    """What `humans_to_json` writes."""
    height, width = humans.image_size
    return {
        "format": JSON_FORMAT,
        "units": "metres and pixels",
        "frame": FRAME,
        "image": {"width": width, "height": height},
        "camera": camera_record(humans),
        "body": humans.body,
        "unpredicted": list(humans.unpredicted),
        "people": [person_record(person) for person in humans],
    }


def json_text(content: dict[str, Any]) -> bytes:
    """JSON with each list of numbers on a line of its own."""
    text = json.dumps(content, indent=1, allow_nan=False)
    on_one_line = re.sub(r"\[\s+([-+.,\de\s]+?)\s+\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    return on_one_line.encode()


def world_to_json(world: InWorld) -> bytes:
    """The record of `humans_to_json` with places, joints and orientations of the world."""
    record = record_of(world.humans)
    metres = world.unit == "m"
    for i, person in enumerate(record["people"]):
        _move_person(person, world, i)
    first = {
        "format": WORLD_JSON_FORMAT,
        "units": f"{'metres' if metres else 'centimetres'} and pixels",
        "frame": f"world: {AXES[world.name]}, the floor at 0 below the camera; pixels: {PIXELS}",
        "world": {
            "axes": world.name,
            "camera_to_world": np.round(world.camera_to_world.astype(float), 6).tolist(),
            "ground": world.ground.to_dict(),
        },
    }
    return json_text(first | {key: value for key, value in record.items() if key not in first})


def _move_person(person: dict[str, Any], world: InWorld, i: int) -> None:
    def moved(point: Any) -> Any:
        return np.round(world.from_camera(np.asarray(point)).astype(float), 4).tolist()

    scale = 1 if world.unit == "m" else 100
    person["translation"], person["pelvis"] = moved(person["translation"]), moved(person["pelvis"])
    person["distance"] = round(person["distance"] * scale, 4)
    rotation = world.camera_to_world[:3, :3] / scale
    if np.linalg.det(rotation) > 0:
        turned = rotmat_to_rotvec((rotation @ world.humans.pose[i, 0]).astype(np.float32))
        person["orientation"] = np.round(turned.astype(float), 5).tolist()
    else:  # a mirror image of the person, which no rotation gives
        del person["orientation"]
    for points in (person["joints"], person.get("coco17", {})):
        for point in points.values():
            point["xyz"] = moved(point["xyz"])
    person["height_m"] = round(float(world.height_m[i]), 4)
    over = float(world.over_floor[i])
    person["over_floor_m"] = round(over, 4) if np.isfinite(over) else None


def camera_record(humans: Humans) -> dict[str, Any]:
    """K, where it is from, and the distortion of the lens if there is one."""
    camera: dict[str, Any] = {"K": _rounded(humans.K, 3), "source": humans.K_source}
    return camera if humans.distortion is None else camera | {"distortion": humans.distortion.to_json()}


def person_record(human: Humans) -> dict[str, Any]:
    """Score, places, parameters and joints of one person, by name."""
    topology = human.topology
    person: dict[str, Any] = {
        "score": _rounded(human.scores[0], 4),
        "track_id": None if human.track_ids is None else int(human.track_ids[0]),
        "refined": None
        if human.refined is None
        else dict(zip(REFINED, human.refined[0].tolist(), strict=True)),
        "box": _rounded(human.boxes[0], 2),
        "translation": _rounded(human.translation[0], 4),
        "pelvis": _rounded(human.pelvis[0], 4),
        "distance": _rounded(human.distances[0], 4),
        "orientation": _rounded(rotmat_to_rotvec(human.pose[0, 0]), 5),
        "shape": _by_name(topology.shape_names, _rounded(human.shape[0], 4)),
        "expression": _by_name(topology.expression_names, _rounded(human.expression[0], 4)),
        "joints": _points(topology.joint_names, human.joints[0], human.joints_2d[0]),
    }
    converted = getattr(human, "converted_from", "")
    if converted:
        person["converted"] = {"from": converted, "error_mm": _rounded(human.errors_mm[0], 2)}  # type: ignore[attr-defined]
    if "coco17" in topology.keypoint_sets:
        keypoints = human.keypoints("coco17")
        person["coco17"] = _points(keypoints.names, keypoints.xyz[0], keypoints.xy[0])
    return person


def _points(names: tuple[str, ...], xyz: np.ndarray, xy: np.ndarray) -> dict[str, Any]:
    rows = zip(_rounded(xyz, 4), _rounded(xy, 2), strict=True)
    return _by_name(names, [{"xyz": point, "xy": pixel} for point, pixel in rows])


def _by_name(names: tuple[str, ...], values: list[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _rounded(array: Any, digits: int) -> Any:
    return np.round(np.asarray(array, np.float64), digits).tolist()


def humans_to_coco(pictures: Mapping[str, Humans]) -> bytes:
    """Boxes and keypoints of the people of several pictures, by file name, as COCO annotations.

    Lin et al. 2014, https://cocodataset.org/#format-data. Coordinates of keypoints are numbers of pixels, so
    the centre of the first is (0, 0) there; boxes are x, y, width, height. A point outside of the picture is
    not labelled (v = 0), one inside is (v = 2), whether hidden or not. COCO has no cameras: each image gets
    the record of `humans_to_json` as "camera", in pixels whose first has its centre at (0.5, 0.5). "upright":
    coordinates are those of the picture turned as its EXIF orientation says.
    ValueError if the body has no such points.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    category: dict[str, Any] = {"id": 1, "name": "person", "supercategory": "person"}
    for number, (name, humans) in enumerate(pictures.items(), start=1):
        height, width = humans.image_size
        camera = camera_record(humans) | {"pixels": PIXELS}
        image = {"id": number, "file_name": name, "height": height, "width": width}
        images.append(image | {"upright": True, "camera": camera})
        keypoints = humans.keypoints("coco17")
        has_meshes = len(humans.topology.faces) > 0
        masks = humans.masks() if has_meshes else np.zeros(0)
        category |= {"keypoints": keypoints.names, "skeleton": [[a + 1, b + 1] for a, b in keypoints.edges]}
        for i in range(len(humans)):
            person = _coco_person(humans[i], keypoints.xy[i], masks[i] if has_meshes else None)
            annotations.append({"id": len(annotations) + 1, "image_id": number, **person})
    content = {"images": images, "annotations": annotations, "categories": [category]}
    return json.dumps(content, allow_nan=False).encode()


def _coco_person(human: Humans, xy: np.ndarray, mask: np.ndarray | None) -> dict[str, Any]:
    height, width = human.image_size
    inside = np.all((xy >= 0) & (xy < [width, height]), axis=1)
    points = np.where(inside[:, None], np.concatenate([xy - 0.5, np.full((len(xy), 1), 2)], 1), 0)
    x0, y0, x1, y1 = human.boxes[0].astype(float)
    person: dict[str, Any] = {
        "category_id": 1,
        "iscrowd": 0,
        "bbox": _rounded([x0, y0, x1 - x0, y1 - y0], 2),
        "area": _rounded((x1 - x0) * (y1 - y0), 2),
        "keypoints": _rounded(points.reshape(-1), 2),
        "num_keypoints": int(inside.sum()),
        "score": _rounded(human.scores[0], 4),
    }
    if mask is not None:
        person |= {"segmentation": mask_to_rle(mask), "area": int(mask.sum())}
    return person if human.track_ids is None else {**person, "track_id": int(human.track_ids[0])}


def mask_to_rle(mask: np.ndarray) -> dict[str, Any]:
    """(H, W) bool as COCO's compressed run lengths: {"size": [H, W], "counts": text}, for pycocotools.

    Runs go down the columns and begin with pixels outside; from the third on, the difference to the run two
    before is stored, 5 bits per character, the lowest first (cocoapi, common/maskApi.c, rleToString).
    """
    flat = np.asarray(mask, bool).T.reshape(-1)
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff([0, *ends.tolist(), flat.size]).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)
    text = []
    for i, run in enumerate(runs):
        number = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            bits = number & 0x1F
            number >>= 5
            more = number != (-1 if bits & 0x10 else 0)
            text.append(chr(48 + bits + (0x20 if more else 0)))
    return {"size": list(mask.shape), "counts": "".join(text)}


def humans_to_supervision(
    humans: Humans, keypoints: str = "coco17", *, masks: bool = True
) -> tuple[Any, Any]:
    """(Detections, KeyPoints) of https://supervision.roboflow.com; see `Humans.to_supervision`."""
    try:
        import supervision
    except ImportError as error:
        raise ImportError("to_supervision needs supervision: pip install 'multihmr[supervision]'") from error
    count, points = len(humans), humans.keypoints(keypoints)
    height, width = humans.image_size
    classes = np.zeros(count, int)
    detections = supervision.Detections(
        xyxy=humans.boxes.copy(),
        mask=humans.masks() if masks and count else None,
        confidence=humans.scores.copy(),
        class_id=classes,
        tracker_id=humans.track_ids,
        data={"class_name": np.full(count, "person"), "distance": humans.distances},
    )
    skeletons = supervision.KeyPoints(
        xy=points.xy.copy(),
        class_id=classes,
        detection_confidence=humans.scores.copy(),
        visible=np.all((points.xy >= 0) & (points.xy < [width, height]), axis=-1),
    )
    return detections, skeletons
