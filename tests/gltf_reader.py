"""A reader of .glb beside our writer: pygltflib parses, scipy interpolates, the rest is the specification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

pygltflib = pytest.importorskip("pygltflib")

DTYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Reader:
    """What a .glb shows at a time."""

    def __init__(self, path: Path) -> None:
        self.gltf = pygltflib.GLTF2().load(str(path))
        self._blob = self.gltf.binary_blob()
        self._channels = {}
        for animation in self.gltf.animations:
            for channel in animation.channels:
                sampler = animation.samplers[channel.sampler]
                times = self.accessor(sampler.input)[:, 0].astype(np.float64)
                values = self.accessor(sampler.output).reshape(len(times), -1).astype(np.float64)
                self._channels[channel.target.node, channel.target.path] = (
                    times,
                    values,
                    sampler.interpolation,
                )

    def accessor(self, index: int) -> np.ndarray:
        a = self.gltf.accessors[index]
        array = np.zeros((a.count, WIDTHS[a.type]), DTYPES[a.componentType])
        if a.bufferView is not None:
            array = self._view(a.bufferView, array.dtype).reshape(array.shape).copy()
        if a.sparse is not None:
            rows = self._view(a.sparse.indices.bufferView, DTYPES[a.sparse.indices.componentType])
            array[rows] = self._view(a.sparse.values.bufferView, array.dtype).reshape(-1, array.shape[1])
        return array

    def _view(self, index: int, dtype: type) -> np.ndarray:
        view = self.gltf.bufferViews[index]
        start = view.byteOffset or 0
        return np.frombuffer(self._blob[start : start + view.byteLength], dtype)

    def animated(self, node: int, path: str, seconds: float) -> np.ndarray | None:
        """A property of a node at a time; None where the node itself says it."""
        if (node, path) not in self._channels:
            return None
        times, values, interpolation = self._channels[node, path]
        return _sampled(times, values, interpolation, path == "rotation", seconds)

    def nodes(self, seconds: float) -> list[np.ndarray]:
        """(4, 4) from each node to the scene."""
        places: list[np.ndarray | None] = [None] * len(self.gltf.nodes)

        def visit(index: int, above: np.ndarray) -> None:
            places[index] = above @ self._local(index, seconds)
            for child in self.gltf.nodes[index].children or []:
                visit(child, places[index])

        for root in self.gltf.scenes[self.gltf.scene].nodes:
            visit(root, np.eye(4))
        return places

    def _local(self, index: int, seconds: float) -> np.ndarray:
        node = self.gltf.nodes[index]
        parts = {"translation": [0.0, 0, 0], "rotation": [0.0, 0, 0, 1], "scale": [1.0, 1, 1]}
        for name, default in parts.items():
            moved = self.animated(index, name, seconds)
            parts[name] = (getattr(node, name) or default) if moved is None else moved
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_quat(parts["rotation"]).as_matrix() * np.array(parts["scale"])
        matrix[:3, 3] = parts["translation"]
        return matrix

    def node(self, name: str) -> int:
        return next(i for i, node in enumerate(self.gltf.nodes) if node.name == name)

    def vertices(self, name: str, seconds: float = 0.0) -> np.ndarray:
        """(V, 3) of the node of that name, morphed and skinned, in the scene."""
        index = self.node(name)
        node = self.gltf.nodes[index]
        primitive = self.gltf.meshes[node.mesh].primitives[0]
        points = self.accessor(primitive.attributes.POSITION).astype(np.float64)
        weights = self.animated(index, "weights", seconds)
        weights = (self.gltf.meshes[node.mesh].weights or []) if weights is None else weights
        for weight, target in zip(weights, primitive.targets or [], strict=True):
            points += weight * self.accessor(target["POSITION"])
        skin, places = self.gltf.skins[node.skin], self.nodes(seconds)
        binds = self.accessor(skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
        bones = np.stack([places[joint] for joint in skin.joints]) @ binds
        blend = np.zeros((len(points), 4, 4))
        for i in range(4):
            joints = getattr(primitive.attributes, f"JOINTS_{i}", None)
            if joints is not None:
                shares = self.accessor(getattr(primitive.attributes, f"WEIGHTS_{i}"))
                blend += np.einsum("vk,vkab->vab", shares, bones[self.accessor(joints)])
        return np.einsum("vab,vb->va", blend[:, :3, :3], points) + blend[:, :3, 3]


def _sampled(
    times: np.ndarray, values: np.ndarray, interpolation: str, turns: bool, seconds: float
) -> np.ndarray:
    seconds = float(np.clip(seconds, times[0], times[-1]))
    i = int(np.searchsorted(times, seconds + 1e-6, side="right")) - 1  # times are stored in single precision
    if interpolation == "STEP" or i == len(times) - 1:
        return values[i]
    share = max(seconds - times[i], 0) / (times[i + 1] - times[i])
    if turns:
        return Slerp([0, 1], Rotation.from_quat(values[i : i + 2]))(share).as_quat()
    return values[i] * (1 - share) + values[i + 1] * share
