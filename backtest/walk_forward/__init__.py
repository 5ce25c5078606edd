"""Walking forward: learn from what was known, trade what follows, move on."""
