"""Small assets in MakeHuman's formats, as strangers write them, for tests of their readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from multihmr.data.synthetic.makehuman import Clothes

AXES = "xyz"


def patch(base: np.ndarray | list[int], *, z_depth: int = 50) -> Clothes:
    """A strip of quads, each vertex of which lies 0.1 dm before one base vertex; (V, 2) corners, V even."""
    base = np.asarray(base).reshape(-1, 2)
    row, count = np.arange(len(base) - 1) * 2, base.size
    down = np.round(np.arange(count) // 2 / max(len(base) - 1, 1), 4)
    quads = np.stack([row, row + 1, row + 3, row + 2], 1)
    grid = np.stack([np.arange(count) % 2, down], 1).astype(np.float32)
    return Clothes(
        vertices=np.concatenate([grid, np.zeros((count, 1), np.float32)], 1),
        uv=grid,
        quads=quads,
        quads_uv=quads,
        bind_indices=np.repeat(base.reshape(-1, 1), 3, axis=1),
        bind_weights=np.tile(np.float32([0.5, 0.25, 0.25]), (count, 1)),
        bind_offsets=np.tile(np.float32([0, 0, 0.1]), (count, 1)),
        scale_vertices=np.array([[5399, 11998], [791, 881], [962, 5320]]),
        scale_lengths=np.float32([1.4, 2.3, 1.9]),
        delete_vertices=np.array([3, 10, 11, 12]),
        z_depth=z_depth,
    )


def mhclo_text(clothes: Clothes, mesh: str, *lines: str) -> str:
    """The .mhclo that binds `clothes`; numbers as MakeClothes writes them, `lines` after the bindings."""
    scales = zip(AXES, clothes.scale_vertices, clothes.scale_lengths, strict=True)
    rows = np.concatenate([clothes.bind_weights, clothes.bind_offsets], 1)
    text = ["# made for tests, released as CC0", "basemesh hm08", "name thing", f"obj_file {mesh}"]
    text += [f"{axis}_scale {a} {b} {length:.4f}" for axis, (a, b), length in scales if length]
    text += [f"z_depth {clothes.z_depth}", "verts 0"]
    for index, row in zip(clothes.bind_indices, rows, strict=True):
        alone = (index == index[0]).all() and row[0] == 1 and not row[1:].any()
        whole = " ".join(map(str, index)) + " " + " ".join(f"{value:.5f}" for value in row)
        text.append(str(index[0]) if alone else whole)
    text += [*lines, "delete_verts"] + [str(vertex) for vertex in clothes.delete_vertices]
    return "\n".join(text) + "\n"


def obj_text(clothes: Clothes) -> str:
    faces = [
        "f " + " ".join(f"{a + 1}/{b + 1}" for a, b in zip(*both, strict=True))
        for both in zip(clothes.quads, clothes.quads_uv, strict=True)
    ]
    points = ["v " + " ".join(f"{x:.4f}" for x in p) for p in clothes.vertices]
    return "\n".join([*points, *("vt " + " ".join(f"{x:.4f}" for x in p) for p in clothes.uv), *faces]) + "\n"


def write_clothes(folder: Path, clothes: Clothes, *lines: str) -> Path:
    """folder/x.mhclo with x.obj beside it; `folder` is made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{folder.name}.mhclo"
    path.with_suffix(".obj").write_text(obj_text(clothes), encoding="utf-8")
    path.write_text(mhclo_text(clothes, f"{folder.name}.obj", *lines), encoding="utf-8")
    return path


def write_picture(path: Path, color: tuple[int, int, int] = (200, 10, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(path)
    return path


def bvh_text(joints: list[tuple[str, int, tuple[float, ...]]], frames: np.ndarray) -> str:
    """joints: name, depth in the tree, offset, in the order of the file; frames (F, 3 + 3 J) [degrees]."""
    lines = ["HIERARCHY"]
    for k, (name, depth, offset) in enumerate(joints):
        after = joints[k + 1][1] if k + 1 < len(joints) else 0
        moves = "6 Xposition Yposition Zposition" if k == 0 else "3"
        lines += ["JOINT " + name if k else "ROOT " + name, "{", "OFFSET " + " ".join(map(str, offset))]
        lines.append(f"CHANNELS {moves} Xrotation Yrotation Zrotation")
        if after <= depth:
            lines += ["End Site", "{", "OFFSET 0 0 1", "}"] + ["}"] * (depth - after + 1)
    rows = [" ".join(f"{value:.6f}" for value in frame) for frame in frames]
    return "\n".join([*lines, "MOTION", f"Frames: {len(rows)}", "Frame Time: 0.04", *rows]) + "\n"
