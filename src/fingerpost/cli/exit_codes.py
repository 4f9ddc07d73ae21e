"""The exit codes of all commands."""

DONE = 0
PARTLY = 1
"""Done, but some rows or requests are missing; they are listed."""
FAILED = 2
"""Nothing was done; one line says why."""
BUDGET = 3
"""The budget is reached; what was answered is kept."""
INTERRUPTED = 130
"""Ctrl-C; what was answered is kept."""
