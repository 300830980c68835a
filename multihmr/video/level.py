"""Tracks of a camera that is level and stands over the floor."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..world.ground import Ground
from .tracks import Track


def level_track(track: Track, ground: Ground) -> Track:
    """The person in the frame of a level camera on the floor below the camera: x right, y down, z forward.

    Boxes and K stay those of the image, so that they no longer fit to the places: for exporters, which write
    the camera where it is.

    Raises:
        ValueError: the vertical is unknown; the sentence says why.
    """
    rotation, offset = ground.camera_to_level()
    moved = {
        name: (getattr(track, name) @ rotation.T + offset).astype(np.float32)
        for name in ("translation", "pelvis")
    }
    pose = track.pose.copy()
    pose[:, 0] = rotation @ pose[:, 0]
    return dataclasses.replace(track, pose=pose, **moved)
