"""Speed and memory of pops compared with others', and small experiments, both sides in turn. See README.md."""
