"""Read MakeHuman's text formats: .mhclo (clothes and their binding), .obj and .mhmat.

Written from the description in shared/assets/FITTING.md and from CC0 files, not from MakeHuman's code. The
files are untrusted: each is checked before it is used, and a fault is one ValueError that names it. Lengths
are MakeHuman's decimetres, y up, z to the front, x to the person's left.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .untrusted_text import MAX_FILE_BYTES, named_file, numbers, read_text

BASE_VERTICES = 19158  # of MakeHuman's base mesh "hm08"
MAX_VERTICES = 200_000  # of one garment
FARTHEST = 100.0  # [dm] limit of vertex coordinates and offsets


@dataclass(frozen=True)
class Clothes:
    """A mesh bound to the base mesh: the arrays of the prepared pack's npz.

    vertices (V, 3) [dm] as modelled, uv (T, 2) with v up, quads and quads_uv (F, 4), where triangles repeat
    their last corner; each vertex is sum(bind_weights * base[bind_indices]) + scale * bind_offsets; along
    axis k the scale is the distance of the base vertices scale_vertices[k] over scale_lengths[k] (0: no
    scaling); delete_vertices are hidden; of two layers the one with the higher z_depth lies outside.
    """

    vertices: np.ndarray
    uv: np.ndarray
    quads: np.ndarray
    quads_uv: np.ndarray
    bind_indices: np.ndarray
    bind_weights: np.ndarray
    bind_offsets: np.ndarray
    scale_vertices: np.ndarray
    scale_lengths: np.ndarray
    delete_vertices: np.ndarray
    z_depth: int


class Mhclo(NamedTuple):
    """Content of an .mhclo: keywords with the rest of their line, tags, bindings (V, 9), hidden vertices."""

    words: Mapping[str, str]
    tags: tuple[str, ...]
    bindings: np.ndarray
    delete_vertices: np.ndarray


class Obj(NamedTuple):
    """vertices (V, 3), uv (T, 2), quads (F, 4) and quads_uv (F, 4), see Clothes."""

    vertices: np.ndarray
    uv: np.ndarray
    quads: np.ndarray
    quads_uv: np.ndarray


class Material(NamedTuple):
    """Content of an .mhmat: tags, sRGB colour, files of the "diffuse", "ao" and "normal" pictures."""

    tags: tuple[str, ...]
    color: tuple[float, float, float]
    alpha: bool
    two_sided: bool
    pictures: Mapping[str, str]


def _indices(values: np.ndarray, path: Path, what: str) -> np.ndarray:
    wrong = values[(values != np.floor(values)) | (values < 0) | (values >= BASE_VERTICES)]
    if wrong.size:
        raise ValueError(f"{path} {what} {wrong[0]:g}; the base mesh has vertices 0 to {BASE_VERTICES - 1}")
    return values.astype(np.int64)


# --- .mhclo

_COMMENT = re.compile(r"#+\s*(author|license|licence)\b[:\s]*(.+)", re.IGNORECASE)


def read_mhclo(path: Path) -> Mhclo:
    """Content of an .mhclo; keywords may be in any order, also after the bindings."""
    words: dict[str, str] = {}
    tags, bindings, hidden = [], [], []
    section = ""
    for line in read_text(path).split("\n"):
        parts = line.split()
        if not parts:
            continue
        if parts[0][0] in "+-.0123456789":
            if section == "verts":
                bindings.append(parts)
            elif section == "delete_verts":
                hidden.append(line)
        elif parts[0][0] == "#":
            _read_comment(line, words)
        else:
            keyword, rest = parts[0].lower(), line.split(None, 1)[1].strip() if len(parts) > 1 else ""
            if keyword in ("verts", "delete_verts", "weights"):
                section = keyword
            elif keyword == "tag":
                tags.append(rest)
            else:
                words[keyword] = rest
    if len(bindings) > MAX_VERTICES:
        raise ValueError(f"{path} binds more than {MAX_VERTICES} vertices")
    return Mhclo(words, tuple(tags), _bindings(bindings, path), _ranges(hidden, path))


def _read_comment(line: str, words: dict[str, str]) -> None:
    found = _COMMENT.match(line.strip())
    if found:
        words.setdefault(found[1].lower().replace("licence", "license"), found[2].strip())
    elif "CC0" in line:
        words.setdefault("license", "CC0")


def _bindings(rows: list[list[str]], path: Path) -> np.ndarray:
    """(V, 9): three indices, weights and offsets; a single index is the vertex itself."""
    full = [row if len(row) == 9 else [*row * 3, "1", "0", "0", "0", "0", "0"] for row in rows]
    wrong = next((row for row, nine in zip(rows, full, strict=True) if len(nine) != 9), None)
    if wrong is not None:
        raise ValueError(
            f"{path} has a binding of {len(wrong)} numbers ('{' '.join(wrong)[:60]}'), not 1 or 9"
        )
    return numbers([w for row in full for w in row], path).reshape(-1, 9)


def _ranges(lines: list[str], path: Path) -> np.ndarray:
    """Lines such as "3 7 12 - 15" -> [3, 7, 12, 13, 14, 15]."""
    words = " ".join(lines).replace("-", " - ").split()
    ends = [(k > 0 and words[k - 1] == "-") for k in range(len(words))]
    at = _indices(numbers([w for w in words if w != "-"], path), path, "hides base vertex")
    is_end = [end for word, end in zip(words, ends, strict=True) if word != "-"]
    hidden = np.zeros(BASE_VERTICES, bool)
    for k, vertex in enumerate(at):
        hidden[at[k - 1] if is_end[k] and k else vertex : vertex + 1] = True
    return np.flatnonzero(hidden)


def _scales(words: Mapping[str, str], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reference vertices (3, 2) and lengths (3,) of x_scale, y_scale and z_scale, 0 for axes without.

    shear_x a b p q means the same with the length q - p: both boxes it maps are along the axes. Files with a
    left and a right one were made on a symmetric body and are worn by one, so that one of them does.
    """
    vertices, lengths = np.zeros((3, 2), np.int64), np.zeros(3)
    forms = ("{}_scale", "shear_{}", "l_shear_{}", "r_shear_{}")
    form = next((f for f in forms if any(f.format(axis) in words for axis in "xyz")), forms[0])
    for k, axis in enumerate("xyz"):
        keyword = form.format(axis)
        if keyword not in words:
            continue
        content = numbers(words[keyword].split(), path)
        if len(content) != (3 if form == forms[0] else 4):
            raise ValueError(f"{path} has '{keyword} {words[keyword][:40]}' with {len(content)} numbers")
        vertices[k] = _indices(content[:2], path, f"has {keyword} with base vertex")
        lengths[k] = content[2] if len(content) == 3 else abs(content[3] - content[2])
        if not 0 < lengths[k] < FARTHEST:
            raise ValueError(f"{path} has {keyword} with the length {lengths[k]:g}")
    return vertices, lengths


# --- .obj


def read_obj(path: Path) -> Obj:
    """Vertices, texture coordinates and faces; groups, normals and materials are left out.

    Polygons of more than four corners are cut into a fan; corners without texture coordinates get (0, 0).
    """
    vertices: list[list[str]] = []
    uv: list[list[str]] = []
    faces: list[list[tuple[int, int]]] = []
    corners: dict[str, tuple[int, int]] = {}  # most stand in four faces
    for line in read_text(path).replace("\\\n", " ").split("\n"):
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            vertices.append(words[1:4])
        elif words[0] == "vt":
            uv.append(words[1:3])
        elif words[0] == "f":
            for word in words[1:]:
                if word not in corners or "-" in word:  # negative ones count back from here
                    corners[word] = _corner(word, len(vertices), len(uv), path)
            faces.append([corners[word] for word in words[1:]])
    if max(len(vertices), len(uv) // 4, len(faces) // 4) > MAX_VERTICES:
        raise ValueError(f"{path} is too large: {len(vertices)} vertices and {len(faces)} faces")
    points, coordinates = _columns(vertices, 3, path), _columns(uv, 2, path)
    quads, quads_uv = _quads(faces, path)
    if quads.max() >= len(points) or quads_uv.max() >= len(coordinates):
        raise ValueError(f"{path} has a face with a vertex that it does not have")
    if quads_uv.min() < 0:
        quads_uv = np.where(quads_uv < 0, len(coordinates), quads_uv)
        coordinates = np.concatenate([coordinates, np.zeros((1, 2), np.float32)])
    return Obj(points, coordinates, quads, quads_uv)


def _columns(rows: list[list[str]], count: int, path: Path) -> np.ndarray:
    if any(len(row) != count for row in rows):
        raise ValueError(f"{path} has a vertex of fewer than {count} numbers")
    return numbers([w for row in rows for w in row], path).astype(np.float32).reshape(-1, count)


def _corner(word: str, vertices: int, uv: int, path: Path) -> tuple[int, int]:
    """ "3", "3/5", "3//7", "-1/-1/-1" -> index from 0 of the vertex and of its coordinates, -1 for none."""
    first, _, rest = word.partition("/")
    second = rest.partition("/")[0]
    try:
        a, b = int(first), int(second) if second else 0
    except ValueError:
        raise ValueError(f"{path} has a face with the corner '{word[:40]}'") from None
    a, b = (a + vertices if a < 0 else a - 1), (b + uv if b < 0 else b - 1)
    if a < 0 or b < -1:
        raise ValueError(f"{path} has a face with the corner '{word[:40]}', which is no vertex")
    return a, b


def _quads(faces: list[list[tuple[int, int]]], path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = []
    for face in faces:
        if len(face) == 4:
            rows.append(face)
        else:
            last = len(face) - 1
            rows += [[face[0], face[k], face[k + 1], face[min(k + 2, last)]] for k in range(1, last, 2)]
    if not rows:
        raise ValueError(f"{path} has no faces")
    both = np.array(rows, np.int64)
    return both[..., 0], both[..., 1]


# --- a garment


def read_clothes(path: Path, root: Path | None = None) -> Clothes:
    """The garment of an .mhclo and its .obj, or of the prepared pack's npz.

    Raises:
        ValueError: a path leads out of `root` (by default the file's own folder), a number is not finite, a
            base vertex does not exist, the number of bindings is not that of vertices, there are no faces,
            the base mesh is another, or a file is too large or of another kind; the message names the file.
    """
    if path.suffix == ".npz":
        return _checked(_read_npz(path), path)
    return bound_clothes(path, read_mhclo(path), root)


def bound_clothes(path: Path, content: Mhclo, root: Path | None = None) -> Clothes:
    """The garment of an .mhclo whose content was read already."""
    base = content.words.get("basemesh", "hm08")
    if base != "hm08":
        raise ValueError(f"{path} is bound to the base mesh '{base[:40]}'; only hm08 is known")
    if not len(content.bindings):
        raise ValueError(f"{path} binds no vertices")
    name = content.words.get("obj_file", "")
    mesh = named_file(path, name, root or path.parent) if name else None
    if mesh is None:
        raise ValueError(f"{path} has no mesh: there is no obj_file '{name}'")
    scale_vertices, scale_lengths = _scales(content.words, path)
    clothes = Clothes(
        *read_obj(mesh),
        bind_indices=_indices(content.bindings[:, :3], path, "is bound to base vertex"),
        bind_weights=content.bindings[:, 3:6].astype(np.float32),
        bind_offsets=content.bindings[:, 6:].astype(np.float32),
        scale_vertices=scale_vertices,
        scale_lengths=scale_lengths.astype(np.float32),
        delete_vertices=content.delete_vertices,
        z_depth=int(numbers(content.words.get("z_depth", "50").split()[:1], path)[0]),
    )
    return _checked(clothes, path)


def _read_npz(path: Path) -> Clothes:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > MAX_FILE_BYTES:
            raise ValueError(f"it unpacks to {size >> 20} MiB")
        with np.load(path, allow_pickle=False) as data:
            arrays = {field.name: data[field.name] for field in fields(Clothes)}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a prepared garment: {error}") from error
    arrays["z_depth"] = int(arrays["z_depth"])
    for name in ("quads", "quads_uv", "bind_indices", "scale_vertices", "delete_vertices"):
        arrays[name] = arrays[name].astype(np.int64)
    return Clothes(**arrays)


def _checked(clothes: Clothes, path: Path) -> Clothes:
    """The clothes, if their arrays fit one another and the base mesh.

    Raises:
        ValueError: they do not; the message names the file.
    """
    count = len(clothes.vertices)
    if not len(clothes.quads):
        raise ValueError(f"{path} has no faces")
    if len(clothes.bind_indices) != count:
        raise ValueError(f"{path} binds {len(clothes.bind_indices)} vertices, its mesh has {count}")
    for name in ("vertices", "uv", "bind_weights", "bind_offsets", "scale_lengths"):
        values = getattr(clothes, name)
        if not np.isfinite(values).all():
            raise ValueError(f"{path} has {name} that are not finite")
        if name != "uv" and np.abs(values).max(initial=0) > FARTHEST:
            raise ValueError(
                f"{path} has {name} of {np.abs(values).max():g}; more than {FARTHEST:g} is no garment"
            )
    for name, limit in (("bind_indices", BASE_VERTICES), ("scale_vertices", BASE_VERTICES),
                        ("delete_vertices", BASE_VERTICES), ("quads", count),
                        ("quads_uv", len(clothes.uv))):  # fmt: skip
        values = getattr(clothes, name)
        if values.size and not 0 <= values.min() <= values.max() < limit:
            raise ValueError(
                f"{path} has {name} from {values.min()} to {values.max()}, allowed are 0 to {limit - 1}"
            )
    return clothes


# --- .mhmat

_PICTURES = {
    "diffusetexture": "diffuse",
    "aomaptexture": "ao",
    "normalmaptexture": "normal",
    "normaltexture": "normal",
}


def read_mhmat(path: Path) -> Material:
    """A material; comments begin with # or //, and what is not drawn here (shaders, gloss) is left out."""
    content: dict[str, str] = {}
    tags = []
    for line in read_text(path).split("\n"):
        keyword, _, rest = line.strip().replace("\t", " ").partition(" ")
        if keyword.lower() == "tag":
            tags.append(rest.strip())
        elif keyword and not keyword.startswith(("#", "//")):
            content[keyword.lower()] = rest.strip()
    color = numbers(content.get("diffusecolor", "1 1 1").split(), path)
    if len(color) != 3:
        raise ValueError(f"{path} has a diffuseColor of {len(color)} numbers, not 3")
    r, g, b = (min(max(c, 0.0), 1.0) for c in color)
    pictures = {kind: content[word] for word, kind in _PICTURES.items() if content.get(word)}
    yes = {
        word: content.get(word, "").lower() in ("true", "1", "yes")
        for word in ("transparent", "backfacecull")
    }
    two_sided = not yes["backfacecull"] and "backfacecull" in content
    return Material(tuple(tags), (r, g, b), yes["transparent"], two_sided, pictures)
