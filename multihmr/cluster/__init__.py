"""Prediction of whole data sets on Ray Data: data source, workers, and the writer of results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..storage.telemetry import disable_telemetry
from .settings import Settings as Settings

if TYPE_CHECKING:
    from .run import predict_dataset as predict_dataset
    from .writer import Report as Report

disable_telemetry()  # before ray is imported


def __getattr__(name: str) -> Any:
    """predict_dataset and Report, which need Ray and PyArrow, on first use."""
    if name == "predict_dataset":
        from .run import predict_dataset

        return predict_dataset
    if name == "Report":
        from .writer import Report

        return Report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
