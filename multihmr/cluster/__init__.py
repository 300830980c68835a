"""Prediction of whole data sets on Ray Data: data source, workers, and the writer of results."""

from .run import Settings as Settings
from .run import predict_dataset as predict_dataset
from .writer import Report as Report
