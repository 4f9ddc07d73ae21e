"""The project's memory: questions, verdicts and what was paid, in one database file."""

from fingerpost.store.ledger import Call, Ledger, Settlement, Written
from fingerpost.store.store import Draft, Posted, Store

__all__ = ["Call", "Draft", "Ledger", "Posted", "Settlement", "Store", "Written"]
