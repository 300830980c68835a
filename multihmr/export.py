"""Humans to files and back. The suffix says the format; every format is one function from Humans to bytes.

    .glb   people as separate nodes "person_0", ... in metres, to look at in any 3D program
    .obj   the same as text, one object a person          .ply   all people as one coloured mesh
    .npz   every parameter, without loss; `load` reads it back; of SMPL-X also by the names of AMASS
    .json  scores, places, named joints and keypoints, for programs that want no meshes

Meshes (.glb, .obj, .ply) stand in the frame of glTF and most 3D programs: x right, y up, z to the viewer, the
camera in the origin looking along -z. Numbers (.npz, .json) stay in the camera frame of `Humans`: x right, y
down, z forward.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from multihmr.humans import Humans, rotmat_to_rotvec

NPZ_FORMAT = "multihmr-humans-1"
JSON_FORMAT = "multihmr-humans-json-1"

FRAME = "camera: x right, y down, z forward; pixels: x right, y down, centre of the first (0.5, 0.5)"
TO_GLTF = np.array([1, -1, -1], np.float32)  # from y down, z forward to y up, z backward: half a turn about x

# Humans' fields that describe people and are stored; vertices follow from them through the body.
_PARAMETERS = (
    "scores", "joints", "joints_2d", "boxes", "translation", "pelvis", "pose", "shape", "expression",
)  # fmt: skip


def save(humans: Humans, path: str | os.PathLike[str]) -> Path:
    """Write `humans` in the format that the suffix of `path` says, and give the path.

    The file appears whole or not at all. Raises ValueError for a suffix that is not in `FORMATS`, and
    FileNotFoundError when the folder does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"cannot save {path.name!r}: its suffix must be one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot save {path.name!r}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise IsADirectoryError(f"cannot save {path}: it is a folder; give the name of a file")
    content = FORMATS[path.suffix.lower()](humans)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def load(path: str | os.PathLike[str], body: Any = None) -> Humans:
    """The Humans that `save` wrote to a .npz, with vertices made anew by the body.

    `body` is the one that the people were predicted with (`model.body`); None loads the one that the file
    names. Raises FileNotFoundError; ValueError when the file is no such .npz or of another body.
    """
    import torch  # here, because writing does without it

    stored = _read_npz(Path(path))
    name = str(stored.pop("body"))
    if body is None:
        from multihmr.hub import load_body

        body = load_body(name, shape_count=stored["shape"].shape[1] if name == "smplx" else None)
    if body.name != name:
        raise ValueError(
            f"{path} holds people of body {name!r}, got body {body.name!r}; give the one it was made with"
        )
    with torch.inference_mode():
        device = next((tensor.device for tensor in body.buffers()), torch.device("cpu"))
        parameters = (torch.tensor(stored[key], device=device) for key in ("pose", "shape", "expression"))
        vertices, joints = (points.float().cpu().numpy() for points in body(*parameters))
    height, width = stored.pop("image_size")
    return Humans(
        **{key: stored[key] for key in (*_PARAMETERS, "K")},
        vertices=vertices + (stored["translation"] - joints[:, body.center_joint])[:, None],
        K_source=str(stored["K_source"]),
        image_size=(int(height), int(width)),
        body=name,
        topology=body.topology,
        track_ids=stored.get("track_ids"),
        unpredicted=tuple(map(str, stored["unpredicted"])),
        filled=stored.get("filled"),
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        # opened here, because np.load leaves the file open when it is damaged
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            stored = {key: file[key] for key in file.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or no .npz file: {error}") from error
    if str(stored.get("format")) != NPZ_FORMAT:
        raise ValueError(
            f"{path} must have the format {NPZ_FORMAT!r}, got {str(stored.get('format'))!r}; save it anew"
        )
    missing = {*_PARAMETERS, "K", "K_source", "image_size", "body", "unpredicted"} - set(stored)
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; save it anew")
    return stored


def _npz(humans: Humans) -> bytes:
    arrays: dict[str, Any] = {name: getattr(humans, name) for name in _PARAMETERS} | _amass(humans)
    for name in ("track_ids", "filled"):
        if getattr(humans, name) is not None:
            arrays[name] = getattr(humans, name)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        format=NPZ_FORMAT,
        units=f"metres and pixels; {FRAME}",
        body=humans.body,
        K=humans.K,
        K_source=humans.K_source,
        image_size=np.array(humans.image_size),
        joint_names=_names(humans.topology.joint_names),
        shape_names=_names(humans.topology.shape_names),
        expression_names=_names(humans.topology.expression_names),
        unpredicted=_names(humans.unpredicted),
        **arrays,
    )
    return buffer.getvalue()


def _amass(humans: Humans) -> dict[str, Any]:
    """People of SMPL-X as AMASS and its tools name them, a row for each; nothing for other bodies.

    poses (N, 165) axis-angle of the 55 joints in the order of the smplx package: root, body, jaw, eyes,
    hands (relative to the flat hand). trans (N, 3) [m] is what the package adds to its vertices, which it
    turns about the pelvis where that lies at rest. betas (N, S) and gender; expression (N, 10) is stored
    anyway. All in the camera frame.
    """
    topology = humans.topology
    if humans.body != "smplx" or topology.rest_pelvis is None:
        return {}
    poses = np.zeros((len(humans), 55, 3), np.float32)
    poses[:, topology.pose_joints] = rotmat_to_rotvec(humans.pose)
    numbers = np.concatenate([np.ones((len(humans), 1)), humans.shape, humans.expression], axis=1)
    return {
        "poses": poses.reshape(-1, 165),
        "betas": humans.shape,
        "trans": (humans.pelvis - numbers @ topology.rest_pelvis).astype(np.float32),
        "gender": "neutral",
        "surface_model_type": "smplx",
    }


def _names(names: tuple[str, ...]) -> np.ndarray:
    """Text that numpy reads without pickle, also when there is none."""
    return np.array(names, dtype=np.str_)


def _json(humans: Humans) -> bytes:
    height, width = humans.image_size
    content = {
        "format": JSON_FORMAT,
        "units": "metres and pixels",
        "frame": FRAME,
        "image": {"width": width, "height": height},
        "camera": {"K": _rounded(humans.K, 3), "source": humans.K_source},
        "body": humans.body,
        "unpredicted": list(humans.unpredicted),
        "people": [_person(person) for person in humans],
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    on_one_line = re.sub(r"\[\s+([-+.,\de\s]+?)\s+\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    return on_one_line.encode()


def _person(human: Humans) -> dict[str, Any]:
    """One person's plain facts; the names of everything stand beside the numbers."""
    topology = human.topology
    person: dict[str, Any] = {
        "score": _rounded(human.scores[0], 4),
        "track_id": None if human.track_ids is None else int(human.track_ids[0]),
        "box": _rounded(human.boxes[0], 2),
        "translation": _rounded(human.translation[0], 4),
        "pelvis": _rounded(human.pelvis[0], 4),
        "distance": _rounded(human.distances[0], 4),
        "orientation": _rounded(rotmat_to_rotvec(human.pose[0, 0]), 5),
        "shape": _by_name(topology.shape_names, _rounded(human.shape[0], 4)),
        "expression": _by_name(topology.expression_names, _rounded(human.expression[0], 4)),
        "joints": _points(topology.joint_names, human.joints[0], human.joints_2d[0]),
    }
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


def _glb(humans: Humans) -> bytes:
    """glTF 2.0, binary. People share one list of triangles; a camera shows them as the image does."""
    binary = _Binary()
    positions = humans.vertices * TO_GLTF
    normals = humans.normals * TO_GLTF
    indices = (
        binary.add(humans.topology.faces.reshape(-1), _index_type(humans), "SCALAR", 34963)
        if len(humans)
        else 0
    )
    meshes, materials, nodes = [], [], [{"name": "camera", "camera": 0}]
    for i in range(len(humans)):
        attributes = {
            "POSITION": binary.add(positions[i], np.float32, "VEC3", 34962),
            "NORMAL": binary.add(normals[i], np.float32, "VEC3", 34962),
        }
        primitive = {"attributes": attributes, "indices": indices, "material": i}
        meshes.append({"name": f"person_{i}", "primitives": [primitive]})
        materials.append(_material(f"person_{i}", humans.colors[i]))
        facts = {"score": _rounded(humans.scores[i], 4)}
        if humans.track_ids is not None:
            facts["track_id"] = int(humans.track_ids[i])
        nodes.append({"name": f"person_{i}", "mesh": i, "extras": facts})
    tree = {
        "asset": {"version": "2.0", "generator": "multihmr"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes))), "extras": {"units": "metres", "body": humans.body}}],
        "nodes": nodes,
        "cameras": [_camera(humans)],
        "meshes": meshes,
        "materials": materials,
        "accessors": binary.accessors,
        "bufferViews": binary.views,
        "buffers": [{"byteLength": len(binary.content)}] if binary.content else [],
    }
    return _pack_glb({key: value for key, value in tree.items() if value != []}, bytes(binary.content))


class _Binary:
    """The binary part of a GLB and the lists that say what lies where."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, array: np.ndarray, dtype: Any, kind: str, target: int) -> int:
        """Append an array, and give the index of its accessor."""
        array = np.ascontiguousarray(array, dtype=np.dtype(dtype).newbyteorder("<"))
        code = {"u2": 5123, "u4": 5125, "f4": 5126}[array.dtype.str[1:]]
        self.views.append(
            {"buffer": 0, "byteOffset": len(self.content), "byteLength": array.nbytes, "target": target}
        )
        accessor = {
            "bufferView": len(self.views) - 1,
            "componentType": code,
            "count": len(array),
            "type": kind,
        }
        if kind == "VEC3":
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        self.accessors.append(accessor)
        self.content += array.tobytes()
        self.content += b"\0" * (-len(self.content) % 4)
        return len(self.accessors) - 1


def _index_type(humans: Humans) -> type:
    return np.uint16 if humans.vertices.shape[1] < 65535 else np.uint32


def _material(name: str, color: np.ndarray) -> dict[str, Any]:
    linear = ((color / 255.0) ** 2.2).round(4).tolist()  # glTF's colour factors are linear light
    surface = {"baseColorFactor": [*linear, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.7}
    return {"name": name, "pbrMetallicRoughness": surface}


def _camera(humans: Humans) -> dict[str, Any]:
    height, width = humans.image_size
    yfov = 2 * np.arctan(height / (2 * float(humans.K[1, 1])))
    aspect = width * float(humans.K[1, 1]) / (height * float(humans.K[0, 0]))
    return {"type": "perspective", "perspective": {"yfov": yfov, "aspectRatio": aspect, "znear": 0.01}}


def _pack_glb(tree: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if binary:
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _ply(humans: Humans) -> bytes:
    people, count = humans.vertices.shape[:2]
    vertices = np.zeros(people * count, np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)]))
    vertices["xyz"] = (humans.vertices * TO_GLTF).reshape(-1, 3)
    vertices["rgb"] = np.repeat(humans.colors, count, axis=0)
    first = np.arange(people)[:, None, None] * count
    triangles = (humans.topology.faces[None] + first).reshape(-1, 3)
    faces = np.zeros(len(triangles), np.dtype([("n", "u1"), ("index", "<i4", 3)]))
    faces["n"], faces["index"] = 3, triangles
    header = ["ply", "format binary_little_endian 1.0", "comment metres, y up, camera looks along -z"]
    header += [f"element vertex {len(vertices)}", *(f"property float {axis}" for axis in "xyz")]
    header += [f"property uchar {color}" for color in ("red", "green", "blue")]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def _obj(humans: Humans) -> bytes:
    """One object a person; colours follow the coordinates of each vertex, as most programs read them."""
    count = humans.vertices.shape[1]
    lines = ["# metres, y up, camera looks along -z"]
    for i, points in enumerate(humans.vertices * TO_GLTF):
        color = "{:.4g} {:.4g} {:.4g}".format(*(humans.colors[i] / 255))
        lines += [f"o person_{i}", "s 1"]
        lines += [f"v {x:.6f} {y:.6f} {z:.6f} {color}" for x, y, z in points.tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (humans.topology.faces + 1 + i * count).tolist()]
    return ("\n".join(lines) + "\n").encode()


FORMATS: dict[str, Callable[[Humans], bytes]] = {
    ".glb": _glb,
    ".npz": _npz,
    ".json": _json,
    ".ply": _ply,
    ".obj": _obj,
}
