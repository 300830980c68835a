"""People whose keypoints are known, as meshes: `fit` finds the body that shows these points."""

from multihmr.fitting.fitter import fit
from multihmr.fitting.results import FittedHumans
from multihmr.fitting.track_conversion import ConvertedTrack, track_to_body
from multihmr.fitting.views import ViewsResult, fuse_views, predict_views

__all__ = [
    "ConvertedTrack",
    "FittedHumans",
    "ViewsResult",
    "fit",
    "fuse_views",
    "predict_views",
    "track_to_body",
]
