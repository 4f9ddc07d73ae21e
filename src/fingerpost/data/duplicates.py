"""Near-duplicate search over conversations, by MinHash and locality-sensitive hashing."""

from __future__ import annotations

from rensa import RMinHash, RMinHashLSH

from fingerpost.core.text import shingles
from fingerpost.core.types import Conversation

ALIKE = 0.7  # Jaccard similarity of the sets of shingles

PERMUTATIONS, BANDS = 128, 32  # finds 98 % of the pairs that are just alike


class Alike:
    """Conversations among which near-duplicates are found, numbered as they were added.

    Candidates by MinHash and locality-sensitive hashing, each of them checked.
    """

    def __init__(self) -> None:
        self._index = RMinHashLSH(threshold=ALIKE, num_perm=PERMUTATIONS, num_bands=BANDS)
        self._sets: list[set[str]] = []

    def add(self, conversation: Conversation) -> list[int]:
        """The numbers of those that it is like; then it is one of them."""
        mine, sketch = _sketch(conversation)
        found = self._like(mine, sketch)
        self._index.insert(len(self._sets), sketch)
        self._sets.append(mine)
        return found

    def find(self, conversation: Conversation) -> list[int]:
        """The numbers of those that it is like."""
        return self._like(*_sketch(conversation))

    def _like(self, mine: set[str], sketch: RMinHash) -> list[int]:
        return [j for j in self._index.query(sketch) if len(mine & self._sets[j]) >= ALIKE * len(mine | self._sets[j])]


def _sketch(conversation: Conversation) -> tuple[set[str], RMinHash]:
    mine = shingles(conversation)
    sketch = RMinHash(num_perm=PERMUTATIONS, seed=1)
    sketch.update(list(mine))
    return mine, sketch
