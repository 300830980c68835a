from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.miniatures import old_data_frame

from multihmr.data.annotations import read_json, read_mean_hands, read_npz, read_pickle

CONTENT: dict[str, Any] = {
    "name": "a",
    "count": 3,
    "nothing": None,
    "numbers": np.arange(6.0).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    "scalar": np.float32(1.5),
    "seen": np.array([True, False]),
    "words": np.array(["one", "three"]),
    "people": [np.zeros((0, 3)), (np.ones(2), {"deep": [1.5]})],
    "ragged": np.array([np.zeros(2), np.zeros(3)], dtype=object),
}


def written(path: Path, content: Any, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_plain_content_comes_back(tmp_path, protocol):
    back = read_pickle(written(tmp_path / "a.pkl", CONTENT, protocol))
    assert list(back) == list(CONTENT)
    assert (back["name"], back["count"], back["nothing"], back["scalar"]) == ("a", 3, None, 1.5)
    for key in ("numbers", "columns", "seen", "words"):
        np.testing.assert_array_equal(back[key], CONTENT[key])
    assert back["people"][1][1] == {"deep": [1.5]}
    assert [len(part) for part in back["ragged"]] == [2, 3]


def test_python_2_and_numpy_1(tmp_path):
    """What Python 2 wrote: texts of bytes, arrays whose content is such a text, numpy.core."""
    content = (
        b"\x80\x02}(U\x04poseq\x00cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89U\x10\x00\x00\x00\x00\x00\x00\xf0?\x00\x00\x00\x00\x00\x00\xf0\xbftbU\x06genderU\x01mu."
    )
    (tmp_path / "a.pkl").write_bytes(content)
    back = read_pickle(tmp_path / "a.pkl")
    np.testing.assert_array_equal(back["pose"], [1, -1])
    assert back["gender"] == "m"


class Touch:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_is_refused_by_name_and_not_run(tmp_path):
    path = written(tmp_path / "a.pkl", {"poses": [Touch(tmp_path / "touched")]}, 5)
    with pytest.raises(ValueError, match=r"a\.pkl was not read: its pickle asks for pathlib.*no array"):
        read_pickle(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x05}X", b"no pickle", pickle.dumps(CONTENT)[:-40]])
def test_damaged_pickles_are_named(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pkl was not read"):
        read_pickle(tmp_path / "a.pkl")


TABLE = {"imgPath": ["a.png", "b.png"], "camX": [1.5, 2.5], "Yaw": [[1.0, 2.0], [3.0]], "kid": [[True], []]}


def test_tables_of_pandas_without_pandas(tmp_path):
    """As pandas 0.25 to 1.2 wrote them."""
    (tmp_path / "a.pkl").write_bytes(old_data_frame(TABLE))
    assert read_pickle(tmp_path / "a.pkl") == TABLE


def test_tables_of_todays_pandas(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed; only this test needs it")
    frame = pandas.DataFrame({key: pandas.Series(value, dtype=object) for key, value in TABLE.items()})
    frame["camX"] = frame["camX"].astype(float)
    frame.columns = frame.columns.astype(object)
    frame.to_pickle(tmp_path / "a.pkl")
    assert read_pickle(tmp_path / "a.pkl") == TABLE


def test_arrays_of_other_shapes_are_named(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, pose=np.zeros((3, 165)), shape=np.zeros((2, 11)), more=np.array([{}], dtype=object))
    assert read_npz(path, {"pose": (165,)})["pose"].shape == (3, 165)
    with pytest.raises(ValueError, match=r"a\.npz.*its shape must be \(3, 11\), got \(2, 11\)"):
        read_npz(path, {"pose": (165,), "shape": (11,)})
    with pytest.raises(ValueError, match=r"a\.npz.*it lacks trans; it has pose, shape, more"):
        read_npz(path, {"pose": (165,), "trans": (3,)})
    with pytest.raises(ValueError, match=r"a\.npz was not read: Object arrays"):
        read_npz(path, {"more": ()})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"a\.npz was not read"):
        read_npz(path, {"pose": (165,)})


def test_json_cut_short_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json was not read"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"b\.json does not exist"):
        read_json(tmp_path / "b.json")


def test_mean_hands(tmp_path):
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", hands_meanl=np.zeros(45), hands_meanr=np.ones(45))
    assert read_mean_hands(tmp_path / "SMPLX_NEUTRAL.npz").sum(1).tolist() == [0] * 15 + [3] * 15
