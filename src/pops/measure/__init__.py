"""How good a model is, measured against the truth where it is known: `pops bench`."""
