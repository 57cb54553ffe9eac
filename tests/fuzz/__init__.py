"""Fuzzers of every door by which files and texts of anyone come in; see __main__.py."""
