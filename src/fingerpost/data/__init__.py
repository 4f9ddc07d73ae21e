"""Questions in: files, rows, near-duplicates, splits."""
