"""Whole data sets on Ray Data: what lies in files, who predicts, who writes, and all of it together."""

from .run import Settings as Settings
from .run import predict_dataset as predict_dataset
from .writer import Report as Report
