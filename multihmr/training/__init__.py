"""Weights: targets from samples, losses, and one loop."""
