"""Model names to models: releases, checkpoints, official checkpoints, the Hugging Face Hub."""

from __future__ import annotations

from typing import Any

from .._deprecated import moved_name


def __getattr__(name: str) -> Any:
    return moved_name(__name__, name)
