"""Speed and memory benchmarks (`multihmr bench`)."""
