"""Threads of load_model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multihmr.runtime.devices import set_threads


def test_threads_are_those_of_torch() -> None:
    before = torch.get_num_threads()
    try:
        set_threads(1)
        assert torch.get_num_threads() == 1
        set_threads(None)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
def test_threads_that_cannot_be_are_refused(count: Any) -> None:
    with pytest.raises(ValueError, match="threads is how many compute"):
        set_threads(count)
