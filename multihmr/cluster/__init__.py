"""Prediction of whole data sets on Ray Data: data source, workers, and the writer of results."""

from ..storage.telemetry import disable_telemetry

disable_telemetry()  # before ray is imported

from .run import Settings as Settings  # noqa: E402
from .run import predict_dataset as predict_dataset  # noqa: E402
from .writer import Report as Report  # noqa: E402
