"""Other runtimes: backends, graph export, CUDA graphs, int8 and float8."""
