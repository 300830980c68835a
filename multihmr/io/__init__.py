"""Saved results: images of people as meshes, rigs, records and tables; `save` and `load`."""
