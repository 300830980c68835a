"""Synthetic data: scenes of clothed people, ray-traced with exact ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dataset import SyntheticScenes as SyntheticScenes


def __getattr__(name: str) -> Any:
    if name != "SyntheticScenes":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .dataset import SyntheticScenes

    return SyntheticScenes
