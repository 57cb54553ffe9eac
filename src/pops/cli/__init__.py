"""The command line: one file per command, which parses options, calls Pops and prints; main.py lists them."""
