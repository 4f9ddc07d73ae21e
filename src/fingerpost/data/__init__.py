"""Import of questions: files, rows, near-duplicates, splits."""
