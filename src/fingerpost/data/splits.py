"""Groups of near-duplicates, and the split that each group belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.text import hash_fraction
from fingerpost.core.types import Conversation, Question, Split
from fingerpost.data.duplicates import Positions, ShinglesAt, duplicate_groups, related_questions, shingles_at
from fingerpost.data.sketches import Sketches, sketches_of
from fingerpost.store.project import Store
from fingerpost.task.settings import SplitSettings

SPLIT_PRIORITY: tuple[Split, ...] = ("test", "dev", "train")
"""Where near-duplicates ask for different splits, the first of these wins."""
_REQUESTS: tuple[Split | None, ...] = (*SPLIT_PRIORITY, None)


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
    questions = list(assign_large(store, new, sketches, shingles, settings))
    return questions, {question.id: row.tobytes() for question, row in zip(new, sketches, strict=True)}


def assign_large(
    store: Store, new: Sequence[NewQuestion], sketches: Sketches, shingles: ShinglesAt, settings: SplitSettings
) -> Iterator[Question]:
    """As `assign_in_store`, for questions that may be read from disk one by one. They are returned in order.

    Only the stored questions that are near-duplicates of new ones are read.

    Args:
        sketches, shingles: of the new questions.
    """
    stored = related_questions(store, sketches, shingles)
    return assign_splits(new, stored, settings, sketches, shingles)


def assign_splits(
    new: Sequence[NewQuestion],
    stored: Sequence[Question],
    settings: SplitSettings,
    sketches: Sketches | None = None,
    shingles: ShinglesAt | None = None,
) -> Iterator[Question]:
    """Assign a group and a split to new questions, in order; stored questions keep theirs.

    The split of a group without a requested one is drawn from the hash of its name. Where members of a group request
    different splits, SPLIT_PRIORITY decides, and the others are excluded: stored, but used in no split. A question
    whose stored near-duplicates are in different splits is excluded as well.

    Args:
        new: the new questions.
        stored: in the order they were stored; questions unrelated to the new ones change nothing.
        settings: the fractions of the splits.
        sketches, shingles: of the new questions, where known.
    """
    conversations = [question.messages for question in stored]
    if sketches is None:
        sketches = sketches_of(question.messages for question in new)
    new_shingles = shingles or shingles_at([question.messages for question in new])
    if stored:
        old, old_shingles = len(stored), shingles_at(conversations)
        sketches = np.concatenate([sketches_of(conversations), sketches])
        groups = duplicate_groups(lambda i: old_shingles(i) if i < old else new_shingles(i - old), sketches)
    else:
        groups = duplicate_groups(new_shingles, sketches)
    stored_members: dict[int, list[Question]] = defaultdict(list)
    for number, known in zip(groups[: len(stored)].tolist(), stored, strict=True):
        stored_members[number].append(known)
    mine = groups[len(stored) :]
    names, requests = _names_and_requests(new, mine, len(groups))

    def placed() -> Iterator[Question]:
        for number, question in zip(map(int, mine), new, strict=True):
            known_members = stored_members.get(number, [])
            name = known_members[0].group if known_members else names[number].decode()
            split = _group_split(known_members, _REQUESTS[requests[number]], name, settings)
            if question.requested_split not in (None, split):
                split = None
            yield Question(question.id, question.messages, question.source, name, split or "excluded")

    return placed()


def _names_and_requests(
    new: Sequence[NewQuestion], groups: Positions, count: int
) -> tuple[NDArray[np.bytes_], NDArray[np.uint8]]:
    """By the number of a group: the smallest id of its new questions, and which of _REQUESTS wins among them."""
    fields = np.dtype([("id", "S16"), ("request", "u1")])
    given = ((question.id.encode(), _REQUESTS.index(question.requested_split)) for question in new)
    rows = np.fromiter(given, dtype=fields, count=len(new))
    requests = np.full(count, len(_REQUESTS) - 1, dtype=np.uint8)
    np.minimum.at(requests, groups, rows["request"])
    names = np.zeros(count, dtype="S16")
    names[groups] = rows["id"]
    shared = np.flatnonzero(np.bincount(groups, minlength=count)[groups] > 1)
    order = shared[np.lexsort((rows["id"][shared], groups[shared]))]
    first = np.diff(groups[order], prepend=-1) > 0
    names[groups[order][first]] = rows["id"][order][first]
    return names, requests


def _group_split(
    stored: Sequence[Question], requested: Split | None, name: str, settings: SplitSettings
) -> Split | None:
    """The split of a group; None where its stored members are in different ones."""
    splits = {question.split for question in stored} - {"excluded"}
    if len(splits) > 1:
        return None
    if splits:
        return splits.pop()
    return requested or split_of(name, settings)
