"""Training of operators and of the base prior, on precomputed embeddings: config, data, losses, the one loop.

Stands beside the studio; uses the prior, the operators' specs and the files below, and nothing above them.
"""
