"""Parametric bodies: parameters to vertices and joints."""
