"""Files and caches: atomic writes, downloads, cache paths, safe unpickling."""
