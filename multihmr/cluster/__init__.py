"""Whole data sets on Ray Data: what lies in files, who predicts, who writes, and all of it together."""

from .desk import Report as Report
from .run import Settings as Settings
from .run import predict_dataset as predict_dataset
