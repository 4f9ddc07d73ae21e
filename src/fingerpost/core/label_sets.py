"""Several labels on one text: a set of labels is written as one string, in which `|` separates the names.

So a verdict, a test row or an answer of a multi-label task holds one string, as in every other task. The names are
sorted: equal sets are equal strings. `|` alone is the empty set: no label applies.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence

SEPARATOR = "|"
NO_LABELS = "|"
FORBIDDEN = "|;,"
"""Characters that separate labels in a cell of a file. Names of labels cannot contain them in a multi-label task."""

_SEPARATORS = re.compile(f"[{FORBIDDEN}]")


def join_labels(labels: Iterable[str]) -> str:
    """A set of labels as one string: sorted, with `|` between the names."""
    return SEPARATOR.join(sorted(set(labels))) or NO_LABELS


def split_labels(label_set: str) -> tuple[str, ...]:
    """The labels in a string that `join_labels` wrote."""
    return tuple(part for part in label_set.split(SEPARATOR) if part)


def split_cell(cell: str) -> list[str]:
    """The labels in a cell of a file, in which `|`, `;` or `,` separates them."""
    return [part for given in _SEPARATORS.split(cell) if (part := given.strip())]


def format_labels(label_set: str) -> str:
    """A set of labels, for people to read."""
    return ", ".join(split_labels(label_set)) or "(no label)"


class LabelSets:
    """All sets of these labels: contains a string if all labels in it are known.

    Args:
        names: the task's label names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)

    def __contains__(self, label_set: object) -> bool:
        return isinstance(label_set, str) and self._names.issuperset(split_labels(label_set))


def includes(answers: Container[str], intended: str, answer: str) -> bool:
    """Whether an answer includes the intended label.

    Args:
        answers: all possible answers: a task's labels, or `LabelSets`.
    """
    return intended in split_labels(answer) if isinstance(answers, LabelSets) else intended == answer
