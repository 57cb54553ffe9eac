"""The unCLIP prior: its noise tables, its transformer, and the samplers that turn noise into an embedding.

Knows nothing of operators, photos or expressions: tensors in standardised CLIP space come in and go out.
"""
