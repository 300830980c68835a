"""EHF (Pavlakos et al. 2019): 100 pictures of one man, with the vertices of SMPL-X fitted to his scans.

Where        https://smpl-x.is.tue.mpg.de (register, then "EHF" on the page of downloads)
Licence      non-commercial scientific research
Files        EHF.zip
Format       01_img.jpg (1600x1200, 01_img.png in some copies), 01_align.ply: 10475 vertices of SMPL-X in
             the frame of the scanner [m], ... to 100. One camera for all; its numbers stand in
             EHF_camera.txt of the archive and below. Not read: 01_scan.obj, 01_2Djnt.json (detections of
             OpenPose, no truth).
Splits       "test"

The mesh is published, not its parameters. So a sample has no parameters (R = 0): its ground truth is
keypoints_3d (1, 10475, 3) of the set "smplx-vertices", all vertices in the camera frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...bodies.smplx_reader import VERTICES
from ...humans import rotvec_to_rotmat
from ..dataset import DatasetInfo, PoseDataset
from ..index import Fields, Record

# EHF_camera.txt: from the scanner's frame to the camera's
ROTATION = (-2.98747896, 0.01172457, -0.05704687)
TRANSLATION = (-0.03609917, 0.43416458, 2.37101226)
FOCAL, CENTER = 1498.22426237, (790.263706, 578.90334)

_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
_TYPES |= {"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"}
_TYPES |= {"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"}


class Ehf(PoseDataset):
    """EHF: SMPL-X vertices of one person per picture, and the true camera."""

    about = DatasetInfo(
        name="ehf",
        title="EHF (Expressive Hands and Faces)",
        licence="non-commercial scientific research",
        register="https://smpl-x.is.tue.mpg.de",
        files=("EHF.zip",),
        tree="ROOT/\n  01_img.jpg 01_align.ply ... 100_img.jpg 100_align.ply",
        size="100 pictures of 1600x1200; less than 1 GB with the scans (estimated)",
        citation="Pavlakos et al., Expressive Body Capture: 3D Hands, Face, and Body from a Single Image, "
        "CVPR 2019",
    )
    splits = ("test",)
    needed: ClassVar[dict[str, str]] = {
        "*_align.ply": "unpack EHF.zip and give the folder in which its files lie",
        "*_img.*": "unpack EHF.zip and give the folder in which its files lie",
    }
    people_fields: ClassVar[Fields] = {"keypoints_3d": ("f4", VERTICES, 3)}
    required = ("keypoints_3d",)
    keypoint_set = "smplx-vertices"

    def annotation_files(self) -> Sequence[Path]:
        return sorted(self.root.glob("*_align.ply"))

    def scan(self, path: Path) -> Iterator[Record]:
        name = path.name.removesuffix("_align.ply")
        vertices = read_ply(path) @ rotvec_to_rotmat(np.array(ROTATION)).T + np.array(TRANSLATION)
        kind = next((kind for kind in ("jpg", "png") if (self.root / f"{name}_img.{kind}").exists()), "jpg")
        K = np.array([[FOCAL, 0, CENTER[0]], [0, FOCAL, CENTER[1]], [0, 0, 1]])
        yield Record(name, f"{name}_img.{kind}", {"keypoints_3d": vertices[None]}, {"K": K})


def read_ply(path: Path) -> np.ndarray:
    """(V, 3) float32 vertices of a .ply, text or binary.

    Raises:
        ValueError: it is truncated or no .ply.
    """
    content = path.read_bytes()
    header, end, body = content.partition(b"end_header\n")
    lines = [line.split() for line in header.decode("ascii", "replace").splitlines()]
    if not end or lines[0] != ["ply"] or lines_of(lines, "element")[0][:2] != ["element", "vertex"]:
        raise ValueError("it is not a .ply file that begins with vertices")
    count = int(lines_of(lines, "element")[0][2])
    last = [line for line in lines if line[:1] == ["element"]][1:2]
    properties = lines_of(lines[: lines.index(last[0])] if last else lines, "property")
    form = lines_of(lines, "format")[0][1]
    if form == "ascii":
        rows = np.array(body.split()[: count * len(properties)], np.float32).reshape(count, -1)
        columns = {name: rows[:, place] for place, (_, _, name) in enumerate(properties)}
    else:
        order = {"binary_little_endian": "<", "binary_big_endian": ">"}[form]
        row = np.dtype([(name, order + _TYPES[kind]) for _, kind, name in properties])
        table = np.frombuffer(body, row, count)
        columns = {axis: table[axis] for axis in "xyz"}
    return np.stack([columns[axis] for axis in "xyz"], 1).astype(np.float32)


def lines_of(lines: list[list[str]], word: str) -> list[list[str]]:
    return [line for line in lines if line[:1] == [word]]
