"""The runner: the child process that executes tasks, and what starts, bounds and ends it."""
