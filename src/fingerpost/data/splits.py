"""Groups of near-duplicates, and the split that each group belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.text import hash_fraction
from fingerpost.core.types import Conversation, Question, Split
from fingerpost.data.duplicates import Positions, ShinglesAt, duplicate_groups, shingles_at, stored_duplicates
from fingerpost.data.sketches import Sketches, sketches_of
from fingerpost.store.project import Store
from fingerpost.task.settings import SplitSettings

SPLIT_PRIORITY: tuple[Split, ...] = ("test", "dev", "train")
"""Where near-duplicates ask for different splits, the first of these wins."""
SPLIT_REQUESTS: tuple[Split | None, ...] = (*SPLIT_PRIORITY, None)
Requests: TypeAlias = NDArray[np.void]
"""Shape (questions,), of `REQUEST`: id, and the index in SPLIT_REQUESTS of the split that the question's file asks for."""
REQUEST = np.dtype([("id", "S16"), ("split", "u1")])


@dataclass(frozen=True, slots=True)
class NewQuestion:
    """A question that is not stored yet.

    Attributes:
        requested_split: the split that its file asks for, if any.
    """

    id: str
    messages: Conversation
    source: str
    requested_split: Split | None


def split_of(group: str, settings: SplitSettings) -> Split:
    """The split of a whole group, drawn from the hash of its name."""
    fraction = hash_fraction(f"split/{group}")
    if fraction < settings.test:
        return "test"
    return "dev" if fraction < settings.test + settings.dev else "train"


def assign_in_store(
    store: Store, new: Sequence[NewQuestion], settings: SplitSettings
) -> tuple[list[Question], dict[str, bytes]]:
    """Assign a group and a split to new questions of a project.

    Returns:
        The questions in order, and their sketches by id. Store them together.
    """
    sketches, shingles = sketches_of(question.messages for question in new), shingles_at([q.messages for q in new])
    questions = list(assign_large(store, new, requests_of(new), sketches, shingles, settings))
    return questions, {question.id: row.tobytes() for question, row in zip(new, sketches, strict=True)}


def requests_of(new: Sequence[NewQuestion]) -> Requests:
    """The ids and requested splits of questions."""
    rows = [(question.id, SPLIT_REQUESTS.index(question.requested_split)) for question in new]
    return np.array(rows, dtype=REQUEST)


def assign_large(
    store: Store,
    new: Iterable[NewQuestion],
    requests: Requests,
    sketches: Sketches,
    shingles: ShinglesAt,
    settings: SplitSettings,
) -> Iterator[Question]:
    """Assign a group and a split to new questions, which may be read from disk one by one; they are returned in order.

    The split of a group without a requested one is drawn from the hash of its name. Where members of a group request
    different splits, SPLIT_PRIORITY decides, and the others are excluded: stored, but used in no split. Near-duplicates of a
    stored question join its group and split. A question whose stored near-duplicates are in different splits is excluded.

    Args:
        requests, sketches, shingles: of the new questions.
    """
    groups = duplicate_groups(shingles, sketches)
    joined: dict[int, set[str]] = defaultdict(set)
    for position, name in stored_duplicates(store, sketches, shingles):
        joined[int(groups[position])].add(name)
    splits = store.splits_of_groups({name for names in joined.values() for name in names})
    names, winning = _names_and_splits(requests, groups)

    def placed() -> Iterator[Question]:
        for number, question in zip(map(int, groups), new, strict=True):
            stored = joined.get(number)
            name = min(stored) if stored else names[number].decode()
            taken = {split for known in stored or () for split in splits[known]} - {"excluded"}
            requested = SPLIT_REQUESTS[winning[number]]
            split = min(taken) if len(taken) == 1 else None if taken else requested or split_of(name, settings)
            if question.requested_split not in (None, split):
                split = None
            yield Question(question.id, question.messages, question.source, name, split or "excluded")

    return placed()


def _names_and_splits(requests: Requests, groups: Positions) -> tuple[NDArray[np.bytes_], NDArray[np.uint8]]:
    """By the number of a group: the smallest id of its questions, and which of SPLIT_REQUESTS wins among them."""
    winning = np.full(len(groups), len(SPLIT_REQUESTS) - 1, dtype=np.uint8)
    np.minimum.at(winning, groups, requests["split"])
    names = np.zeros(len(groups), dtype="S16")
    names[groups] = requests["id"]
    shared = np.flatnonzero(np.bincount(groups, minlength=len(groups))[groups] > 1)
    order = shared[np.lexsort((requests["id"][shared], groups[shared]))]
    first = np.diff(groups[order], prepend=-1) > 0
    names[groups[order][first]] = requests["id"][order][first]
    return names, winning
