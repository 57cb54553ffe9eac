"""Training of operators and of the base prior, on precomputed embeddings: config, data, losses, the one loop.

Uses priors and operators; knows no studio, no renderer and no expression.
"""
