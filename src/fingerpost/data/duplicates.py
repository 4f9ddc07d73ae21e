"""Near-duplicates: conversations whose sets of shingles have a Jaccard similarity of at least SIMILARITY.

Candidates are found by their sketches. Every candidate pair is then compared exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash, RMinHashLSH

from fingerpost.core.types import Conversation, Question
from fingerpost.core.utils import chunks
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
"""Conversations that share a band are a bucket. In a larger bucket, such as one of a template, each conversation is compared
with so many others at most, so that the time stays linear."""
MIN_SHARED = np.repeat(np.array([1, 4, 6, 8, 12], dtype=np.uint8), [20, 10, 10, 10, 206])
"""How many of the BANDS a pair has to share to be compared exactly, by the number of comparisons so far without success.
Pairs with a similarity of 0.7 share 8 on average, and 97 % of them at least 4; with one of 0.9, 21 on average."""
MIN_SHARED_SMALL = 4
"""Upper limit of MIN_SHARED in small buckets (up to MAX_COMPARED conversations), lower limit in larger ones."""
BLOCK = 10_000
"""Pairs or stored questions that are looked at at once."""
FEW = 500
"""Pairs after which it counts how often a question was compared without success."""
CACHED = 2_000
"""Conversations whose shingles are kept in memory."""
SKETCH_BYTES = 4 * (1 + BANDS)
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
    for small in (True, False):
        for band in range(1, 1 + BANDS):
            order, hashes = _sorted(sketches[:, band])
            in_bucket = (_bucket_sizes(hashes) <= MAX_COMPARED) == small
            starts = np.flatnonzero(in_bucket).astype(np.int32)
            for distance in range(1, MAX_COMPARED + 1):  # of the sorted order, while the hashes are equal
                starts = starts[starts + distance < len(order)]
                starts = starts[hashes[starts] == hashes[starts + distance]]
                for block in _blocks(starts):
                    ones, others = order[block], order[block + distance]
                    apart = _roots(parent, ones) != _roots(parent, others)
                    ones, others = ones[apart], others[apart]
                    fewest = np.minimum(unlike[ones], unlike[others])
                    for one, other in _promising(ones, others, sketches, sketches, fewest, small):
                        low, high = sorted((_root(parent, one), _root(parent, other)))
                        if low == high:
                            continue
                        if _similar(shingles(one), shingles(other)):
                            parent[high] = low
                        else:
                            _count_up(unlike, one)
                            _count_up(unlike, other)
    return _roots(parent, parent)


def _sorted(column: NDArray[np.uint32]) -> tuple[Positions, NDArray[np.uint32]]:
    """The positions of the hashes in ascending order, and the hashes in that order."""
    order = np.argsort(column, kind="stable").astype(np.int32)
    return order, column[order]


def _bucket_sizes(hashes: NDArray[np.uint32]) -> NDArray[np.int32]:
    """For each of the sorted hashes, how many are equal to it."""
    ends = np.flatnonzero(np.diff(hashes.astype(np.int64), append=-1))
    counts = np.diff(ends, prepend=-1).astype(np.int32)
    return np.repeat(counts, counts)


def _blocks(positions: Positions) -> Iterator[Positions]:
    return (positions[start : start + BLOCK] for start in range(0, len(positions), BLOCK))


def _promising(
    ones: Positions,
    others: Positions,
    sketches: Sketches,
    other_sketches: Sketches,
    unlike: NDArray[np.uint8],
    small: bool,
) -> list[tuple[int, int]]:
    """The pairs that share enough bands to be compared.

    Args:
        unlike: for each pair, the number of comparisons so far without success.
        small: whether the pairs are of small buckets.
    """
    needed = MIN_SHARED[unlike]
    needed = np.minimum(needed, MIN_SHARED_SMALL) if small else np.maximum(needed, MIN_SHARED_SMALL)
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
    new: list[tuple[Positions, NDArray[np.uint32]]] = []  # made for the first stored question
    found: set[tuple[int, str]] = set()
    unlike = np.zeros(len(sketches), dtype=np.uint8)
    for small in (True, False):
        for part in chunks(store.sketches(), BLOCK):
            new = new or [_sorted(sketches[:, band]) for band in range(1, 1 + BANDS)]
            block = np.frombuffer(b"".join(sketch for _, sketch in part), dtype="<u4").reshape(len(part), 1 + BANDS)
            stored = _Stored(store, [key for key, _ in part])
            for old, position in _sharing_a_band(block, sketches, new, unlike, small):
                if (position, stored.group(old)) in found:
                    continue
                if _similar(shingles(position), stored.shingles(old)):
                    found.add((position, stored.group(old)))
                else:
                    _count_up(unlike, position)
    return sorted(found)


def _sharing_a_band(
    block: Sketches,
    sketches: Sketches,
    new: Sequence[tuple[Positions, NDArray[np.uint32]]],
    unlike: NDArray[np.uint8],
    small: bool,
) -> Iterator[tuple[int, int]]:
    """The pairs of a stored and a new question to compare: in small buckets, or in the others.

    Args:
        block: sketches of stored questions.
        sketches: of the new questions.
        new: the new questions sorted by each band.
        unlike: for each new question, the number of comparisons so far without success.
    """
    for band, (order, hashes) in enumerate(new, 1):
        first = np.searchsorted(hashes, block[:, band], "left")
        stop = np.searchsorted(hashes, block[:, band], "right")
        rows = np.flatnonzero(first < stop)
        stored_order, stored_hashes = _sorted(block[rows, band])
        sizes = np.zeros(len(rows), dtype=np.int32)
        sizes[stored_order] = _bucket_sizes(stored_hashes)
        rows = rows[(np.maximum(sizes, stop[rows] - first[rows]) <= MAX_COMPARED) == small]
        for step in range(MAX_COMPARED):
            rows = rows[first[rows] + step < stop[rows]]
            if not len(rows):
                break
            for part in (rows[start : start + FEW] for start in range(0, len(rows), FEW)):
                positions = order[first[part] + step]
                yield from _promising(part, positions, block, sketches, unlike[positions], small)


class _Stored:
    """Groups and shingles of some stored questions, which are read if they are asked for."""

    def __init__(self, store: Store, ids: Sequence[str]) -> None:
        self._store, self._ids = store, ids
        self.shingles: ShinglesAt = lru_cache(BLOCK)(lambda position: shingles_of(self._questions[position].messages))

    def group(self, position: int) -> str:
        return self._questions[position].group

    @cached_property
    def _questions(self) -> list[Question]:
        by_id = {question.id: question for question in self._store.questions_by_id(self._ids)}
        return [by_id[key] for key in self._ids]


def _renew_sketches(store: Store) -> None:
    """Compute the sketches that the store lacks, and those that an older version made."""
    for part in chunks(store.ids_without_sketch(check_value().to_bytes(4, "little"), SKETCH_BYTES), BLOCK):
        questions = store.questions_by_id(part)
        computed = sketches_of(question.messages for question in questions)
        store.put_sketches({question.id: row.tobytes() for question, row in zip(questions, computed, strict=True)})


def shingles_at(conversations: Sequence[Conversation]) -> ShinglesAt:
    """The shingles of a conversation by its position."""
    return lru_cache(CACHED)(lambda position: shingles_of(conversations[position]))


def _similar(one: Shingles, other: Shingles) -> bool:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common >= SIMILARITY * (len(one) + len(other) - common)
