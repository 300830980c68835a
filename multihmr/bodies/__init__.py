"""Parametric bodies: (pose, shape, expression) -> vertices and joints in metres."""
