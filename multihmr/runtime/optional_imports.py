"""Optional packages: imported on first use, without their telemetry; errors say what to install."""

from __future__ import annotations

import importlib
import logging
import warnings
from types import ModuleType

from ..storage.telemetry import disable_telemetry


def needed(name: str) -> ModuleType:
    """An optional module; ImportError says what to install."""
    disable_telemetry()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # theirs
            return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this needs {name.partition('.')[0]}: pip install 'multihmr[export]'") from error


class quiet:
    """Context manager: loggers of other packages log errors only."""

    def __init__(self, *names: str) -> None:
        self.loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)
