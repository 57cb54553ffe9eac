"""Drawings of expressions and their results, with PIL only: equations, generative trees, labelled grids."""
