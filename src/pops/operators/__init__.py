"""Operators: what each takes (`spec`), how it samples (`operator`), and how it is stored (`checkpoint`)."""
