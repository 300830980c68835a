"""Networks as graphs of fixed shapes: files for other programs, and other runtimes for `load_model`."""
