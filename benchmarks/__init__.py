"""Our speed and memory beside others', and small experiments: a command each, ours and the reference in one run."""
