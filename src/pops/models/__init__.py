"""Models: the registry of names, and the shipped `tiny`."""
