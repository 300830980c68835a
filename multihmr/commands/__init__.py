"""One file per command; multihmr/cli.py names them and opens the one that is asked for."""
