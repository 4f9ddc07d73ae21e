"""Near-duplicates share a group, and a group lies on one side of the split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rensa import RMinHash, RMinHashLSH

from fingerpost.text import shingles, split_of
from fingerpost.types import Conversation, Question, Split, SplitSettings

ALIKE = 0.7  # Jaccard similarity of the sets of shingles
PERMUTATIONS, BANDS = 128, 32  # finds 98 % of the pairs that are just alike
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
    over dev and dev over train, and the others are set aside: kept, but used on neither side. So is a question
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
            mine: Split = side if each.wanted in (None, side) and side else "aside"
            placed[each.id] = Question(each.id, each.messages, each.source, name, mine)
    return [placed[each.id] for each in new]


def _side(known: Sequence[Question], members: Sequence[New], name: str, settings: SplitSettings) -> Split | None:
    sides = {each.split for each in known} - {"aside"}
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
