"""MakeHuman's file formats: what was written is read, in whatever way, and hostile files are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from community import bvh_text, mhclo_text, obj_text, patch, write_clothes

from multihmr.data.synthetic.bvh import read_bvh, rig_rotations
from multihmr.data.synthetic.makehuman import Clothes, read_clothes, read_mhclo, read_mhmat, read_obj

PACK = Path(__file__).resolve().parents[4] / "shared/assets/makehuman_cc0"


def same(a: Clothes, b: Clothes) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(*map(dataclasses.astuple, (a, b)), strict=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A garment of three quads."""
    return write_clothes(tmp_path / "vest", patch(range(8)))


def test_clothes_are_read_as_they_were_written(path: Path) -> None:
    assert same(read_clothes(path), patch(range(8)))


@pytest.mark.skipif(not PACK.is_dir(), reason="the CC0 pack (shared/assets/makehuman_cc0) is not here")
@pytest.mark.parametrize("name", ["clothes/crudegown", "shoes/shoes04", "hair/bob02", "eyes/low-poly_eyes"])
def test_text_files_of_the_pack_give_its_arrays(name: str, tmp_path: Path) -> None:
    prepared = read_clothes(PACK / f"{name}.npz")
    again = read_clothes(write_clothes(tmp_path / "x", prepared))
    for field in dataclasses.fields(Clothes):
        before, after = getattr(prepared, field.name), getattr(again, field.name)
        assert np.allclose(before, after, rtol=0, atol=1e-6 if "bind" in field.name else 5.1e-5), field.name


def test_keywords_may_stand_anywhere_and_lines_end_as_on_windows(path: Path) -> None:
    text = mhclo_text(
        patch(range(8)), "VEST.OBJ", "material é.mhmat", "tag Male", "", "# nothing", "tag Café"
    )
    path.write_bytes(
        text.replace("\n", "\r\n")
        .replace("\r\ntag Male", "\r\n3 4 5 1 0 0 0 0 0\r\ntag Male")
        .encode("latin-1")
    )
    said = read_mhclo(path)
    assert said.tags == ("Male", "Café")
    assert said.words["material"] == "é.mhmat"
    assert said.words["license"] == "CC0"
    assert len(said.bindings) == 9
    path.write_bytes(text.replace("\n", "\r\n").encode("latin-1"))
    assert same(read_clothes(path), patch(range(8)))  # VEST.OBJ is vest.obj


@pytest.mark.parametrize(
    ("lines", "hidden"),
    [("17\n19", [17, 19]), ("17 - 20", [17, 18, 19, 20]), ("3 5-7 9\n1", [1, 3, 5, 6, 7, 9]), ("", [])],
)
def test_hidden_vertices_are_single_or_ranges(lines: str, hidden: list[int], path: Path) -> None:
    path.write_text(f"verts 0\n1\ndelete_verts\n{lines}\n", encoding="utf-8")
    assert read_mhclo(path).delete_vertices.tolist() == hidden


def test_a_lone_index_is_the_vertex_itself(path: Path) -> None:
    path.write_text("verts 0\n 12\n13 14 15 .5 .25 .25 0 1e-2 -.1\n", encoding="utf-8")
    assert read_mhclo(path).bindings.tolist() == [
        [12, 12, 12, 1, 0, 0, 0, 0, 0],
        [13, 14, 15, 0.5, 0.25, 0.25, 0, 0.01, -0.1],
    ]


@pytest.mark.parametrize("prefix", ["", "l_", "r_"])
def test_shear_scales_as_the_coordinates_it_names_lie_apart(prefix: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for axis in "xyz":
        text = text.replace(f"{axis}_scale", f"# {axis}_scale")
    path.write_text(
        text.replace("verts 0", f"{prefix}shear_y 791 881 -0.5 2.0\nverts 0", 1), encoding="utf-8"
    )
    clothes = read_clothes(path)
    assert clothes.scale_lengths.tolist() == [0, 2.5, 0]
    assert clothes.scale_vertices[1].tolist() == [791, 881]


def test_corners_of_an_obj(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    vertices = "".join(f"v {k} 0 0\n" for k in range(5))
    path.write_text(
        vertices
        + "vt 0 1\nvt 1 0\nf 1/1 2/2 3/1 4/2\nf 1//1 2//1 3//1\nf -1/-1 -2 -3/-2/7 1\nf 1 2 3 4 \\\n5\n",
        encoding="utf-8",
    )
    obj = read_obj(path)
    assert obj.quads.tolist() == [[0, 1, 2, 3], [0, 1, 2, 2], [4, 3, 2, 0], [0, 1, 2, 3], [0, 3, 4, 4]]
    assert obj.quads_uv.tolist() == [[0, 1, 0, 1], [2] * 4, [1, 2, 0, 2], [2] * 4, [2] * 4]
    assert obj.uv.tolist() == [[0, 1], [1, 0], [0, 0]]


HOSTILE = {
    "nan in a binding": (".mhclo", ("0.50000", "nan"), "not finite"),
    "inf in a vertex": (".obj", ("v 1.0000", "v inf"), "not finite"),
    "overflow": (".obj", ("v 1.0000", "v 1e400"), "not finite"),
    "far vertex": (".obj", ("v 1.0000", "v 12345"), "vertices of 12345"),
    "no number": (".mhclo", ("0.50000", "a half"), "has a binding of 10 numbers"),
    "word for a number": (".obj", ("v 1.0000", "v one"), "'one' where a number was expected"),
    "base vertex": (".mhclo", ("7 7 7", "7 7 19158"), "base vertex 19158; the base mesh has"),
    "half a base vertex": (".mhclo", ("7 7 7", "7 7 7.5"), "base vertex 7.5"),
    "hidden vertex": (".mhclo", ("\n11\n", "\n11 - 99999\n"), "hides base vertex 99999"),
    "more bindings": (".mhclo", ("verts 0", "verts 0\n1"), "binds 9 vertices, its mesh has 8"),
    "fewer bindings": (".obj", ("v ", "v 0 0 0\nv "), "binds 8 vertices, its mesh has 9"),
    "short binding": (".mhclo", ("verts 0", "verts 0\n1 2"), "a binding of 2 numbers"),
    "other base mesh": (".mhclo", ("hm08", "alpha_7"), "base mesh 'alpha_7'"),
    "no mesh": (".mhclo", ("vest.obj", "gone.obj"), "no obj_file 'gone.obj'"),
    "outside": (".mhclo", ("vest.obj", "../../secret.obj"), "lies outside its folder"),
    "outside on windows": (".mhclo", ("vest.obj", "C:\\\\secret.obj"), "lies outside its folder"),
    "absolute": (".mhclo", ("vest.obj", "/etc/passwd"), "lies outside its folder"),
    "no faces": (".obj", ("f ", "# "), "has no faces"),
    "missing corner": (".obj", ("f 1/1", "f 99/1"), "vertex that it does not have"),
    "corner zero": (".obj", ("f 1/1", "f 0/1"), "corner '0/1'"),
    "corner before the first": (".obj", ("f 1/1", "f -9/1"), "corner '-9/1'"),
    "scale of nothing": (".mhclo", ("11998 1.4000", "11998 0"), "x_scale with the length 0"),
    "binary": (".mhclo", ("verts", "\0"), "is binary"),
    "endless line": (".mhclo", ("verts", "x" * 300_000), "a line of more than"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_clothes_are_refused_by_name(kind: str, path: Path) -> None:
    ending, (before, after), sentence = HOSTILE[kind]
    file = path.with_suffix(ending)
    assert before in file.read_text(encoding="utf-8")
    file.write_text(
        file.read_text(encoding="utf-8").replace(before, after, -1 if before == "f " else 1), encoding="utf-8"
    )
    with pytest.raises(ValueError, match=sentence) as error:
        read_clothes(path)
    assert "vest" in str(error.value)


def test_a_link_out_of_the_folder_is_refused(path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.obj"
    path.with_suffix(".obj").rename(outside)
    path.with_suffix(".obj").symlink_to(outside)
    with pytest.raises(ValueError, match="outside its folder"):
        read_clothes(path)
    assert len(read_clothes(path, tmp_path).quads) == 3


def test_absurd_sizes_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multihmr.data.synthetic.makehuman.MAX_VERTICES", 7)
    with pytest.raises(ValueError, match="binds more than 7"):
        read_clothes(path)
    with pytest.raises(ValueError, match="too large: 8 vertices"):
        read_obj(path.with_suffix(".obj"))
    monkeypatch.setattr("multihmr.data.synthetic.untrusted_text.MAX_FILE_BYTES", 100)
    with pytest.raises(ValueError, match="MiB"):
        read_clothes(path)


def test_a_broken_npz_is_refused_by_name(tmp_path: Path) -> None:
    arrays = dataclasses.asdict(patch(range(8)))
    np.savez(tmp_path / "a.npz", **(arrays | {"bind_indices": arrays["bind_indices"] + 19155}))
    np.savez(tmp_path / "b.npz", vertices=arrays["vertices"])
    (tmp_path / "c.npz").write_text("nothing", encoding="utf-8")
    for name, sentence in (
        ("a", "bind_indices from 19155 to 19162"),
        ("b", "not a prepared"),
        ("c", "not a prepared"),
    ):
        with pytest.raises(ValueError, match=rf"{name}\.npz (has|is) {sentence}"):
            read_clothes(tmp_path / f"{name}.npz")


def test_materials(tmp_path: Path) -> None:
    path = tmp_path / "a.mhmat"
    path.write_text(
        "# comment\n// comment\nname x\ntag Female\ndiffuseColor 0.2 0.4 1.5\ntransparent True\n"
        "backfaceCull False\ndiffuseTexture my cloth.png\naomapTexture\tao.png\nnormalmapTexture n.png\n"
        "shaderParam diffuse 1\n",
        encoding="utf-8",
    )
    material = read_mhmat(path)
    assert material.pictures == {"diffuse": "my cloth.png", "ao": "ao.png", "normal": "n.png"}
    assert material.color == (0.2, 0.4, 1.0)
    assert (material.alpha, material.two_sided, material.tags) == (True, True, ("Female",))
    path.write_text("diffuseColor 1 nan 1", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.mhmat has a number that is not finite"):
        read_mhmat(path)


# --- poses

RIG = [("root", 0, (0, 0, 8)), ("spine01", 1, (0, 0, 4)), ("head", 2, (0, 0, 3))]
for _side, _sign in (("L", 1), ("R", -1)):
    RIG += [(f"upperarm01.{_side}", 1, (_sign * 2, 0, 4)), (f"wrist.{_side}", 2, (_sign * 3, 0, -3))]
    RIG += [(f"upperleg01.{_side}", 1, (_sign, 0, 0)), (f"foot.{_side}", 2, (0, 0, -8))]
NAMES = [name for name, *_ in RIG] + ["toe1-1.L"]


def reference() -> np.ndarray:
    at: dict[int, np.ndarray] = {}
    places = []
    for _, depth, offset in RIG:
        at[depth] = at.get(depth - 1, np.zeros(3)) + offset
        places.append(0.1 * at[depth])
    return np.array([*places, np.zeros(3)])


def one_frame(**degrees: tuple[float, float, float]) -> np.ndarray:
    names = [name.replace(".", "_") for name in NAMES[:-1]]
    frame = np.zeros((1, 3 + 3 * len(RIG)))
    for name, angles in degrees.items():
        frame[0, 3 + 3 * names.index(name) :][:3] = angles
    return frame


def turned(axis: int, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = c
    matrix[b, a], matrix[a, b] = s, -s
    return matrix


def test_rotations_follow_the_order_of_the_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.bvh"
    path.write_text(bvh_text(RIG, one_frame(head=(30, 40, 50))), encoding="utf-8")
    rotations = rig_rotations(path, NAMES, reference())
    assert np.allclose(rotations[0, 2], turned(0, 30) @ turned(1, 40) @ turned(2, 50), atol=1e-6)
    others = np.delete(rotations[0], 2, axis=0)  # the toe, which the file does not have, among them
    assert np.allclose(others, np.eye(3))
    path.write_text(
        path.read_text(encoding="utf-8").replace(
            "3 Xrotation Yrotation Zrotation", "3 Zrotation Xrotation Yrotation"
        ),
        encoding="utf-8",
    )
    assert np.allclose(read_bvh(path).rotations[0, 2], turned(2, 30) @ turned(0, 40) @ turned(1, 50))


def test_files_with_y_up_give_the_same_poses(tmp_path: Path) -> None:
    path = tmp_path / "a.bvh"
    path.write_text(bvh_text(RIG, one_frame(head=(30, 0, 0), wrist_L=(0, 0, 20))), encoding="utf-8")
    upright = rig_rotations(path, NAMES, reference())
    tipped = [(name, depth, (x, z, -y)) for name, depth, (x, y, z) in RIG]
    path.write_text(bvh_text(tipped, one_frame(head=(30, 0, 0), wrist_L=(0, 20, 0))), encoding="utf-8")
    assert np.allclose(rig_rotations(path, NAMES, reference()), upright, atol=1e-6)


def test_long_motions_are_thinned(tmp_path: Path) -> None:
    path = tmp_path / "a.bvh"
    path.write_text(bvh_text(RIG, np.tile(one_frame(), (200, 1))), encoding="utf-8")
    assert len(read_bvh(path).rotations) == 64


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("wrist.L", "hand.L", "default rig: it has no wrist.L"),
        ("OFFSET 3 0 -3", "OFFSET 3 0 3", "another rest pose .* upperarm01.L"),
        ("30.000000", "nan", "not finite"),
        ("30.000000", "30 30", "no frame of 36 numbers"),
        ("CHANNELS 3", "CHANNELS 30", "hierarchy"),
        ("HIERARCHY", "MOTION", "no hierarchy"),
    ],
)
def test_other_motions_are_refused_by_name(before: str, after: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.bvh"
    path.write_text(bvh_text(RIG, one_frame(head=(30, 0, 0))).replace(before, after, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=f"wrong.bvh .*{sentence}"):
        rig_rotations(path, NAMES, reference())


def test_obj_of_a_patch_is_what_others_write(path: Path) -> None:
    assert obj_text(patch(range(4))).splitlines()[-1] == "f 1/1 2/2 4/4 3/3"
