"""Wide linear layers get an operation that OpenVINO fuses and that changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from multihmr.runtime.openvino_graph import WIDE, fuse_wide_layers

openvino = pytest.importorskip("openvino")
operations = openvino.opset13
TOKENS = 65  # more than oneDNN's least


def linear(x: Any, channels: int, *, bias: bool = True) -> Any:
    numbers = np.random.default_rng(channels)
    width = x.get_output_partial_shape(0)[-1].get_length()
    weights = operations.constant(numbers.standard_normal((channels, width)).astype(np.float32) / width)
    y = operations.matmul(x, weights, False, True)
    shift = operations.constant(numbers.standard_normal((1, 1, channels)).astype(np.float32))
    return operations.add(y, shift) if bias else y


def two_wide_layers() -> Any:
    """Among others that are narrow, have an activation to fuse, no bias, or no constant to multiply with."""
    x = operations.parameter([-1, TOKENS, WIDE], np.float32)
    narrow = linear(operations.relu(linear(x, WIDE // 2)), WIDE)
    wide = linear(operations.add(linear(narrow, WIDE), x), 2 * WIDE)
    plain = linear(wide, WIDE, bias=False)
    product = operations.matmul(
        plain, operations.transpose(plain, operations.constant(np.array([0, 2, 1]))), False, False
    )
    return openvino.Model([operations.add(product, operations.constant(np.float32(1))), wide], [x])


def computed(graph: Any) -> tuple[list[np.ndarray], set[str]]:
    """The outputs, and what computed the linear layers."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True, "INFERENCE_NUM_THREADS": 1}
    request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()
    x = np.random.default_rng(0).standard_normal((2, TOKENS, WIDE)).astype(np.float32)
    outputs = [array.copy() for array in request.infer([x]).values()]
    layers = [fact for fact in request.get_profiling_info() if fact.node_type == "FullyConnected"]
    return outputs, {fact.exec_type for fact in layers if fact.real_time.total_seconds()}


def test_only_wide_layers_with_nothing_to_fuse_get_a_clamp_and_results_stay() -> None:
    before, _ = computed(two_wide_layers())
    graph = two_wide_layers()
    assert fuse_wide_layers(graph) == 2
    assert sum(node.get_type_name() == "Clamp" for node in graph.get_ops()) == 2
    after, _ = computed(graph)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert fuse_wide_layers(graph) == 0, "a second time there is nothing left to do"


def test_openvino_then_computes_them_with_onednn() -> None:
    x = operations.parameter([-1, TOKENS, WIDE], np.float32)
    graph = openvino.Model([linear(x, WIDE)], [x])
    _, before = computed(graph)
    if before != {"gemm_mlas_f32"}:
        pytest.skip(f"OpenVINO computes linear layers with {before} on this processor")
    fuse_wide_layers(graph)
    assert "mlas" not in " ".join(computed(graph)[1])
