"""People whose keypoints are known, as meshes: `fit` finds the body that shows these points."""

from multihmr.fitting.fitter import fit
from multihmr.fitting.results import FittedHumans

__all__ = ["FittedHumans", "fit"]
