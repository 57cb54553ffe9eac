"""Operators: what each takes (`spec`), how it samples (`operator`), how it is stored (`checkpoint`, `official`)."""
