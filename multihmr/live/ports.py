"""Errors of servers that cannot have their port."""

from __future__ import annotations

import errno

from ..storage.paths import plain_reason


def listening_error(what: str, port: int, error: OSError) -> OSError:
    """The error to raise where `what` cannot listen on a port: one sentence with the reason."""
    taken = error.errno == errno.EADDRINUSE
    reason = "it is taken; choose another" if taken else plain_reason(error)
    return OSError(f"the {what} cannot listen on port {port}: {reason}")
