"""Calibrated cameras from files: JSON, OpenCV's YAML and JSON, TOML of Pose2Sim and anipose.

A camera is whatever holds a camera matrix, under the names that calibration programs give it; a file holds
one or several. Pixels in files are OpenCV's (the centre of the first one is (0, 0)); `read_cameras` moves
principal points by half a pixel.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..humans.distortion import Distortion
from ..humans.rotations import rotvec_to_rotmat
from .distortion import opencv_intrinsics

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
FARTHEST = 200.0  # metres between two cameras; more is another unit
_K = ("K", "camera_matrix", "cameraMatrix", "intrinsics", "intrinsic", "matrix", "M", "mtx")
_DISTORTION = ("distortion", "distortion_coefficients", "distCoeffs", "distortions", "distCoef", "dist", "D")
_EXTRINSICS = ("extrinsics", "extrinsic", "RT", "world_to_camera")
_R = ("R", "rotation_matrix", "rotation", "Rot", "rvec")
_T = ("t", "T", "translation", "tvec")
_SIZE = ("image_size", "resolution", "imgSize", "size")
_SAME_SHAPE = 0.01  # by which the two scales of an image and its calibration may differ


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera.

    Attributes:
        name: of the camera.
        K: (3, 3) intrinsics in pixels of this package.
        extrinsics: (3, 4) from the world into the camera [m].
        distortion: of its lens, or None.
        size: (height, width) of the images that it was calibrated with, or None.
    """

    name: str
    K: np.ndarray
    extrinsics: np.ndarray
    distortion: Distortion | None = None
    size: tuple[int, int] | None = None

    def for_image(self, height: int, width: int) -> Camera:
        """The camera of an image of another resolution.

        Raises:
            ValueError: the image has another shape than those of the calibration.
        """
        if self.size is None or self.size == (height, width):
            return self
        y, x = height / self.size[0], width / self.size[1]
        if abs(x / y - 1) > _SAME_SHAPE:
            raise ValueError(
                f"camera {self.name} was calibrated with images of {self.size[1]}x{self.size[0]}, "
                f"got one of {width}x{height}"
            )
        return dataclasses.replace(self, K=np.diag([x, y, 1.0]) @ self.K, size=(height, width))


def read_cameras(paths: Iterable[str | Path], *, unit: str = "m") -> list[Camera]:
    """The cameras of one or several calibration files, in their order.

    Args:
        paths: .json, .yml, .yaml or .toml files.
        unit: of translations: "m", "cm" or "mm".

    Raises:
        ValueError: a file cannot be read, holds no camera, or a camera lacks its place or cannot be one.
        FileNotFoundError: there is no such file.
    """
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
    entries: dict[str, dict[str, Any]] = {}
    for path in map(Path, paths):
        for name, entry in _entries(_read(path), path.stem).items():  # intrinsics and places may be two files
            entries[name] = entries.get(name, {}) | entry
    cameras = [_camera(name, entry, UNITS[unit]) for name, entry in entries.items()]
    if not cameras:
        raise ValueError(
            f"no camera in {', '.join(map(str, paths))}: expected a camera matrix K, R and t each"
        )
    centers = np.array([-camera.extrinsics[:, :3].T @ camera.extrinsics[:, 3] for camera in cameras])
    spread = float(np.linalg.norm(centers[:, None] - centers[None], axis=-1).max())
    if spread > FARTHEST:
        raise ValueError(f"cameras are {spread:.0f} m apart: their unit may be mm or cm (unit, now {unit!r})")
    return cameras


def choose_cameras(cameras: Sequence[Camera], names: Sequence[str]) -> list[Camera]:
    """The camera of each view: by its name where all views have a camera of their name, else by the order.

    Raises:
        ValueError: there are not as many cameras as views.
    """
    by_name = {camera.name: camera for camera in cameras}
    if len(set(names)) == len(names) and set(names) <= set(by_name):
        return [by_name[name] for name in names]
    if len(cameras) != len(names):
        raise ValueError(
            f"views: {', '.join(names)}; cameras: {', '.join(by_name)}: give as many of both, or name the "
            "views as the cameras"
        )
    return list(cameras)


def _read(path: Path) -> Any:
    """The content of a file as dicts and lists."""
    suffix = path.suffix.lower()
    if suffix not in (".json", ".yml", ".yaml", ".toml"):
        raise ValueError(f"{path}: calibrations are read from .json, .yml, .yaml and .toml files")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if suffix == ".json":
            return json.loads(text)
        if suffix in (".yml", ".yaml"):
            return _yaml(text)
        if sys.version_info < (3, 11):
            raise ImportError("reading .toml needs Python 3.11; save the calibration as JSON")
        import tomllib

        return tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is no {suffix[1:]} file: {' '.join(str(error).split())}") from error


def _yaml(text: str) -> Any:
    """YAML, also as OpenCV's FileStorage writes it."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads OpenCV's tags as what they are on."""

    Loader.add_multi_constructor(
        "tag:yaml.org,2002:opencv",
        lambda loader, _, node: (
            loader.construct_mapping(node, deep=True)
            if isinstance(node, yaml.MappingNode)
            else loader.construct_sequence(node, deep=True)
        ),
    )
    if text.startswith("%YAML:"):  # a directive that YAML does not know
        text = text.partition("\n")[2]
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _entries(content: Any, stem: str) -> dict[str, dict[str, Any]]:
    """What a file says of each camera, by its name."""
    if isinstance(content, Mapping) and isinstance(content.get("cameras"), (list, Mapping)):
        content = content["cameras"]
    if isinstance(content, list):
        content = {str(e.get("name", i + 1)): e for i, e in enumerate(content) if isinstance(e, Mapping)}
    if not isinstance(content, Mapping):
        return {}
    if _find(content, _K) is not None:
        return {str(content.get("name", stem)): dict(content)}
    found = {
        str(entry.get("name", name)): dict(entry)
        for name, entry in content.items()
        if isinstance(entry, Mapping) and (_find(entry, _K) or _find(entry, _R)) is not None
    }
    return found or _by_suffix(content)


def _by_suffix(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Keys such as K_left, dist_left, R_left and T_left, as EasyMocap has them."""
    entries: dict[str, dict[str, Any]] = {}
    for key, value in content.items():
        field, _, name = key.partition("_")
        if name and field in (*_K, *_DISTORTION, *_R, *_T):
            entries.setdefault(name, {})[field] = value
    return entries


def _find(entry: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((entry[name] for name in names if entry.get(name) is not None), None)


def _camera(name: str, entry: Mapping[str, Any], scale: float) -> Camera:
    K = _array(_find(entry, _K), f"K of camera {name}")
    if K.size == 4:
        K = np.array([[K.flat[0], 0, K.flat[2]], [0, K.flat[1], K.flat[3]], [0, 0, 1]])
    if K.size != 9:
        raise ValueError(f"K of camera {name} must be (3, 3), got {K.size} numbers")
    lens = _find(entry, _DISTORTION)
    size = _array(_find(entry, _SIZE), f"image_size of camera {name}") if _find(entry, _SIZE) else None
    if size is None and entry.get("image_width") and entry.get("image_height"):
        size = np.array([entry["image_width"], entry["image_height"]], float)
    return Camera(
        name,
        opencv_intrinsics(K.reshape(3, 3)),
        _extrinsics(name, entry, scale),
        None if lens is None else _lens(lens, bool(entry.get("fisheye")), name),
        None if size is None else (int(size.flat[1]), int(size.flat[0])),
    )


def _lens(value: Any, fisheye: bool, name: str) -> Distortion | None:
    numbers = _array(value, f"distortion of camera {name}").ravel()
    if not numbers.any():
        return None
    return Distortion.of_fisheye(numbers) if fisheye else Distortion.of(numbers)


def _extrinsics(name: str, entry: Mapping[str, Any], scale: float) -> np.ndarray:
    """(3, 4) from the world into the camera [m]."""
    whole, turn, shift = (_find(entry, names) for names in (_EXTRINSICS, _R, _T))
    if whole is not None:
        numbers = _array(whole, f"extrinsics of camera {name}")
        if numbers.size not in (12, 16):
            raise ValueError(
                f"extrinsics of camera {name} must be (3, 4) or (4, 4), got {numbers.size} numbers"
            )
        R, t = numbers.reshape(-1, 4)[:3, :3], numbers.reshape(-1, 4)[:3, 3]
    elif turn is None or shift is None:
        raise ValueError(f"camera {name} has no place: give R and t, or extrinsics, from world to camera")
    else:
        rotation = entry["Rot"] if entry.get("Rot") is not None else turn
        R = _array(rotation, f"R of camera {name}")
        t = _array(shift, f"t of camera {name}").ravel()
        R = rotvec_to_rotmat(R.ravel()) if R.size == 3 else R
        if R.size != 9 or t.size != 3:
            raise ValueError(f"camera {name}: R must have 9 or 3 numbers and t 3, got {R.size} and {t.size}")
        R = R.reshape(3, 3)
    if np.abs(R @ R.T - np.eye(3)).max() > 1e-3 or np.linalg.det(R) < 0:
        raise ValueError(f"R of camera {name} is no rotation")
    return np.concatenate([R, scale * t[:, None]], 1)


def _array(value: Any, name: str) -> np.ndarray:
    """Numbers, from lists or from OpenCV's matrices."""
    if isinstance(value, Mapping) and "data" in value:
        value = value["data"]
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers, got {str(value)[:60]}")
    return array
