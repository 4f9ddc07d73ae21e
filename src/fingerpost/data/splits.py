"""Groups of near-duplicates, and the split that each group belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fingerpost.core.text import hash_fraction
from fingerpost.core.types import Conversation, Question, Split
from fingerpost.data.duplicates import duplicate_groups, related_questions
from fingerpost.data.sketches import Sketches, sketches_of
from fingerpost.store.project import Store
from fingerpost.task.settings import SplitSettings

SPLIT_PRIORITY: tuple[Split, ...] = ("test", "dev", "train")
"""Where near-duplicates ask for different splits, the first of these wins."""


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

    Only the stored questions that are near-duplicates of new ones are read.

    Returns:
        The questions in order, and their sketches by id. Store them together.
    """
    conversations = [question.messages for question in new]
    sketches = sketches_of(conversations)
    stored = related_questions(store, sketches, conversations)
    questions = assign_splits(new, stored, settings, sketches)
    return questions, {question.id: row.tobytes() for question, row in zip(new, sketches, strict=True)}


def assign_splits(
    new: Sequence[NewQuestion],
    stored: Sequence[Question],
    settings: SplitSettings,
    sketches: Sketches | None = None,
) -> list[Question]:
    """Assign a group and a split to new questions; stored questions keep theirs.

    The split of a group without a requested one is drawn from the hash of its name. Where members of a group request
    different splits, SPLIT_PRIORITY decides, and the others are excluded: stored, but used in no split. A question
    whose stored near-duplicates are in different splits is excluded as well.

    Args:
        new: the new questions.
        stored: in the order they were stored; questions unrelated to the new ones change nothing.
        settings: the fractions of the splits.
        sketches: of the new questions, where known.
    """
    conversations = [question.messages for question in stored] + [question.messages for question in new]
    if sketches is None:
        sketches = sketches_of(question.messages for question in new)
    groups = duplicate_groups(
        conversations, np.concatenate([sketches_of(question.messages for question in stored), sketches])
    )
    stored_members: dict[int, list[Question]] = defaultdict(list)
    new_members: dict[int, list[NewQuestion]] = defaultdict(list)
    for number, known in zip(groups, stored, strict=False):
        stored_members[number].append(known)
    for number, question in zip(groups[len(stored) :], new, strict=True):
        new_members[number].append(question)
    assigned: dict[str, Question] = {}
    for number, members in new_members.items():
        known_members = stored_members.get(number, [])
        name = known_members[0].group if known_members else min(question.id for question in members)
        group_split = _group_split(known_members, members, name, settings)
        for question in members:
            split: Split = (
                group_split if group_split and question.requested_split in (None, group_split) else "excluded"
            )
            assigned[question.id] = Question(question.id, question.messages, question.source, name, split)
    return [assigned[question.id] for question in new]


def _group_split(
    stored: Sequence[Question], new: Sequence[NewQuestion], name: str, settings: SplitSettings
) -> Split | None:
    """The split of a group; None where its stored members are in different ones."""
    splits = {question.split for question in stored} - {"excluded"}
    if len(splits) > 1:
        return None
    if splits:
        return splits.pop()
    return first_split({question.requested_split for question in new}) or split_of(name, settings)


def first_split(requested: set[Split | None]) -> Split | None:
    """The requested split that wins, if any is requested."""
    return next((split for split in SPLIT_PRIORITY if split in requested), None)
