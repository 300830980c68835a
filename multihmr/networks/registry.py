"""Network families: family name to network and config class, imported on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def _multihmr() -> tuple[type[Any], type[Any]]:
    from ..networks.multihmr import MultiHMR
    from .configs import MultiHMRConfig

    return MultiHMR, MultiHMRConfig


def _multihmr_anny() -> tuple[type[Any], type[Any]]:
    from ..networks.multihmr_anny import MultiHMRAnny
    from .configs import MultiHMRAnnyConfig

    return MultiHMRAnny, MultiHMRAnnyConfig


def _glnet() -> tuple[type[Any], type[Any]]:
    from ..networks.glnet import GLNet
    from .configs import GLNetConfig

    return GLNet, GLNetConfig


FAMILIES: dict[str, Callable[[], tuple[type[Any], type[Any]]]] = {
    "multihmr": _multihmr,
    "multihmr-anny": _multihmr_anny,
    "glnet": _glnet,
}
"""family -> a function that imports it and gives (model class, config class)."""
