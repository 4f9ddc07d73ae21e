"""The project's memory: questions, verdicts and what was paid, in one database file."""

from fingerpost.store.ledger import Call, Ledger, Settlement
from fingerpost.store.store import Store

__all__ = ["Call", "Ledger", "Settlement", "Store"]
