"""What comes in: files of any usual kind, and their rows as conversations with labels."""

from fingerpost.intake.files import columns, read_rows, writing
from fingerpost.intake.rows import MAX_CHARACTERS, Columns, Item, Rejected, read_items

__all__ = ["MAX_CHARACTERS", "Columns", "Item", "Rejected", "columns", "read_items", "read_rows", "writing"]
