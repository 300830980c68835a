"""MuPoTs-3D (Mehta et al. 2018): 20 sequences in- and outdoors with 2 or 3 people, a test set of 17 joints.

Where        https://vcai.mpi-inf.mpg.de/projects/SingleShotMultiPerson/, MuPoTS-3D: MultiPersonTestSet.zip
Licence      non-commercial research; no registration
Files        MultiPersonTestSet/TS1 ... TS20, each with img_000000.jpg ..., annot.mat and occlusion.mat
Format       MATLAB 5, read through scipy. `annotations` is a cell array (frames, people) of structs: annot2
             (2, 17) pixels; annot3 (3, 17) camera frame [mm]; univ_annot3 (3, 17), the same person scaled to
             the height that all people of the set have in common; isValidFrame. `occlusion_labels` is a cell
             array of the same size of (1, 17), 1 for an occluded joint. Joints are "mupots17", the pelvis is
             number 14.
Camera       is not given; K is fitted to annot2 and annot3 of each sequence.

Published 3DPCK is measured against univ_annot3: the split "test-universal" gives it as keypoints_3d.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..cameras import NEAREST, fit_intrinsics
from ..dataset import DatasetInfo, PoseDataset
from ..index import Fields, Record

PELVIS = 14
_LOOSE = 5.0  # [pixels] largest median error of a fitted camera

log = logging.getLogger("multihmr")


class MuPoTS(PoseDataset):
    """MuPoTs-3D: joints of all annotated people; `visibility` is the share of unoccluded joints."""

    about = DatasetInfo(
        name="mupots",
        title="MuPoTs-3D",
        licence="non-commercial research",
        register="https://vcai.mpi-inf.mpg.de/projects/SingleShotMultiPerson/",
        files=("MultiPersonTestSet.zip",),
        tree="MultiPersonTestSet/ (the root)\n  TS1/img_000000.jpg ...\n  TS1/annot.mat\n"
        "  TS1/occlusion.mat\n  ... TS20/",
        size="about 8,000 pictures of 2 to 4 megapixels, a few GB",
        citation="Mehta et al., Single-Shot Multi-Person 3D Pose Estimation From Monocular RGB, 3DV 2018",
    )
    splits = ("test", "test-universal")
    needed: ClassVar[dict[str, str]] = {
        "TS*/annot.mat": "unpack MultiPersonTestSet.zip and give the folder that holds TS1 to TS20",
        "TS*/occlusion.mat": "it comes in MultiPersonTestSet.zip",
        "TS*/img_*.jpg": "it comes in MultiPersonTestSet.zip",
    }
    people_fields: ClassVar[Fields] = {
        "keypoints_3d": ("f4", 17, 3),
        "keypoints_2d": ("f4", 17, 2),
        "visibility": ("f4",),
    }
    required = ("keypoints_3d",)
    keypoint_set = "mupots17"

    def annotation_files(self) -> Sequence[Path]:
        return sorted(self.root.glob("TS*/annot.mat"), key=lambda path: (len(path.parent.name), path))

    def scan(self, path: Path) -> Iterator[Record]:
        sequence = path.parent.name
        valid, pixels, points, universal = _annotations(path)
        hidden = _occlusion(path.with_name("occlusion.mat"), valid.shape)
        K = self._camera(path, points[valid], pixels[valid])
        for frame, who in enumerate(valid):
            if not who.any():
                self.skipped["pictures without annotated people"] += 1
                continue
            people = {
                "keypoints_3d": (universal if self.split == "test-universal" else points)[frame, who],
                "keypoints_2d": pixels[frame, who],
                "visibility": 1 - hidden[frame, who].mean(-1),
            }
            yield Record(f"{sequence}/{frame:06d}", f"{sequence}/img_{frame:06d}.jpg", people, {"K": K})

    def unusable(self, record: Record) -> Mapping[str, np.ndarray]:
        behind = record.people["keypoints_3d"][:, PELVIS, 2] < NEAREST
        return {**super().unusable(record), "people behind the camera": behind}

    def _camera(self, path: Path, points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """K (3, 3); NaN, with a warning, if no camera fits the annotations."""
        K, error = fit_intrinsics(points.reshape(-1, 3), pixels.reshape(-1, 2))
        if error < _LOOSE:
            return K
        log.warning("%s: no camera projects annot3 to annot2 (error %.0f pixels); K is unknown", path, error)
        return np.full((3, 3), np.nan)


def _annotations(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """valid (F, P) bool, pixels (F, P, 17, 2), points and universal points (F, P, 17, 3) [m]."""
    cells = _read_mat(path, "annotations")
    valid = np.array([[bool(_field(cell, "isValidFrame", (1, 1))) for cell in row] for row in cells])
    arrays = []
    for key, rows in (("annot2", 2), ("annot3", 3), ("univ_annot3", 3)):
        array = np.full((*valid.shape, 17, rows), np.nan)  # arbitrary for people without labels
        for place in np.argwhere(valid):
            array[tuple(place)] = _field(cells[tuple(place)], key, (rows, 17)).T
        arrays.append(array)
    pixels, points, universal = arrays
    return valid, pixels, points / 1000, universal / 1000


def _occlusion(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """(F, P, 17), 1 for occluded joints."""
    cells = _read_mat(path, "occlusion_labels")
    if cells.shape != shape:
        raise ValueError(f"{path} is for {cells.shape} frames and people, annot.mat for {shape}")
    return np.array([[np.reshape(cell, 17) for cell in row] for row in cells], np.float64)


def _field(cell: np.ndarray, key: str, shape: tuple[int, int]) -> np.ndarray:
    value = cell[key][0, 0]
    if value.shape != shape:
        raise ValueError(f"{key} must be {shape}, got {value.shape}")
    return value


def _read_mat(path: Path, key: str) -> Any:
    """The (F, P) cell array of that name."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError("MuPoTs-3D comes in MATLAB files: pip install scipy") from error
    try:
        return loadmat(path, variable_names=[key])[key]
    except KeyError:
        raise
    except Exception as error:  # scipy raises anything on a truncated file
        raise ValueError(f"{path} is not a complete MATLAB 5 file ({error})") from error
