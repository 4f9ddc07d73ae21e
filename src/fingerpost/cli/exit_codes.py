"""The exit codes of all commands."""

DONE = 0
PARTLY = 1
"""Done, but some rows or requests are missing; they are listed or counted."""
FAILED = 2
"""Failed; the last line on standard error says why, and what to do."""
BUDGET = 3
"""The budget is reached; what was answered is kept."""
INTERRUPTED = 130
"""Ctrl-C; what was answered is kept."""
