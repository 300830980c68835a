"""Videos: reading frames, predicting, tracking, smoothing, tracks, writing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .frame import Frame as Frame
    from .frame import Video as Video
    from .predict import predict_frames as predict_frames
    from .predict import predict_video as predict_video
    from .reader import open_video as open_video
    from .tracker import Tracking as Tracking
    from .tracks import Track as Track
    from .tracks import collect as collect
    from .tracks import load_track as load_track
    from .tracks import save_track as save_track
    from .writer import VideoWriter as VideoWriter

# name -> its module beside this file, imported when first asked for
_LAZY_EXPORTS = {
    "Frame": "reader",
    "Track": "tracks",
    "Tracking": "tracker",
    "Video": "reader",
    "VideoWriter": "writer",
    "collect": "tracks",
    "load_track": "tracks",
    "open_video": "reader",
    "predict_frames": "predict",
    "predict_video": "predict",
    "save_track": "tracks",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY_EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY_EXPORTS[name]}", __name__), name)
