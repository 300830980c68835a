"""Wardrobe: clothes, shoes, hair, hats, eyes, eyebrows and skins of MakeHuman, fitted to an Anny body.

They come from a folder of assets (assets.py): the prepared pack, files in MakeHuman's formats, or both.
Garments are bound to MakeHuman's base mesh, whose 19,158 vertices `Anny(helpers=True)` has: each garment
vertex is a weighted mean of three base vertices plus an offset, fitted on the unposed body and then skinned
like the body (shared/assets/FITTING.md). Without assets clothes are painted on the skin.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .assets import REGIONS, Assets, read_assets
from .makehuman import BASE_VERTICES, Clothes, read_clothes
from .textures import Texture, TextureBuffer, procedural_tile, read_texture
from .untrusted_text import inside

SKIN_VERTICES = 13380  # base mesh vertices before this are skin
EYE_VERTICES = slice(14598, 14742)
NEEDED = ("skins", "clothes", "shoes", "hair", "eyes", "iris", "eyebrows", "eyelashes", "teeth")
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
    """Colouring of a surface; the fields are those of `kernels.Material`, colours in linear light."""

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
    """Data of the body for fitting: skinning (V, R), skin faces (F, 3), corner uv, dominant joint (V,)."""

    weights: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    joint_names: tuple[str, ...]
    dominant: np.ndarray
    eye_faces: np.ndarray


def rig_of(topology: Any) -> Rig:
    """The rig of a body with helper vertices.

    Raises:
        ValueError: the body has none.
    """
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
    """A mesh bound to the base mesh; `entry` describes it (see Assets)."""

    def __init__(self, clothes: Clothes, entry: Mapping[str, Any], rig: Rig) -> None:
        self.name, self.category = entry["name"], entry["category"]
        self.index, self.weight = clothes.bind_indices, clothes.bind_weights.astype(np.float32)
        self.offset = clothes.bind_offsets.astype(np.float32)
        self.scale_vertices, self.scale_lengths = clothes.scale_vertices, clothes.scale_lengths
        self.deletes, self.z_depth = clothes.delete_vertices, clothes.z_depth
        quads, quads_uv = clothes.quads, clothes.quads_uv
        faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
        corners = np.concatenate([quads_uv[:, [0, 1, 2]], quads_uv[:, [0, 2, 3]]])
        solid = (faces != np.roll(faces, 1, axis=1)).all(1)  # a triangle is a quad with a corner twice
        self.faces, self.uv = faces[solid], clothes.uv.astype(np.float32)[corners[solid]]
        skin = np.clip(np.einsum("vk,vkj->vj", self.weight, rig.weights[self.index]), 0, None)
        self.bones = np.flatnonzero(skin.max(0) > 1e-4)
        skin = skin[:, self.bones]
        self.skin = skin / np.maximum(skin.sum(1, keepdims=True), 1e-6)
        self.push = TOP_PUSH if entry.get("slot") == "top" else 0.0
        self.zone = np.zeros(len(self.faces), np.int64)
        if entry.get("slot") == "suit":
            self.zone = _zones(self.faces, clothes.vertices)

    def fit(self, rest: np.ndarray) -> np.ndarray:
        """(V, 3) the garment on the unposed body `rest` (19158, 3) [m]."""
        scale = np.ones(3, np.float32)
        for k, axis in enumerate((0, 2, 1)):  # MakeHuman's x, y, z are Anny's x, z, -y
            if self.scale_lengths[k] > 0:
                a, b = self.scale_vertices[k]
                scale[k] = abs(rest[a, axis] - rest[b, axis]) / (0.1 * self.scale_lengths[k])
        base = (rest[self.index] * self.weight[..., None]).sum(1)
        fitted = base + (self.offset * scale) @ TO_ANNY.T
        return fitted + self.push * vertex_normals(fitted, self.faces) if self.push else fitted

    def pose(self, rest: np.ndarray, transforms: np.ndarray) -> np.ndarray:
        """(V, 3) the posed garment; `transforms` (R, 3, 4) map the rest pose to the pose."""
        return skinned(self.skin, self.fit(rest), transforms[self.bones])


def skinned(weights: np.ndarray, rest: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Linear blend skinning: weights (V, R), rest (V, 3), transforms (R, 3, 4) -> (V, 3)."""
    # A dense product is quicker here than gathering sparse weights: BLAS does 10^10 multiplications a second.
    blended = (weights @ transforms.reshape(len(transforms), 12)).reshape(-1, 3, 4)
    return np.einsum("vab,vb->va", blended[:, :, :3], rest) + blended[:, :, 3]


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) area-weighted unit normals."""
    corners = [np.take(vertices, faces[:, k], 0) for k in range(3)]
    (ax, ay, az), (bx, by, bz) = (corners[1] - corners[0]).T, (corners[2] - corners[0]).T
    total = np.zeros((len(vertices), 3))
    for axis, normal in enumerate((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)):
        for k in range(3):
            total[:, axis] += np.bincount(faces[:, k], normal, len(vertices))
    length = np.sqrt(np.einsum("va,va->v", total, total))[:, None]
    return (total / np.maximum(length, 1e-12)).astype(np.float32)


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


def body_regions(rig: Rig) -> np.ndarray:
    """(19158,) index into REGIONS of the part of the body that each base vertex moves with."""
    begins = {
        "head": ("head", "neck02", "neck03", "eye"),
        "torso": ("spine", "clavicle", "shoulder", "neck01"),
        "arms": ("upperarm", "lowerarm"),
        "hands": ("wrist", "metacarpal", "finger"),
        "hips": ("root", "pelvis"),
        "thighs": ("upperleg",),
        "shanks": ("lowerleg",),
        "feet": ("foot", "toe"),
    }
    of_joint = [next(r for r in REGIONS if name.startswith(begins[r])) for name in rig.joint_names]
    return np.array([REGIONS.index(region) for region in of_joint])[rig.dominant]


class Wardrobe:
    """All wearable assets and their textures.

    folder   assets (see assets.py): makehuman_cc0, a folder in MakeHuman's layout, or one that holds several
             such; None: clothes are painted on the skin
    entries  wearable assets by name; `refused` and `doubts` as in Assets
    """

    def __init__(
        self, folder: Path | None, topology: Any, textures: TextureBuffer, *, tile_seed: int = 0
    ) -> None:
        self.textures, self.rig = textures, rig_of(topology)
        self._tile_seed = tile_seed
        self._garments: dict[str, Garment] = {}
        self._of_assets: dict[str, Texture] = {}
        assets = read_assets(folder, body_regions(self.rig)) if folder is not None else Assets()
        self.entries: dict[str, Mapping[str, Any]] = assets.entries
        self.refused, self.doubts = assets.refused, assets.doubts
        if self.refused:
            shown = "; ".join(list(self.refused.values())[:3])
            warnings.warn(f"unusable assets in {folder}: {len(self.refused)} ({shown})", stacklevel=2)
        self._head = self.rig.joint_names.index("head")

    def missing(self) -> tuple[str, ...]:
        """Categories of a complete outfit of which there is no asset."""
        return tuple(category for category in NEEDED if not self.names(category))

    def garment(self, name: str) -> Garment:
        if name not in self._garments:
            entry = self.entries[name]
            root = Path(entry["root"])
            self._garments[name] = Garment(read_clothes(inside(root, entry["mesh"]), root), entry, self.rig)
        return self._garments[name]

    def names(self, category: str, *, slot: str | None = None, gender: str | None = None) -> list[str]:
        return sorted(
            a["name"]
            for a in self.entries.values()
            if a["category"] == category
            and (slot is None or a.get("slot") == slot)
            and (gender is None or a["gender"] in (gender, "any"))
        )

    def tile(self, index: int) -> Texture:
        """Procedural texture number `index` (modulo TILES), the same for every picture of the dataset."""
        k = index % TILES
        make = lambda: procedural_tile(np.random.default_rng([self._tile_seed, 7, k]))  # noqa: E731
        return self.textures.named(f"tile {k}", make)

    def white(self) -> Texture:
        return self.textures.named("white", lambda: np.full((4, 4, 3), 255, np.uint8))

    def asset_texture(self, name: str, size: int = 512) -> Texture:
        """The diffuse picture of an asset, else its ambient occlusion, else its colour, else white."""
        if name not in self._of_assets:  # once, or its path would be resolved and checked for every person
            self._of_assets[name] = self._make_texture(self.entries[name], size)
        return self._of_assets[name]

    def _make_texture(self, entry: Mapping[str, Any], size: int) -> Texture:
        files = entry.get("textures", {})
        file = files.get("diffuse") or files.get("ao")
        if file and Path(file).suffix:  # a pack may say "any of the iris entries"
            path = inside(Path(entry["root"]), file)
            return self.textures.named(str(path), lambda: self._picture(path, size, entry))
        return self.textures.named(f"color {entry.get('color')}", lambda: _plain(entry))

    def _picture(self, path: Path, size: int, entry: Mapping[str, Any]) -> np.ndarray:
        """The picture; one whose decoding fails is replaced by a plain colour, with a warning."""
        try:
            return read_texture(path, size)
        except ValueError as error:
            self.refused[str(path)] = str(error)
            warnings.warn(f"{error}; {entry['name']} is drawn without it", stacklevel=4)
            return _plain(entry)

    def dress(
        self, look: Outfit, rest: np.ndarray, transforms: np.ndarray, *, close: bool = True
    ) -> list[Part]:
        """The clothed person as posed meshes: rest (19158, 3), transforms (R, 3, 4) from rest to pose."""
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
            visible = ~above[garment.index].all(1)[garment.faces].any(1)
            parts.append(
                Part(
                    garment.pose(rest, transforms),
                    garment.faces[visible],
                    garment.uv[visible],
                    garment.zone[visible],
                    look.paints[garment.name],
                )
            )
        if not any(garment.category == "eyes" for garment in worn):
            brown = Paint(self.white(), matrix=np.diag([0.06, 0.03, 0.015]).astype(np.float32))
            parts.append(_eyes(rig, rest, transforms, [Paint(self.white()), brown], first=0))
        return parts


def _plain(entry: Mapping[str, Any]) -> np.ndarray:
    """A small square of a material's colour, white if it has none."""
    color = np.round(np.array(entry.get("color", (1, 1, 1))) * 255).astype(np.uint8)
    return np.tile(color, (4, 4, 1))


@dataclass(frozen=True)
class Outfit:
    """Outfit of one person: skin, names of worn assets, and the paints (by zone) of each."""

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
HAIR_REGION, EYE_REGION = 7, 8  # index of the paints of a painted person; the iris comes after the eye


def _painted(wardrobe: Wardrobe, look: Outfit, rest: np.ndarray, transforms: np.ndarray) -> list[Part]:
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


def _eyes(
    rig: Rig, rest: np.ndarray, transforms: np.ndarray, paints: list[Paint], *, first: int = EYE_REGION
) -> Part:
    """The base mesh's eyeballs: paints[first], with an iris of the next paint at the front."""
    own = rest[EYE_VERTICES]
    posed = skinned(rig.weights[EYE_VERTICES], own, transforms)
    faces = rig.eye_faces - EYE_VERTICES.start
    depth = own[faces].mean(1)[:, 1]
    front = depth < depth.min() + 0.12 * (depth.max() - depth.min())
    paint = np.where(front, first + 1, first)
    return Part(posed, faces, np.zeros((len(faces), 3, 2), np.float32), paint, paints)
