"""The command line: one typer command a file; main.py holds the table. A command parses, calls Pops and prints."""
