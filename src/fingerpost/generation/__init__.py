"""The teacher writes questions."""
