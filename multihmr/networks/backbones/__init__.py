"""Backbones: images to feature grids."""
