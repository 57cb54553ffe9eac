"""How parts are loaded: the process's one lock (`lock`), the files each needs (`parts`), their sha256 (`manifest`)."""
