"""multihmr views: the people that several calibrated cameras see at once."""

from .command import add_flags, run

__all__ = ["add_flags", "run"]
