from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from multihmr.bodies.anny import Anny
from multihmr.evaluation import speed
from multihmr.networks.multihmr import MultiHMR, MultiHMRConfig


def test_ratios_are_taken_within_a_run_and_written(tmp_path: Path) -> None:
    times = speed._interleaved([lambda: time.sleep(0.002), lambda: time.sleep(0.006)], 5, torch.device("cpu"))
    assert times.shape == (5, 2)
    timing = speed._timing(("b", "stage", 1), times[:, 1], times[:, 0])
    assert 1.5 < timing.ratio < 6
    result = speed.Speed((timing,), "a", 5, "cpu", 1, "2", "array")
    result.save(tmp_path / "speed.json")
    assert json.loads((tmp_path / "speed.json").read_text())["timings"][0]["name"] == "b"
    assert "| b | stage | 1 |" in speed.table(result)


def test_the_people_asked_for_are_predicted() -> None:
    torch.manual_seed(0)
    config = MultiHMRConfig(image_size=224, head_width=32, head_depth=1, head_count=1)
    model = MultiHMR(config, Anny()).eval()
    result = speed.bench(
        {"tiny": model}, people=(0, 3), rounds=1, reference=("nothing", lambda: time.sleep(0.001))
    )
    assert [t.people for t in result.timings if t.stage == "predict, end to end"] == [0, 3]
    assert result.timings[0].ratio == 1
    assert "whole network" in speed.table(result)


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a model"):
        speed.bench({})
