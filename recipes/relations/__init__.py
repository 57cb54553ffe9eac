"""Folders of examples of relations that `tiny` never saw, by which `pops train` is judged (docs/training.md)."""
