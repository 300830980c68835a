"""Writer of glTF 2.0 binary files (.glb) with skins, morph targets and animation; plain meshes: meshes.py.

https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html. The camera is in the origin and looks along -z.
Each person of a rigged file is a node with the bones below it, a skin, and a mesh with morph targets for the
face; one animation moves all people in the video's time. numpy only.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..bodies.topology import Topology
from ..humans import rotmat_to_quaternion, vertex_normals
from ..world.ground import Ground
from ..world.placement import camera_in_gltf
from .animation import Clip

_VERTICES, _INDICES = 34962, 34963  # what a part of the buffer is for
_COMPONENTS = {"u1": 5121, "u2": 5123, "u4": 5125, "f4": 5126}
_CENTRED = 0.5  # [pixels] from the middle: up to there a principal point counts as centred
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}

# Of a vertex that many bones move, so much of their shares may be left out to save a set of four; 0.2 mm at
# most in Anny, two of whose vertices have nine bones (tests/io/test_animation.py).
LEFT_OUT = 0.01


def clips_to_glb(
    clips: Sequence[Clip],
    camera: tuple[np.ndarray, tuple[int, int]] | None = None,
    ground: Ground | None = None,
) -> bytes:
    """Rigged people, and one animation if they have more than one moment.

    camera: K (3, 3) in pixels and the height and width of the picture, to see them as it does.
    ground: of people who are level and on the floor; the camera is where it says.
    """
    scene = _Scene()
    if camera is not None:
        scene.add_camera(*camera, ground)
    end = max((clip.times[-1] for clip in clips), default=0.0)
    tracks = _Tracks(scene)
    for clip in clips:
        person, first_bone = _add_bones(scene, clip)
        body = _add_skinned_mesh(scene, clip, person, first_bone)
        if len(clip.times) > 1:
            tracks.move_bones(clip, first_bone)
            tracks.move(body, "weights", clip.times, clip.weights)
        tracks.show(person, clip, float(end))
    if tracks.channels:
        animation = {"name": "video", "channels": tracks.channels, "samplers": tracks.samplers}
        scene.append("animations", animation)
    return scene.pack({"units": "metres", "body": clips[0].rig.topology.name if clips else None})


class _Scene:
    """A glTF under construction: its lists, the nodes at its root, and the bytes of its one buffer."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.roots: list[int] = []
        self._content = bytearray()
        self._known: dict[tuple[Any, ...], int] = {}

    def append(self, name: str, entry: dict[str, Any]) -> int:
        entries = self.lists.setdefault(name, [])
        entries.append(entry)
        return len(entries) - 1

    def add(self, array: np.ndarray, dtype: Any, kind: str, target: int | None = None) -> int:
        """Store an array, and give the index of its accessor; what is stored already is shared."""
        array = np.ascontiguousarray(array, dtype=np.dtype(dtype).newbyteorder("<"))
        key = (hashlib.sha256(array.tobytes()).digest(), dtype, kind, target)
        if key not in self._known:
            accessor = _accessor(array, kind)
            accessor["bufferView"] = self._add_view(array, target)
            self._known[key] = self.append("accessors", accessor)
        return self._known[key]

    def add_sparse(self, array: np.ndarray) -> int:
        """The same for (V, 3) offsets, most of which are 0: only the others are stored."""
        array = np.ascontiguousarray(array, "<f4")
        rows = np.flatnonzero(array.any(1))
        if len(rows) > len(array) / 2:
            return self.add(array, np.float32, "VEC3", _VERTICES)
        key = (hashlib.sha256(array.tobytes()).digest(), "sparse")
        if key not in self._known:
            accessor = _accessor(array, "VEC3")
            if len(rows):
                indices: np.ndarray = rows.astype(_index_type(len(array)))
                accessor["sparse"] = {
                    "count": len(rows),
                    "indices": {"bufferView": self._add_view(indices), "componentType": _component(indices)},
                    "values": {"bufferView": self._add_view(array[rows])},
                }
            self._known[key] = self.append("accessors", accessor)
        return self._known[key]

    def _add_view(self, array: np.ndarray, target: int | None = None) -> int:
        view = {"buffer": 0, "byteOffset": len(self._content), "byteLength": array.nbytes}
        self._content += array.tobytes()
        self._content += b"\0" * (-len(self._content) % 4)
        return self.append("bufferViews", view if target is None else {**view, "target": target})

    def add_camera(self, K: np.ndarray, image_size: Sequence[int], ground: Ground | None) -> None:
        """A camera in the origin, or over the floor, that shows the scene as the image does."""
        camera, node = camera_and_node(K, image_size, ground)
        self.append("cameras", camera)
        self.roots.append(self.append("nodes", node))

    def add_mesh(
        self,
        name: str,
        attributes: Mapping[str, int],
        *,
        faces: np.ndarray,
        color: np.ndarray,
        morphs: Mapping[str, int] | None = None,
    ) -> int:
        """One mesh of one material; `attributes` and `morphs` are accessors by name."""
        primitive: dict[str, Any] = {
            "attributes": dict(attributes),
            "indices": self.add(faces.reshape(-1), _index_type(faces.max() + 1), "SCALAR", _INDICES),
            "material": self.append("materials", material(name, color)),
        }
        mesh: dict[str, Any] = {"name": name, "primitives": [primitive]}
        if morphs:
            primitive["targets"] = [{"POSITION": accessor} for accessor in morphs.values()]
            mesh["extras"] = {"targetNames": list(morphs)}
        return self.append("meshes", mesh)

    def pack(self, facts: Mapping[str, Any]) -> bytes:
        """The whole file; `facts` become extras of the scene."""
        tree: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "multihmr"},
            "scene": 0,
            "scenes": [{"nodes": self.roots, "extras": dict(facts)}],
            **self.lists,
        }
        if self._content:
            tree["buffers"] = [{"byteLength": len(self._content)}]
        text = json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        if self._content:
            chunks += struct.pack("<I4s", len(self._content), b"BIN\0") + bytes(self._content)
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def camera_and_node(
    K: np.ndarray, image_size: Sequence[int], ground: Ground | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """glTF's camera for intrinsics K (3, 3) of an image (height, width), and the node that holds it.

    glTF cannot express an off-centre principal point. The node then rotates the camera so that its axis goes
    through the middle of the image, which a viewer shows there; towards the edges the keystone between
    both views remains. The extras have the exact numbers: K, image_size, and Blender's lens shift for a
    camera whose rotation is reset to that of glTF's axes.

    ground: the camera stands over the floor as it says, not in the origin.
    """
    height, width = (int(length) for length in image_size)
    fx, fy, cx, cy = (float(K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    middle = np.array([(width / 2 - cx) / fx, (cy - height / 2) / fy, -1.0])
    is_centred = np.abs(middle[:2] * [fx, fy]).max() <= _CENTRED
    stretch = 1.0 if is_centred else float(np.linalg.norm(middle))
    lens = {
        "yfov": 2 * np.arctan(height / (2 * fy * stretch)),
        "aspectRatio": width * fy / (height * fx),
        "znear": 0.01,
    }
    node: dict[str, Any] = {"name": "camera", "camera": 0}
    quaternion = np.array([0, 0, 0, 1.0])
    if not is_centred:
        axis = np.cross([0, 0, -1.0], middle / stretch)
        quaternion = np.append(axis, 1 + 1 / stretch)  # from -z to the ray through the middle
    if ground is not None:
        matrix = camera_in_gltf(ground)
        quaternion = _product(np.roll(rotmat_to_quaternion(matrix[:3, :3]), -1), quaternion)
        node["translation"] = matrix[:3, 3].tolist()
    if quaternion[:3].any():
        node["rotation"] = (quaternion / np.linalg.norm(quaternion)).tolist()
    side = max(width, height)
    node["extras"] = {
        "K": np.asarray(K, np.float64).tolist(),
        "image_size": [height, width],
        "blender_shift": [(width / 2 - cx) / side, (cy - height / 2) / side],
    }
    return {"type": "perspective", "perspective": lens}, node


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(4,) the rotation b followed by a, as quaternions x, y, z, w."""
    vector = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
    return np.append(vector, a[3] * b[3] - a[:3] @ b[:3])


def _accessor(array: np.ndarray, kind: str) -> dict[str, Any]:
    rows = array.reshape(-1, _WIDTHS[kind])
    accessor = {"componentType": _component(array), "count": len(rows), "type": kind}
    if kind in ("SCALAR", "VEC3"):
        accessor |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
    return accessor


def _component(array: np.ndarray) -> int:
    return _COMPONENTS[array.dtype.str[1:]]


def _index_type(count: int) -> Any:
    return np.uint16 if count < 65535 else np.uint32


def _unit(normals: np.ndarray) -> np.ndarray:
    """Vertices without triangles have no normal; glTF wants one."""
    return np.where(normals.any(-1, keepdims=True), normals, np.array([0, 0, 1], np.float32))


def material(name: str, color: np.ndarray) -> dict[str, Any]:
    linear = ((color / 255.0) ** 2.2).round(4).tolist()  # glTF's colour factors are linear light
    surface = {"baseColorFactor": [*linear, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.7}
    return {"name": name, "pbrMetallicRoughness": surface}


def _add_bones(scene: _Scene, clip: Clip) -> tuple[int, int]:
    """The node of a person and the first of its bones, which follow each other, as they are at first."""
    person = scene.append("nodes", {"name": clip.name, "extras": dict(clip.facts)})
    scene.roots.append(person)
    first = person + 1
    turns = rotmat_to_quaternion(clip.rotations[0])
    for name, at, turn in zip(clip.rig.bone_names, clip.offsets[0], turns, strict=True):
        node = {"name": name, "translation": at.tolist(), "rotation": [*turn[1:].tolist(), float(turn[0])]}
        scene.append("nodes", node)
    nodes = scene.lists["nodes"]
    for bone, parent in enumerate(clip.rig.parents):
        nodes[first + parent if parent >= 0 else person].setdefault("children", []).append(first + bone)
    return person, first


def _add_skinned_mesh(scene: _Scene, clip: Clip, person: int, first_bone: int) -> int:
    """The node of the mesh. It lies at the root, beside the bones, for its own place counts for nothing."""
    rig = clip.rig
    normals = vertex_normals(rig.vertices[None], rig.topology.faces)[0]
    attributes = {
        "POSITION": scene.add(rig.vertices, np.float32, "VEC3", _VERTICES),
        "NORMAL": scene.add(_unit(normals), np.float32, "VEC3", _VERTICES),
    }
    for i, (joints, weights) in enumerate(_sets_of_four(rig.topology)):
        dtype = np.uint8 if len(rig.parents) < 256 else np.uint16
        attributes[f"JOINTS_{i}"] = scene.add(joints, dtype, "VEC4", _VERTICES)
        attributes[f"WEIGHTS_{i}"] = scene.add(weights, np.float32, "VEC4", _VERTICES)
    morphs = {name: scene.add_sparse(m) for name, m in zip(rig.morph_names, rig.morphs, strict=True)}
    name = f"{clip.name}_body"
    mesh = scene.add_mesh(name, attributes, faces=rig.topology.faces, color=clip.color, morphs=morphs)
    binds = np.tile(np.eye(4, dtype=np.float32), (len(rig.parents), 1, 1))
    binds[:, :3] = rig.binds
    skin = {
        "name": clip.name,
        "skeleton": person,
        "joints": list(range(first_bone, first_bone + len(rig.parents))),
        "inverseBindMatrices": scene.add(binds.transpose(0, 2, 1), np.float32, "MAT4"),  # columns first
    }
    node: dict[str, Any] = {"name": name, "mesh": mesh, "skin": scene.append("skins", skin)}
    if morphs:
        scene.lists["meshes"][mesh]["weights"] = clip.weights[0].tolist()
    scene.roots.append(scene.append("nodes", node))
    return scene.roots[-1]


def _sets_of_four(topology: Topology) -> list[tuple[np.ndarray, np.ndarray]]:
    """(V, 4) bones and shares, the largest first: as many sets as it takes to leave out next to nothing."""
    assert topology.skin_indices is not None, "a Rig has skinning weights"
    assert topology.skin_weights is not None, "a Rig has skinning weights"
    order = np.argsort(-topology.skin_weights, axis=1, kind="stable")
    weights = np.take_along_axis(topology.skin_weights, order, 1).astype(np.float64)
    bones = np.take_along_axis(topology.skin_indices, order, 1)
    left_out = 1 - (np.cumsum(weights, 1) / weights.sum(1, keepdims=True)).min(0)
    count = 4 * -(-(1 + int(np.argmax(left_out <= LEFT_OUT))) // 4)
    padding = ((0, 0), (0, max(count - weights.shape[1], 0)))
    weights, bones = (np.pad(table[:, :count], padding) for table in (weights, bones))
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    weights[:, 0] += 1 - weights.sum(1, dtype=np.float64)  # exactly 1 also in single precision
    bones = np.where(weights > 0, bones, 0)
    return [(bones[:, i : i + 4], weights[:, i : i + 4]) for i in range(0, count, 4)]


class _Tracks:
    """The channels of one animation. A property that does not change has none: the node holds it."""

    def __init__(self, scene: _Scene) -> None:
        self._scene = scene
        self.channels: list[dict[str, Any]] = []
        self.samplers: list[dict[str, Any]] = []

    def move(
        self, node: int, path: str, times: np.ndarray, values: np.ndarray, *, stepwise: bool = False
    ) -> None:
        """Let a property of a node go through `values` (T, ...) at `times` (T,) seconds."""
        if (values == values[:1]).all():
            return
        kind = {"rotation": "VEC4", "weights": "SCALAR"}.get(path, "VEC3")
        sampler = {
            "input": self._scene.add(times, np.float32, "SCALAR"),
            "output": self._scene.add(values, np.float32, kind),
            "interpolation": "STEP" if stepwise else "LINEAR",
        }
        self.channels.append({"sampler": len(self.samplers), "target": {"node": node, "path": path}})
        self.samplers.append(sampler)

    def move_bones(self, clip: Clip, first_bone: int) -> None:
        quaternions = rotmat_to_quaternion(clip.rotations)
        turned_back = (quaternions[1:] * quaternions[:-1]).sum(-1, keepdims=True) < 0
        quaternions[1:] *= np.cumprod(np.where(turned_back, -1, 1), 0)  # so that none goes the long way round
        for bone in range(len(clip.rig.parents)):
            self.move(first_bone + bone, "rotation", clip.times, np.roll(quaternions[:, bone], -1, -1))
            self.move(first_bone + bone, "translation", clip.times, clip.offsets[:, bone])

    def show(self, person: int, clip: Clip, end: float) -> None:
        """While a person is away, its node has the scale 0, as glTF advises."""
        changes = {0.0: 0.0}
        for start, stop in clip.shown:
            changes |= {start: 1.0, stop: 0.0}
        kept = [(time, size) for time, size in changes.items() if time <= end]
        times, sizes = np.array(kept).T
        self.move(person, "scale", times, np.repeat(sizes[:, None], 3, 1), stepwise=True)
