"""The teacher labels questions."""
