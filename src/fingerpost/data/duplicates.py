"""Near-duplicates: conversations whose sets of shingles have a Jaccard similarity of at least SIMILARITY.

Candidates are found by their sketches. Every candidate pair is then compared exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash, RMinHashLSH

from fingerpost.core.text import shingles
from fingerpost.core.types import Conversation, Question
from fingerpost.data.sketches import BANDS, PERMUTATIONS, Sketches, check_value, minhash, sketches_of
from fingerpost.store.project import Store

SIMILARITY = 0.7
MAX_COMPARED = 30
"""Texts of one template share bands with all others of it. Of those, each is compared with so many at most, so that the
time stays linear."""
MAX_UNCHECKED, MIN_SHARED = 3, 3
"""After so many comparisons within a band, only pairs that share so many of the BANDS are compared exactly. Of the pairs
with a similarity of 0.7, 99 % share them; more above it."""
CACHED_SETS = 20_000
"""Sets of shingles that are kept in memory; one takes about 5 kB."""


class DuplicateIndex:
    """Conversations among which near-duplicates are found, numbered from 0 in the order of adding."""

    def __init__(self) -> None:
        self._lsh = RMinHashLSH(threshold=SIMILARITY, num_perm=PERMUTATIONS, num_bands=BANDS)
        self._conversations: list[Conversation] = []
        self._shingles = _cached_shingles(self._conversations)

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
        own = shingles(conversation) if candidates else set()
        return [number for number in candidates[-MAX_COMPARED:] if _similar(own, self._shingles(number))]


def duplicate_groups(conversations: Sequence[Conversation], sketches: Sketches) -> list[int]:
    """For each conversation the number of its group. Near-duplicates, also of near-duplicates, are in one group."""
    parent = np.arange(len(conversations))
    shingles_of = _cached_shingles(conversations)
    for band in range(1, 1 + BANDS):
        order = np.argsort(sketches[:, band], kind="stable")
        hashes = sketches[order, band]
        starts = np.arange(len(order))
        for distance in range(1, MAX_COMPARED + 1):  # of the sorted order, while the hashes are equal
            starts = starts[starts + distance < len(order)]
            starts = starts[hashes[starts] == hashes[starts + distance]]
            if not len(starts):
                break
            ones, others = order[starts], order[starts + distance]
            apart = _roots(parent, ones) != _roots(parent, others)
            if distance > MAX_UNCHECKED:
                shared = (sketches[ones, 1:] == sketches[others, 1:]).sum(1)
                apart &= shared >= MIN_SHARED
            for one, other in zip(ones[apart].tolist(), others[apart].tolist(), strict=True):
                low, high = sorted((_root(parent, one), _root(parent, other)))
                if low != high and _similar(shingles_of(one), shingles_of(other)):
                    parent[high] = low
    return [int(number) for number in _roots(parent, parent)]


def _root(parent: NDArray[np.int64], number: int) -> int:
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = parent[number]
    return number


def _roots(parent: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of each number."""
    roots = parent[numbers]
    while not np.array_equal(above := parent[roots], roots):
        roots = above
    return roots


def related_questions(store: Store, sketches: Sketches, conversations: Sequence[Conversation]) -> list[Question]:
    """The stored questions that would be in a group with one of the conversations, in the order they were stored.

    Sketches that the store lacks, or that an older version made, are computed and stored.

    Args:
        store: the project.
        sketches: of the conversations.
        conversations: new ones, that are not stored.
    """
    if not conversations:
        return []
    ids, stored = _stored_sketches(store)
    unrelated = np.ones(len(ids), dtype=bool)
    found: list[str] = []
    while len(conversations):
        rows = np.flatnonzero(unrelated & _share_a_band(stored, sketches))
        by_id = {question.id: question.messages for question in store.questions_by_id([ids[row] for row in rows])}
        candidates = [by_id[ids[row]] for row in rows]
        duplicates = _with_duplicates(candidates, stored[rows], conversations, sketches)
        unrelated[rows[duplicates]] = False
        found += [ids[row] for row in rows[duplicates]]
        # Their own near-duplicates belong to the group as well.
        conversations, sketches = [candidates[position] for position in duplicates], stored[rows[duplicates]]
    return store.questions_by_id(found)


def _stored_sketches(store: Store) -> tuple[list[str], Sketches]:
    """The ids of all stored questions, and their sketches."""
    ids: list[str] = []
    buffer = bytearray()
    outdated = store.ids_without_sketch()
    check, size = check_value().to_bytes(4, "little"), 4 * (1 + BANDS)
    for question_id, sketch in store.sketches():
        if len(sketch) == size and sketch.startswith(check):
            ids.append(question_id)
            buffer += sketch
        else:
            outdated.append(question_id)
    known = np.frombuffer(buffer, dtype="<u4").reshape(len(ids), 1 + BANDS)
    if not outdated:
        return ids, known
    questions = store.questions_by_id(outdated)
    computed = sketches_of(question.messages for question in questions)
    store.put_sketches({question.id: row.tobytes() for question, row in zip(questions, computed, strict=True)})
    return ids + [question.id for question in questions], np.concatenate([known, computed])


def _share_a_band(sketches: Sketches, others: Sketches) -> NDArray[np.bool_]:
    """For each sketch, whether it shares a band with one of the others."""
    found = np.zeros(len(sketches), dtype=bool)
    for band in range(1, 1 + BANDS):
        found |= np.isin(sketches[:, band], others[:, band])
    return found


def _with_duplicates(
    conversations: Sequence[Conversation],
    sketches: Sketches,
    others: Sequence[Conversation],
    other_sketches: Sketches,
) -> NDArray[np.int64]:
    """The positions of the conversations that are near-duplicates of one of the others."""
    found = np.zeros(len(conversations), dtype=bool)
    shingles_of, other_shingles_of = _cached_shingles(conversations), _cached_shingles(others)
    for band in range(1, 1 + BANDS):
        order = np.argsort(other_sketches[:, band], kind="stable")
        hashes = other_sketches[order, band]
        first = np.searchsorted(hashes, sketches[:, band], "left")
        stop = np.minimum(np.searchsorted(hashes, sketches[:, band], "right"), first + MAX_COMPARED)
        while (positions := np.flatnonzero(~found & (first < stop))).size:
            for position, other in zip(positions.tolist(), order[first[positions]].tolist(), strict=True):
                found[position] = _similar(shingles_of(position), other_shingles_of(other))
            first[positions] += 1
    return np.flatnonzero(found)


def _cached_shingles(conversations: Sequence[Conversation]) -> Callable[[int], set[str]]:
    """The set of shingles of a conversation by its position."""
    return lru_cache(CACHED_SETS)(lambda position: shingles(conversations[position]))


def _similar(one: set[str], other: set[str]) -> bool:
    common = len(one & other)
    return common >= SIMILARITY * (len(one) + len(other) - common)
