"""Colors of people in pictures, videos and meshes."""

from __future__ import annotations

import numpy as np

# Of person 1, 2, ...: neighbours in the list differ most, in hue and in lightness.
PALETTE = np.array(
    [
        (236, 110, 84),
        (72, 152, 214),
        (246, 190, 78),
        (84, 182, 146),
        (168, 120, 206),
        (226, 128, 172),
        (120, 196, 216),
        (186, 152, 112),
        (148, 190, 82),
        (98, 112, 186),
        (238, 152, 128),
        (60, 138, 130),
    ],
    np.uint8,
)
