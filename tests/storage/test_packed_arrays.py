from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from multihmr.storage.packed_arrays import load_packed, save_packed

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "smooth": np.linspace(0, 1, 3000, dtype=np.float32).reshape(10, 100, 3),
    "small": RANDOM.integers(0, 300, (40, 50)).astype(np.uint16),
    "signed": RANDOM.integers(-5, 5, 2000).astype(np.int32),
    "noise": RANDOM.integers(0, 256, 500).astype(np.uint8),  # gets no smaller
    "half": np.zeros((7, 3), np.float16),
    "empty": np.zeros((0, 3), np.float32),
    "transposed": np.arange(600, dtype=np.int64).reshape(20, 30).T,
}


def test_arrays_come_back_bit_for_bit_and_take_less_room(tmp_path):
    save_packed(ARRAYS, tmp_path / "a.safetensors", {"body": "toy"})
    arrays, metadata = load_packed(tmp_path / "a.safetensors")
    assert metadata == {"body": "toy"}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(arrays[name], array)
    stored = load_file(tmp_path / "a.safetensors")
    assert stored["small"].nbytes < 0.7 * ARRAYS["small"].nbytes
    assert stored["smooth"].nbytes < 0.7 * ARRAYS["smooth"].nbytes
    np.testing.assert_array_equal(stored["noise"], ARRAYS["noise"])


def test_any_safetensors_file_is_read(tmp_path):
    save_file({"a": ARRAYS["small"]}, tmp_path / "a.safetensors")
    arrays, metadata = load_packed(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(arrays["a"], ARRAYS["small"])
    assert metadata == {}


@pytest.mark.parametrize(
    "entry",
    [
        ["uint16", [40, 51], 2],  # more numbers than there are
        ["uint16", [40, 49], 2],  # fewer
        ["uint16", [1 << 40], 2],
        ["uint16", [-1, -2000], 2],
        ["object", [2000], 1],
        ["uint16", [2000], 3],
        ["uint16"],
        "uint16",
    ],
)
def test_damaged_files_are_named(tmp_path, entry):
    save_packed({"a": ARRAYS["small"]}, tmp_path / "a.safetensors", {})
    stored = load_file(tmp_path / "a.safetensors")
    save_file(stored, tmp_path / "b.safetensors", {"packed": json.dumps({"a": entry})})
    with pytest.raises(ValueError, match=r"b\.safetensors is no readable safetensors file: "):
        load_packed(tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_packed(tmp_path / "c.safetensors")
