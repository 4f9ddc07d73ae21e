"""Types, errors, text and rules that need no file, database or connection."""
