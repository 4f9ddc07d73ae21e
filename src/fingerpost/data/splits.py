"""Groups of near-duplicates, and the split that each group belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fingerpost.core.text import hash_fraction
from fingerpost.core.types import Conversation, Question, Split
from fingerpost.data.duplicates import Alike
from fingerpost.task.settings import SplitSettings


def split_of(group: str, settings: SplitSettings) -> Split:
    """The side of the split on which a whole group lies, drawn uniformly by the group's name."""
    drawn = hash_fraction(f"split/{group}")
    if drawn < settings.test:
        return "test"
    return "dev" if drawn < settings.test + settings.dev else "train"


FIRST: tuple[Split, ...] = ("test", "dev", "train")


@dataclass(frozen=True, slots=True)
class New:
    """A question that is not stored yet, and the side of the split that its file asks for, if any."""

    id: str
    messages: Conversation
    source: str
    wanted: Split | None


def place(new: Sequence[New], stored: Sequence[Question], settings: SplitSettings) -> list[Question]:
    """Give every new question its group and its side; those that are stored keep theirs.

    A group without a wish is drawn by its name. Where a group's members are wanted on several sides, test wins
    over dev and dev over train, and the others are excluded: kept, but used in no split. So is a question
    that is like stored ones of different sides.
    """
    groups = _groups([*((each.id, each.messages) for each in stored), *((each.id, each.messages) for each in new)])
    known: dict[int, list[Question]] = defaultdict(list)
    fresh: dict[int, list[New]] = defaultdict(list)
    for number, old in zip(groups, stored, strict=False):
        known[number].append(old)
    for number, each in zip(groups[len(stored) :], new, strict=True):
        fresh[number].append(each)
    placed: dict[str, Question] = {}
    for number, members in fresh.items():
        name = known[number][0].group if number in known else min(each.id for each in members)
        side = _side(known.get(number, []), members, name, settings)
        for each in members:
            mine: Split = side if each.wanted in (None, side) and side else "excluded"
            placed[each.id] = Question(each.id, each.messages, each.source, name, mine)
    return [placed[each.id] for each in new]


def _side(known: Sequence[Question], members: Sequence[New], name: str, settings: SplitSettings) -> Split | None:
    sides = {each.split for each in known} - {"excluded"}
    if len(sides) > 1:
        return None
    if sides:
        return sides.pop()
    wanted = {each.wanted for each in members}
    return next((side for side in FIRST if side in wanted), None) or split_of(name, settings)


def _groups(items: Sequence[tuple[str, Conversation]]) -> list[int]:
    """For each item the number of its group: connected by pairs that are alike."""
    parent = list(range(len(items)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for one, other in _pairs([messages for _, messages in items]):
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return [root(i) for i in range(len(items))]


def _pairs(conversations: Sequence[Conversation]) -> list[tuple[int, int]]:
    """Pairs that are alike."""
    index = Alike()
    return [(j, i) for i, conversation in enumerate(conversations) for j in index.add(conversation)]
