"""Pictures with true people in them, from files and from the renderer."""
