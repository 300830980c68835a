"""Drawing people: the overlay renderer, its rasterizer, the notebook view."""
