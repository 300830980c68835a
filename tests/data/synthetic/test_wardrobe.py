"""The wardrobe: a folder of strangers' assets is sorted, bad ones are refused by name, the rest is worn."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from community import bvh_text, patch, write_clothes, write_picture
from PIL import Image

from multihmr.bodies.anny import Anny
from multihmr.data.synthetic.assets import REGIONS, files_below
from multihmr.data.synthetic.makehuman import read_clothes
from multihmr.data.synthetic.poses import PoseSampler, quaternions_to_matrices, turn
from multihmr.data.synthetic.splits import entries_of_split
from multihmr.data.synthetic.textures import TextureBuffer
from multihmr.data.synthetic.wardrobe import (
    SKIN_VERTICES,
    Garment,
    Outfit,
    Paint,
    Rig,
    Wardrobe,
    body_regions,
    rig_of,
)

PACK = Path(__file__).resolve().parents[4] / "shared/assets/makehuman_cc0"
needs_pack = pytest.mark.skipif(
    not PACK.is_dir(), reason="the CC0 pack (shared/assets/makehuman_cc0) is not here"
)


@pytest.fixture(scope="module")
def topology() -> Any:
    return Anny(helpers=True).topology


@pytest.fixture(scope="module")
def rig(topology: Any) -> Rig:
    return rig_of(topology)


@pytest.fixture(scope="module")
def at(rig: Rig) -> dict[str, np.ndarray]:
    """Eight base vertices of each part of the body."""
    regions = body_regions(rig)
    return {name: np.flatnonzero(regions == k)[:8] for k, name in enumerate(REGIONS)}


def wardrobe(folder: Path | None, topology: Any) -> Wardrobe:
    return Wardrobe(folder, topology, TextureBuffer())


def skin(folder: Path, *lines: str) -> None:
    """A skin as MakeHuman has them: its picture lies in another folder than its material."""
    write_picture(folder.parent / "textures/skin.png")
    folder.mkdir(parents=True)
    material = ["diffuseTexture ../textures/skin.png", *lines]
    (folder / f"{folder.name}.mhmat").write_text("\n".join(material), encoding="utf-8")


# --- sorting


@pytest.mark.parametrize(
    ("name", "tags", "parts", "expected"),
    [
        ("male_worksuit01", (), "torso arms thighs", ("clothes", "suit", "male")),
        ("x", ("tag Dress", "tag Female"), "torso thighs", ("clothes", "dress", "female")),
        ("lady_tshirt", (), "torso arms", ("clothes", "top", "female")),
        ("Leather_Jacket_02", ("tag Unisex",), "torso arms", ("clothes", "jacket", "any")),
        ("jeans01", ("tag Male", "tag Female"), "hips thighs shanks", ("clothes", "bottom", "any")),
        ("miniskirt", (), "hips thighs", ("clothes", "skirt", "any")),
        ("long_socks", (), "shanks feet", ("clothes", "socks", "any")),
        ("x", ("tag Shoes",), "feet", ("shoes", None, "any")),
        ("bowler_hat", (), "head", ("hats", None, "any")),
        ("full_beard", ("tag Male",), "head", ("beards", None, "male")),
        ("sun_glasses", (), "head", ("accessories", None, "any")),
        ("panties", (), "hips", ("underwear", None, "any")),
        ("necklace", (), "torso", ("accessories", None, "any")),
        ("dress_with_belt", (), "torso thighs", ("clothes", "dress", "any")),
    ],
)
def test_clothes_are_sorted_by_words_and_by_where_they_are_bound(
    name: str, tags: tuple[str, ...], parts: str, expected: Any, tmp_path: Path, topology: Any, at: Any
) -> None:
    write_clothes(tmp_path / "clothes" / name, patch(np.concatenate([at[p] for p in parts.split()])), *tags)
    (entry,) = wardrobe(tmp_path, topology).entries.values()
    assert (entry["category"], entry.get("slot"), entry["gender"]) == expected


def test_what_no_word_tells_is_said_and_what_nothing_tells_is_refused(
    tmp_path: Path, topology: Any, at: Any
) -> None:
    write_clothes(tmp_path / "clothes/a", patch(np.concatenate([at["torso"], at["thighs"]])), "tag Male")
    write_clothes(tmp_path / "clothes/b", patch(at["head"]))
    write_clothes(tmp_path / "clothes/hat", patch(at["torso"]))
    write_clothes(tmp_path / "hair/c", patch(at["head"]), "tag Female")
    write_clothes(tmp_path / "things/d", patch(at["head"]))
    with pytest.warns(UserWarning, match=r"unusable assets in .*: 3 .*worn at the head"):
        w = wardrobe(tmp_path, topology)
    assert sorted(w.entries) == ["clothes/a/a", "hair/c/c"]
    assert "taken as suit by the parts of the body" in w.doubts["clothes/a/a"]
    assert sorted(w.refused) == ["clothes/b/b.mhclo", "clothes/hat/hat.mhclo", "things/d/d.mhclo"]
    assert "worn at the torso and its tags say hats" in w.refused["clothes/hat/hat.mhclo"]
    assert "none of MakeHuman's folders" in w.refused["things/d/d.mhclo"]


def test_skins_and_irises_are_materials(tmp_path: Path, topology: Any) -> None:
    skin(tmp_path / "skins/old_asian_male", "tag Hobby")
    skin(tmp_path / "skins/plain", "tag Young", "tag Caucasian")
    write_picture(tmp_path / "eyes/materials/blue.png")
    (tmp_path / "eyes/materials/blue.mhmat").write_text("diffuseTexture blue.png", encoding="utf-8")
    w = wardrobe(tmp_path, topology)
    man = w.entries["skins/old_asian_male/old_asian_male"]
    assert [man[k] for k in ("gender", "age", "tone")] == ["male", "old", "asian"]
    assert w.doubts == {"skins/plain/plain": "no tag gives its gender."}
    assert w.names("iris") == ["eyes/materials/blue"]
    assert w.asset_texture("skins/plain/plain", 4).size == 4
    assert w.missing() == ("clothes", "shoes", "hair", "eyes", "eyebrows", "eyelashes", "teeth")


def test_textures_are_the_picture_or_the_colour(tmp_path: Path, topology: Any, at: Any) -> None:
    for name in ("red", "blue", "gone"):
        write_clothes(tmp_path / f"clothes/{name}_top", patch(at["torso"]), "tag Male", "material m.mhmat")
    write_picture(tmp_path / "clothes/red_top/Cloth.PNG")
    for name, line in (
        ("red", "diffuseTexture cloth.png"),
        ("blue", "diffuseColor 0 0 1"),
        ("gone", "diffuseTexture x.png"),
    ):
        (tmp_path / f"clothes/{name}_top/m.mhmat").write_text(f"{line}\ntransparent True", encoding="utf-8")
    w = wardrobe(tmp_path, topology)
    colors = {}
    for name, entry in w.entries.items():
        texture = w.asset_texture(name, 4)
        colors[name.split("/")[1]] = tuple(w.textures.bytes[texture.offset :][:3])
        assert entry["alpha"]
    assert colors == {"red_top": (200, 10, 10), "blue_top": (0, 0, 255), "gone_top": (255, 255, 255)}
    assert "there is no picture x.png" in w.doubts["clothes/gone_top/gone_top"]


# --- strangers


def write_bomb(path: Path, side: int) -> None:
    """A PNG of some bytes that says it is `side` pixels wide and high."""
    data = write_picture(path).read_bytes()
    head = b"IHDR" + struct.pack(">II", side, side) + data[24:29]
    path.write_bytes(data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:])


@pytest.mark.parametrize("side", [8100, 10_000, 60_000])  # for Pillow a picture, a warning and an error
def test_one_bad_asset_is_refused_by_name_and_the_rest_is_used(
    side: int, tmp_path: Path, topology: Any, at: Any
) -> None:
    top = patch(at["torso"])
    write_clothes(tmp_path / "clothes/good_top", top, "tag Male")
    for name, material in (("bomb", "bomb.png"), ("thief", "../../../secret.png"), ("script", "script.png")):
        write_clothes(tmp_path / f"clothes/{name}_top", top, "tag Male", "material m.mhmat")
        (tmp_path / f"clothes/{name}_top/m.mhmat").write_text(f"diffuseTexture {material}", encoding="utf-8")
    write_bomb(tmp_path / "clothes/bomb_top/bomb.png", side)
    (tmp_path / "clothes/script_top/script.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        encoding="utf-8",
    )
    (tmp_path / "clothes/binary").mkdir()
    (tmp_path / "clothes/binary/binary.mhclo").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    with pytest.warns(UserWarning, match="unusable assets in .*: 4 "):
        w = wardrobe(tmp_path, topology)
    assert list(w.entries) == ["clothes/good_top/good_top"]
    reasons = {Path(name).stem: reason for name, reason in w.refused.items()}
    assert "bomb.png cannot be read as a picture: " in reasons["bomb_top"]
    assert "pixels" in reasons["bomb_top"]
    assert "secret.png', which lies outside its folder" in reasons["thief_top"]
    assert "script.png cannot be read as a picture" in reasons["script_top"]
    assert "is binary" in reasons["binary"]


def test_a_picture_that_breaks_off_costs_its_colours(tmp_path: Path, topology: Any) -> None:
    for name in ("a", "b"):
        folder = tmp_path / "skins" / f"{name}_young_asian_male"
        folder.mkdir(parents=True)
        (folder / "x.mhmat").write_text(
            f"diffuseTexture x.{'png' if name == 'a' else 'jpg'}", encoding="utf-8"
        )
        picture = folder / f"x.{'png' if name == 'a' else 'jpg'}"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(picture)
        picture.write_bytes(picture.read_bytes()[:-600])
    with pytest.warns(UserWarning, match=r"unusable assets .*: 1 .*x\.png cannot be read"):
        w = wardrobe(tmp_path, topology)
    with pytest.warns(UserWarning, match=r"x\.jpg cannot be read .*b_young_asian_male/x is drawn without"):
        w.asset_texture("skins/b_young_asian_male/x")
    assert len(w.refused) == 2


def test_broken_packs_are_refused_by_name(tmp_path: Path, topology: Any) -> None:
    for name, index in (
        ("a", "{"),
        ("b", '{"assets": [{"name": "hat", "category": "hats", "mesh": "../x.npz"}]}'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(index, encoding="utf-8")
    with pytest.warns(UserWarning, match="unusable assets in .*: 2 "):
        w = wardrobe(tmp_path, topology)
    assert "not the index of a prepared pack" in w.refused["a/index.json"]
    assert "outside its folder" in w.refused["hat"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        wardrobe(tmp_path / "nowhere", topology)


def test_names_do_not_depend_on_where_the_folder_lies(tmp_path: Path, topology: Any, at: Any) -> None:
    write_clothes(tmp_path / "data/clothes/a_top", patch(at["torso"]), "tag Male")
    places = (tmp_path, tmp_path / "data", tmp_path / "data/clothes")
    assert {tuple(wardrobe(p, topology).entries) for p in places} == {("clothes/a_top/a_top",)}


# --- wearing


def test_clothes_lie_where_their_bindings_say(rig: Rig, topology: Any, at: Any) -> None:
    clothes = patch(at["torso"])
    rest = np.random.default_rng(0).normal(size=(19158, 3)).astype(np.float32)
    entry = {"name": "a", "category": "clothes", "slot": "suit"}
    fitted = Garment(clothes, entry, rig).fit(rest)
    a, b = clothes.scale_vertices[2]
    scale = abs(rest[a, 1] - rest[b, 1]) / 0.19  # of MakeHuman's z, decimetres
    assert np.allclose(fitted, rest[at["torso"]] + np.float32([0, -0.01 * scale, 0]), atol=1e-6)


def test_people_wear_strangers_clothes_and_their_own_eyes(tmp_path: Path, topology: Any, at: Any) -> None:
    write_clothes(tmp_path / "clothes/a_top", patch(at["torso"]), "tag Male")
    w = wardrobe(tmp_path, topology)
    paint = Paint(w.white())
    look = Outfit(paint, ("clothes/a_top/a_top",), {"clothes/a_top/a_top": [paint]})
    rest = np.random.default_rng(0).normal(size=(19158, 3)).astype(np.float32)
    still = np.tile(np.eye(3, 4, dtype=np.float32), (len(w.rig.joint_names), 1, 1))
    body, top, eyes = w.dress(look, rest, still)
    assert np.allclose(top.vertices, w.garment("clothes/a_top/a_top").fit(rest), atol=1e-5)
    assert len(body.vertices) == SKIN_VERTICES
    assert len(eyes.faces) == len(w.rig.eye_faces)
    assert len(eyes.paints) == 2


def test_triangles_of_a_garment_are_drawn_once(rig: Rig, at: Any, tmp_path: Path) -> None:
    path = write_clothes(tmp_path / "x", patch(at["torso"]))
    mesh = path.with_suffix(".obj")
    mesh.write_text(
        mesh.read_text(encoding="utf-8").replace("f 1/1 2/2 4/4 3/3", "f 1/1 2/2 4/4"), encoding="utf-8"
    )
    faces = Garment(read_clothes(path), {"name": "x", "category": "hair"}, rig).faces
    assert faces.tolist() == [[0, 1, 3], [2, 3, 5], [4, 5, 7], [2, 5, 4], [4, 7, 6]]


@pytest.mark.slow
@needs_pack
def test_a_pack_and_strangers_assets_are_one_wardrobe(tmp_path: Path, topology: Any, at: Any) -> None:
    (tmp_path / "makehuman_cc0").symlink_to(PACK)
    pack = wardrobe(PACK, topology)
    assert pack.refused == {}
    assert pack.missing() == ()
    gown, prepared = "clothes/crude_gown/crude_gown", read_clothes(PACK / "clothes/crudegown.npz")
    write_clothes(tmp_path / "clothes/crude_gown", prepared, "tag Female")
    own = wardrobe(tmp_path, topology)
    assert set(own.entries) == {gown, *pack.entries}
    rest = np.random.default_rng(0).normal(size=(19158, 3)).astype(np.float32)
    assert np.allclose(own.garment(gown).fit(rest), pack.garment("crudegown").fit(rest), atol=1e-5)
    assert own.entries[gown]["slot"] == pack.entries["crudegown"]["slot"] == "dress"
    assert set(entries_of_split(own.entries, "all")) == set(own.entries)


@pytest.mark.slow
@needs_pack
def test_the_pack_is_sorted_as_its_makers_did(tmp_path: Path, topology: Any) -> None:
    """From folders, names and bindings alone; the makers' names for clothes without tags are theirs too."""
    made = {
        a["name"]: a
        for a in wardrobe(PACK, topology).entries.values()
        if a["category"] in ("clothes", "shoes") and a["vertices"] < 1700
    }
    for name, entry in made.items():
        words = name.replace("crude", "crude_").replace("female", "female_")
        folder = tmp_path / "clothes" / words
        write_clothes(folder, read_clothes(PACK / entry["mesh"]), *(f"tag {tag}" for tag in entry["tags"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = wardrobe(tmp_path, topology).entries
    assert len(found) == len(made)
    for entry, other in zip(
        sorted(found.values(), key=lambda e: e["mesh"]),
        sorted(made.values(), key=lambda e: e["name"]),
        strict=True,
    ):
        assert (entry["category"], entry.get("slot")) == (other["category"], other.get("slot"))


# --- poses


@pytest.fixture(scope="module")
def reference(topology: Any) -> np.ndarray:
    body = Anny()
    with torch.no_grad():
        return (
            body(torch.eye(3).expand(1, 104, 3, 3), body.mean_shape_S[None], torch.zeros(1, 52))
            .joints_PJ3[0]
            .numpy()
        )


def test_bvh_files_become_poses(tmp_path: Path, topology: Any, reference: np.ndarray) -> None:
    joints, depth = [], [0]
    for k, parent in enumerate(topology.parents):
        depth += [depth[parent] + 1] if k else []
        offset = reference[k] - (reference[parent] if k else 0)
        joints.append((topology.joint_names[k], depth[k], tuple(offset)))
    (tmp_path / "poses").mkdir()
    (tmp_path / "poses/standing7.bvh").write_text(
        bvh_text(joints, np.full((2, 3 + 3 * 104), 9.0)), encoding="utf-8"
    )
    (tmp_path / "poses/other.bvh").write_text("nothing", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"unusable poses .*: 1 .*other\.bvh"):
        sampler = PoseSampler(topology.joint_names, reference, tmp_path)
    assert sampler._posed_names == ["standing7", "standing7"]
    assert list(sampler.refused) == ["poses/other"]
    nine = np.radians(9.0)
    drawn = sampler._artist(np.random.default_rng(0), calm=True).rotations
    assert np.allclose(
        drawn, turn((1, 0, 0), nine) @ turn((0, 1, 0), nine) @ turn((0, 0, 1), nine), atol=1e-6
    )


@needs_pack
def test_bvh_files_of_the_pack_give_its_prepared_poses(
    tmp_path: Path, topology: Any, reference: np.ndarray
) -> None:
    for path in files_below(PACK / "poses", (".bvh",))[::6]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    sampler = PoseSampler(topology.joint_names, reference, tmp_path)
    with np.load(PACK / "poses/poses_anny_local_ref.npz") as d:
        order = [list(d["bone_names"]).index(name) for name in topology.joint_names]
        rows = [list(d["pose_names"]).index(name) for name in sampler._posed_names]
        prepared = quaternions_to_matrices(d["quat_xyzw"][rows][:, order])
    assert len(rows) == 6
    assert np.allclose(sampler._posed, prepared, atol=1e-6)
