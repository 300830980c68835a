"""Acceleration error and jitter of sequences, with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from multihmr.evaluation.correspondence import Points
from multihmr.evaluation.motion import frame_of, motion_figures, motion_rows


def people(*roots: tuple[float, float, float], joints: np.ndarray) -> Points:
    root = torch.tensor(roots)
    return Points(root[:, None] + torch.tensor(joints, dtype=torch.float32), root)


def frames(count: int, shake: float, *, numbers: list[int] | None = None) -> list:
    """Two people whose joints rest in truth, and in the prediction jump up and down by `shake` [m]."""
    rows = []
    for t in range(count):
        still = np.zeros((2, 3, 3))
        shaking = still + [0, shake * (-1) ** t, 0]
        at = ((0.1 * t, 0.0, 4.0), (2.0 - 0.1 * t, 0.0, 6.0))
        order = slice(None) if t % 2 else slice(None, None, -1)  # data sets may change the order
        name = f"film/{(numbers or list(range(count)))[t]:05}.jpg"
        rows.append(
            (name, motion_rows(name, people(*at[order], joints=shaking), people(*at[order], joints=still)))
        )
    return rows


def test_shaking_by_one_centimetre() -> None:
    figures = motion_figures(frames(8, 0.01))
    assert figures["acceleration_error"] == pytest.approx(40, rel=1e-3)  # second difference: 4 times 10 mm
    assert figures["jitter"] == pytest.approx(80, rel=1e-3)  # third difference: 8 times
    assert figures["true_jitter"] == pytest.approx(0, abs=1e-3)


def test_a_gap_ends_a_line_and_other_steps_are_frames() -> None:
    assert motion_figures(frames(6, 0.01, numbers=[0, 1, 2, 7, 8, 9])) == {}  # never four in a row
    figures = motion_figures(frames(6, 0.01, numbers=[0, 5, 10, 15, 20, 25]))
    assert figures["acceleration_error"] == pytest.approx(40, rel=1e-3)


def test_pictures_are_no_sequences() -> None:
    assert frame_of("street") is None
    assert frame_of("film/image_00012.jpg") == ("film", 12)
    assert motion_rows("street", *[people((0, 0, 4), joints=np.zeros((1, 3, 3)))] * 2) == []
    assert motion_figures([("street", []), ("20000000-0000001", [])]) == {}
