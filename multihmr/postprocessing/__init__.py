"""Network outputs to `Humans`; tiling and tile merging."""
