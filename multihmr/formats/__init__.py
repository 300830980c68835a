"""What `save` writes, a file for each family of formats; export.py chooses."""
