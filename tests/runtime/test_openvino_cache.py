"""Graphs that OpenVINO compiled are kept in files, and what comes from a file is what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import tiny_network

from multihmr.runtime import backends
from multihmr.runtime.openvino_cache import compiled_graph

F32, BF16 = ({"INFERENCE_PRECISION_HINT": hint} for hint in ("f32", "bf16"))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What openvino.Core.compile_model was called with."""
    openvino = pytest.importorskip("openvino")
    calls, compile_model = [], openvino.Core.compile_model

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return compile_model(*arguments)

    monkeypatch.setattr(openvino.Core, "compile_model", counted)
    return calls


def graph_file(folder: Path, factor: float) -> Path:
    """x (64,) -> factor * x, with 64 weights."""
    import openvino

    x = openvino.opset13.parameter([64], np.float32, name="x")
    weights = openvino.opset13.constant(np.full(64, factor, np.float32))
    file = folder / f"{factor}.xml"
    openvino.save_model(openvino.Model([openvino.opset13.multiply(x, weights)], [x]), file)
    return file


def answer(folder: Path, factor: float, settings: dict[str, str] = F32) -> float:
    graph = compiled_graph(lambda: graph_file(folder, factor), folder, f"times{factor}", settings, threads=1)
    return float(graph([np.full(64, 2.0, np.float32)])[0].mean())


def test_a_graph_is_compiled_once_for_its_name_settings_and_version(
    tmp_path: Path, compiled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        assert answer(tmp_path, 3.0) == 6.0
    assert len(compiled) == 1
    assert answer(tmp_path, 5.0) == 10.0
    assert answer(tmp_path, 3.0, BF16) == 6.0
    assert len(compiled) == len(list(tmp_path.glob("*.blob"))) == 3
    monkeypatch.setattr("openvino.get_version", lambda: "another")
    assert answer(tmp_path, 3.0) == 6.0
    assert len(compiled) == 4


def test_a_damaged_file_is_made_again(tmp_path: Path, compiled: list[Any]) -> None:
    answer(tmp_path, 3.0)
    (file,) = tmp_path.glob("*.blob")
    kept = file.read_bytes()
    damaged = bytearray(kept)
    place = kept.index(np.full(64, 3.0, np.float32).tobytes())
    damaged[place : place + 256] = np.full(64, 4.0, np.float32).tobytes()  # OpenVINO itself accepts it
    for broken in (bytes(damaged), kept[:100], b""):
        file.write_bytes(broken)
        before = len(compiled)
        assert [answer(tmp_path, 3.0), answer(tmp_path, 3.0)] == [6.0, 6.0]
        assert len(compiled) == before + 1
    assert not list(tmp_path.glob(".*.part"))


def test_a_folder_that_cannot_be_written_costs_time_alone(
    tmp_path: Path, compiled: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("multihmr.runtime.openvino_cache.atomic_path", full)
    assert [answer(tmp_path, 3.0), answer(tmp_path, 3.0)] == [6.0, 6.0]
    assert len(compiled) == 2
    assert "cannot be kept" in caplog.text


def test_other_weights_and_other_code_are_another_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    one = backends._key(tiny_network(0))
    assert one == backends._key(tiny_network(0)) != backends._key(tiny_network(1))
    monkeypatch.setattr(backends, "_code", lambda: "another")
    assert one != backends._key(tiny_network(0))
