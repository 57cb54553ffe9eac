"""The command line: one typer command a file (parse, call Pops, print); main.py holds the table."""
