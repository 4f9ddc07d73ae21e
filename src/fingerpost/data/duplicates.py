"""Near-duplicates: conversations whose sets of shingles have a Jaccard similarity of at least SIMILARITY.

Candidates are found by their sketches. Every candidate pair is then compared exactly.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash, RMinHashLSH

from fingerpost.core.types import Conversation
from fingerpost.core.utils import chunks
from fingerpost.data.records import ShingleRecords
from fingerpost.data.sketches import (
    BANDS,
    PERMUTATIONS,
    Shingles,
    Sketches,
    check_value,
    minhash,
    shingles_of,
    sketches_of,
)
from fingerpost.store.project import Store

SIMILARITY = 0.7
MAX_COMPARED = 30
"""Texts of one template share bands with all others of it. Of those, each is compared with so many at most, so that the
time stays linear."""
MIN_SHARED = np.repeat(np.array([1, 4, 6, 8, BANDS + 1], dtype=np.uint8), [20, 10, 10, 10, 206])
"""How many of the BANDS a pair has to share to be compared exactly, by the number of comparisons so far without success.
Pairs with a similarity of 0.7 share 8 on average, and 97 % of them at least 4."""
BLOCK = 10_000
"""Pairs whose sketches are compared at once."""
CACHED = 2_000
"""Conversations whose shingles are kept in memory."""
ID_BYTES, SKETCH_BYTES = 16, 4 * (1 + BANDS)
Positions: TypeAlias = NDArray[np.integer[Any]]
"""Shape (conversations or pairs,): positions of conversations."""
ShinglesAt: TypeAlias = Callable[[int], Shingles]
"""The shingles of a conversation by its position."""


class DuplicateIndex:
    """Conversations among which near-duplicates are found, numbered from 0 in the order of adding."""

    def __init__(self) -> None:
        self._lsh = RMinHashLSH(threshold=SIMILARITY, num_perm=PERMUTATIONS, num_bands=BANDS)
        self._conversations: list[Conversation] = []
        self._shingles = shingles_at(self._conversations)

    def add(self, conversation: Conversation) -> list[int]:
        """Add a conversation; returns the numbers of its near-duplicates among those added before."""
        values = minhash(conversation)
        found = self._find(conversation, values)
        self._lsh.insert(len(self._conversations), values)
        self._conversations.append(conversation)
        return found

    def find(self, conversation: Conversation) -> list[int]:
        """The numbers of the near-duplicates of a conversation."""
        return self._find(conversation, minhash(conversation))

    def _find(self, conversation: Conversation, values: RMinHash) -> list[int]:
        candidates = self._lsh.query(values)
        own = shingles_of(conversation) if candidates else np.empty(0, dtype=np.uint32)
        return [number for number in candidates[-MAX_COMPARED:] if _similar(own, self._shingles(number))]


def duplicate_groups(shingles: ShinglesAt, sketches: Sketches) -> Positions:
    """For each conversation the number of its group, shape (conversations,): the position of one of its members.

    Near-duplicates, also of near-duplicates, are in one group. Of texts of one template, which are all alike but less than
    SIMILARITY, each is compared a limited number of times; pairs at the limit of similarity may then be missed.

    Args:
        shingles: the shingles of a conversation by its position.
        sketches: of the conversations.
    """
    parent = np.arange(len(sketches), dtype=np.int32)
    unlike = np.zeros(len(sketches), dtype=np.uint8)
    for band in range(1, 1 + BANDS):
        order = np.argsort(sketches[:, band], kind="stable").astype(np.int32)
        hashes = sketches[order, band]
        starts = np.arange(len(order), dtype=np.int32)
        for distance in range(1, MAX_COMPARED + 1):  # of the sorted order, while the hashes are equal
            starts = starts[starts + distance < len(order)]
            starts = starts[hashes[starts] == hashes[starts + distance]]
            if not len(starts):
                break
            for block in _blocks(starts):
                ones, others = order[block], order[block + distance]
                apart = _roots(parent, ones) != _roots(parent, others)
                ones, others = ones[apart], others[apart]
                fewest = np.minimum(unlike[ones], unlike[others])
                for one, other in _promising(ones, others, sketches, sketches, fewest):
                    low, high = sorted((_root(parent, one), _root(parent, other)))
                    if low == high:
                        continue
                    if _similar(shingles(one), shingles(other)):
                        parent[high] = low
                    else:
                        _count_up(unlike, one)
                        _count_up(unlike, other)
    return _roots(parent, parent)


def _blocks(positions: Positions) -> Iterator[Positions]:
    return (positions[start : start + BLOCK] for start in range(0, len(positions), BLOCK))


def _promising(
    ones: Positions, others: Positions, sketches: Sketches, other_sketches: Sketches, unlike: NDArray[np.uint8]
) -> list[tuple[int, int]]:
    """The pairs that share enough bands to be compared.

    Args:
        unlike: for each pair, the number of comparisons so far without success.
    """
    needed = MIN_SHARED[unlike]
    checked = needed > 1
    enough = ~checked
    shared = (sketches[ones[checked], 1:] == other_sketches[others[checked], 1:]).sum(1)
    enough[checked] = shared >= needed[checked]
    return list(zip(ones[enough].tolist(), others[enough].tolist(), strict=True))


def _count_up(counts: NDArray[np.uint8], position: int) -> None:
    if counts[position] < len(MIN_SHARED) - 1:
        counts[position] += 1


def _root(parent: Positions, number: int) -> int:
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = parent[number]
    return number


def _roots(parent: Positions, numbers: Positions) -> Positions:
    """The root of each number."""
    roots = parent[numbers]
    while not np.array_equal(above := parent[roots], roots):
        roots = above
    return roots


def stored_duplicates(store: Store, sketches: Sketches, shingles: ShinglesAt) -> list[tuple[int, str]]:
    """The near-duplicates of new questions among the stored ones: (position of the new question, group of the stored one).

    Sketches that the store lacks, or that an older version made, are computed and stored.

    Args:
        store: the project.
        sketches, shingles: of the new questions, which are not stored.
    """
    if not len(sketches):
        return []
    _renew_sketches(store)
    ids, stored = _sharing_a_band(store, sketches)
    names: list[str] = []
    with closing(ShingleRecords(store.path.parent)) as candidates:
        for part in chunks((key.decode() for key in ids.tolist()), BLOCK):
            by_id = {question.id: question for question in store.questions_by_id(part)}
            candidates.extend(by_id[key].messages for key in part)
            names += [sys.intern(by_id[key].group) for key in part]
        return sorted(_linked(sketches, shingles, stored, candidates, names))


def _linked(
    sketches: Sketches, shingles: ShinglesAt, stored: Sketches, stored_shingles: ShinglesAt, names: Sequence[str]
) -> set[tuple[int, str]]:
    """The pairs of a new question and the name of a group with a near-duplicate of it."""
    found: set[tuple[int, str]] = set()
    unlike = np.zeros(len(sketches), dtype=np.uint8)
    for band in range(1, 1 + BANDS):
        order = np.argsort(stored[:, band], kind="stable")
        hashes = stored[order, band]
        first = np.searchsorted(hashes, sketches[:, band], "left")
        stop = np.minimum(np.searchsorted(hashes, sketches[:, band], "right"), first + MAX_COMPARED)
        while (positions := np.flatnonzero(first < stop)).size:
            for block in _blocks(positions):
                for new, old in _promising(block, order[first[block]], sketches, stored, unlike[block]):
                    if (new, names[old]) in found:
                        continue
                    if _similar(shingles(new), stored_shingles(old)):
                        found.add((new, names[old]))
                    else:
                        _count_up(unlike, new)
            first[positions] += 1
    return found


def _renew_sketches(store: Store) -> None:
    """Compute the sketches that the store lacks, and those that an older version made."""
    for part in chunks(store.ids_without_sketch(check_value().to_bytes(4, "little"), SKETCH_BYTES), BLOCK):
        questions = store.questions_by_id(part)
        computed = sketches_of(question.messages for question in questions)
        store.put_sketches({question.id: row.tobytes() for question, row in zip(questions, computed, strict=True)})


def _sharing_a_band(store: Store, others: Sketches) -> tuple[NDArray[np.bytes_], Sketches]:
    """The ids and sketches of the stored questions whose sketch shares a band with one of the others."""
    ids, sketches = [np.empty(0, dtype=f"S{ID_BYTES}")], [others[:0]]
    for part in chunks(store.sketches(), BLOCK):
        block = np.frombuffer(b"".join(sketch for _, sketch in part), dtype="<u4").reshape(len(part), 1 + BANDS)
        shared = np.zeros(len(part), dtype=bool)
        for band in range(1, 1 + BANDS):
            shared |= np.isin(block[:, band], others[:, band])
        ids.append(np.array([key for key, _ in part], dtype=ids[0].dtype)[shared])
        sketches.append(block[shared])
    return np.concatenate(ids), np.concatenate(sketches)


def shingles_at(conversations: Sequence[Conversation]) -> ShinglesAt:
    """The shingles of a conversation by its position."""
    return lru_cache(CACHED)(lambda position: shingles_of(conversations[position]))


def _similar(one: Shingles, other: Shingles) -> bool:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common >= SIMILARITY * (len(one) + len(other) - common)
