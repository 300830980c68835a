from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multihmr.bodies.smplx_reader import VERTICES, read_smplx

SHAPES: dict[str, tuple[tuple[int, ...], str]] = {
    "v_template": ((VERTICES, 3), "f4"),
    "shapedirs": ((VERTICES, 3, 400), "f4"),
    "posedirs": ((VERTICES, 3, 486), "f4"),
    "J_regressor": ((55, VERTICES), "f4"),
    "weights": ((VERTICES, 55), "f4"),
    "kintree_table": ((2, 55), "i8"),
    "f": ((20908, 3), "u4"),
    "lmk_faces_idx": ((51,), "i8"),
    "lmk_bary_coords": ((51, 3), "f4"),
}


def headers_only(path: Path, **changes: tuple[tuple[int, ...], str] | None) -> Path:
    """An .npz that announces arrays and holds none: whoever refuses it has read the headers alone."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, entry in (SHAPES | changes).items():
            if entry is not None:
                header = {"shape": entry[0], "fortran_order": False, "descr": np.dtype(entry[1]).str}
                content = io.BytesIO()
                np.lib.format.write_array_header_1_0(content, header)
                archive.writestr(f"{key}.npy", content.getvalue())
    return path


def small(**changes: Any) -> dict[str, Any]:
    """Right in every array, 10 + 10 components, mostly zeros."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {key: np.zeros(shape, kind) for key, (shape, kind) in SHAPES.items()}
    arrays["posedirs"] = arrays["posedirs"].astype(np.float16)
    arrays["shapedirs"] = rng.random((VERTICES, 3, 20), np.float32)
    arrays["J_regressor"][rng.integers(0, 55, 99), rng.integers(0, VERTICES, 99)] = 0.5
    arrays["kintree_table"][0] = [2**32 - 1, *range(54)]
    return arrays | changes


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match="cannot be used as SMPL-X") as caught:
        read_smplx(path, 10)
    assert "\n" not in str(caught.value)
    assert "smpl-x.is.tue.mpg.de" in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_reads_the_components_in_use(fake_smplx_file):
    with np.load(fake_smplx_file) as stored:
        expected = stored["shapedirs"][:, :, [*range(11), *range(300, 310)]]
        corrections = stored["posedirs"]
    file = read_smplx(fake_smplx_file, 11)
    np.testing.assert_array_equal(file.directions, expected)
    np.testing.assert_array_equal(file.corrections, corrections)
    assert file.parents[:4].tolist() == [-1, 0, 0, 0]
    assert file.uv is None


@pytest.mark.parametrize("protocol", [2, 5])
def test_pickles_of_arrays_are_read_without_numpy_making_them(tmp_path, protocol):
    sparse = pytest.importorskip("scipy.sparse")
    arrays = small()
    as_pickled = arrays | {"J_regressor": sparse.csc_matrix(arrays["J_regressor"]), "part2num": {"a": 1}}
    path = tmp_path / "SMPLX_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps(as_pickled, protocol=protocol))
    file = read_smplx(path, 10)
    np.testing.assert_array_equal(file.directions, arrays["shapedirs"])
    np.testing.assert_array_equal(file.regressor, arrays["J_regressor"])
    assert file.corrections.dtype == np.float32


@pytest.mark.slow
def test_pickled_sparse_array_in_an_npz(tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    arrays = small()
    wrapped = np.array(sparse.csc_matrix(arrays["J_regressor"]), dtype=object)
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    np.savez_compressed(path, **(arrays | {"J_regressor": wrapped}))
    np.testing.assert_array_equal(read_smplx(path, 10).regressor, arrays["J_regressor"])


class Touch:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ["npz", "pkl"])
def test_code_is_refused_by_name_and_not_run(tmp_path, suffix):
    path, touched = tmp_path / f"SMPLX_NEUTRAL.{suffix}", tmp_path / "touched"
    if suffix == "npz":
        np.savez_compressed(path, **small(J_regressor=np.array(Touch(touched), dtype=object)))
    else:
        path.write_bytes(pickle.dumps({"v_template": Touch(touched)}))
    assert "its pickle asks for" in refusal(path)
    assert not touched.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x80\x04}r" + struct.pack("<I", 2**32 - 1) + b".", "fill the memory"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "expected 1099511627776 bytes"),
        (b"\x80\x04(" + b"]" * 1_000_001 + b".", "more than 1000000 steps"),
        (b"\x80\x04cnumpy\nndarray\n(J\xff\xff\xff\x7ft\x85R.", "no dict of arrays"),
        (b"\x80\x04cos\nsystem\n(S'true'\ntR.", r"asks for os\.system"),
        (b"\x80\x04}.", "lacks v_template"),
        (b"\x80\x04K\x01.", "no dict of arrays"),
        (b"\x80\x04}X", "expected 4 bytes|not enough data"),
        (b"", "it is empty"),
        (b"v 0 0 0\n", "neither an .npz nor a .pkl"),
        (b"PK\x03\x04 and no more", "not a zip file"),
    ],
)
def test_bombs_and_rubbish_are_refused(tmp_path, content, sentence):
    path = tmp_path / "SMPLX_NEUTRAL.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_smplx(path, 10)
    refusal(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"v_template": ((6890, 3), "f8")}, "it is SMPL or SMPL+H of 6890 vertices, but SMPL-X has 10475"),
        ({"v_template": ((778, 3), "f8"), "posedirs": None}, "it is MANO of 778 vertices"),
        ({"lmk_faces_idx": None, "weights": None}, "it lacks weights, lmk_faces_idx"),
        ({"weights": ((VERTICES, 52), "f4")}, "its weights has the shape (10475, 52), expected (10475, 55)"),
        ({"shapedirs": ((VERTICES, 3, 10**9), "f4")}, "expected (10475, 3, 1 to 1000)"),
        ({"f": ((10**12, 3), "u4")}, "expected (1 to 100000, 3)"),
        ({"posedirs": ((VERTICES, 3, 486), "S2000000000")}, "expected numbers"),
        ({}, "reading array data"),
    ],
)
def test_wrong_arrays_are_refused_by_their_headers(tmp_path, changes, sentence):
    assert sentence in refusal(headers_only(tmp_path / "SMPLX_NEUTRAL.npz", **changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"v_template": np.full((VERTICES, 3), np.nan)}, "its v_template has numbers that are not finite"),
        ({"f": np.full((2, 3), VERTICES)}, "its f counts from 10475 to 10475, expected 0 to 10474"),
        ({"kintree_table": np.full((2, 55), 3)}, "its kintree_table has joints before their parents"),
        ({"shapedirs": np.zeros((VERTICES, 3, 16))}, "its shapedirs has 16 components, expected 400 or 20"),
    ],
)
def test_impossible_values_are_refused(tmp_path, changes, sentence):
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    np.savez_compressed(path, **small(**changes))
    assert sentence in refusal(path)


def test_more_betas_than_there_are(tmp_path):
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    np.savez_compressed(path, **small())
    with pytest.raises(ValueError, match="it has 10 shape components, but 11 were requested"):
        read_smplx(path, 11)


def test_a_file_cut_short_is_refused(fake_smplx_file, tmp_path):
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    path.write_bytes(fake_smplx_file.read_bytes()[:50_000_000])
    assert "not a zip file" in refusal(path)


def test_a_file_of_two_gigabytes_is_not_opened(tmp_path):
    path = tmp_path / "SMPLX_NEUTRAL.pkl"
    with path.open("wb") as file:
        file.write(b"\x80\x04")
        file.truncate(2 << 30)  # takes no space on the disk
    with pytest.raises(ValueError, match=r"has 2\.1 GB, more than any SMPL-X file"):
        read_smplx(path, 10)


def test_what_is_not_there_or_not_neutral(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no SMPL-X file .*register at https://smpl-x"):
        read_smplx(tmp_path / "SMPLX_NEUTRAL.npz", 10)
    with pytest.raises(ValueError, match=r"is a folder; give the file in it"):
        read_smplx(tmp_path, 10)
    for name, gender in (("SMPLX_FEMALE.npz", "female"), ("smplx_male.pkl", "male")):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=f"is the {gender} body"):
            read_smplx(tmp_path / name, 10)
