"""Gravity, floor and size: people of one camera in a world whose axes are vertical and horizontal.

`estimate_ground` finds the vertical and the floor from people who stand, `in_world` moves people there,
`heights` gives how tall they are, `with_heights` fixes their size where that is known, and `on_one_floor`
makes sizes and distances agree with the floor.
"""

from .ground import Ground, estimate_ground
from .heights import heights, with_heights
from .one_floor import on_one_floor
from .placement import InWorld, in_world, level_humans

__all__ = [
    "Ground",
    "InWorld",
    "estimate_ground",
    "heights",
    "in_world",
    "level_humans",
    "on_one_floor",
    "with_heights",
]
