"""Counts the labels of a file, and finds what is probably a mistake in them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from fingerpost.core.text import canonical_name, shorten

FEW = 5
"""A label with fewer rows can hardly be learnt or measured."""
EXAMPLES = 4
SEPARATORS = re.compile(r"[|;,]")
MOST, LEAST = 12, 3
"""Labels that are shown: the most frequent ones, and the rarest ones."""


def describe_counts(labels: Sequence[str]) -> str:
    """One line with the number of labels and their rows, the most frequent first."""
    counts = Counter(labels).most_common()
    shown = [f"{shorten(label, 40)} {count:,}" for label, count in counts]
    if len(shown) > MOST + LEAST:
        shown = [*shown[:MOST], f"... {len(shown) - MOST - LEAST:,} more ...", *shown[-LEAST:]]
    return f"{len(counts):,} labels: {', '.join(shown)}"


def label_warnings(texts: Sequence[str], labels: Sequence[str], multi: bool = False) -> list[str]:
    """What is probably a mistake in the labels of texts: one line for each kind.

    Args:
        texts, labels: of the same length; a label is the value of a cell.
        multi: a cell may name several labels.
    """
    counts = Counter(labels)
    found = [_near_identical_labels(counts), _rare(counts), _contradictions(texts, labels)]
    if not multi:
        found.append(_multi_label_cells(counts))
    if len(counts) > max(20, len(labels) / 2):
        found.append(
            f"{len(counts):,} different labels in {len(labels):,} rows; is this the column of labels? (--label)"
        )
    return [warning for warning in found if warning]


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - EXAMPLES:,} more" if len(items) > EXAMPLES else ""
    return ", ".join(items[:EXAMPLES]) + more


def _rare(counts: Counter[str]) -> str:
    rare = [f"'{shorten(label, 40)}' ({count})" for label, count in counts.most_common() if count < FEW]
    return f"labels with fewer than {FEW} rows can hardly be learnt: {_listed(rare)}" if rare else ""


def _near_identical_labels(counts: Counter[str]) -> str:
    """Labels that differ in case, spaces or punctuation alone."""
    names = defaultdict(list)
    for label in counts:
        names[canonical_name(label)].append(label)
    twins = [" / ".join(f"'{shorten(label, 40)}'" for label in group) for group in names.values() if len(group) > 1]
    return (
        f"labels that differ only in case, spaces or punctuation count as different ones: {_listed(twins)}"
        if twins
        else ""
    )


def _multi_label_cells(counts: Counter[str]) -> str:
    """Cells that name several of the other labels."""
    known = {label.strip() for label in counts}
    lists = [
        label
        for label in counts
        if len(parts := [part.strip() for part in SEPARATORS.split(label)]) > 1
        and ("|" in label or all(part in known for part in parts))
    ]
    rows = sum(counts[label] for label in lists)
    shown = _listed([f"'{shorten(label, 40)}'" for label in lists])
    return f"{rows:,} rows seem to have several labels, such as {shown}; --multi splits them" if lists else ""


def _contradictions(texts: Sequence[str], labels: Sequence[str]) -> str:
    """Texts that stand under several labels."""
    given = defaultdict(set)
    for text, label in zip(texts, labels, strict=True):
        given[" ".join(text.casefold().split())].add(label)
    several = [(text, found) for text, found in given.items() if len(found) > 1]
    shown = _listed([f"'{shorten(text, 40)}' ({', '.join(sorted(found))})" for text, found in several])
    return f"{len(several):,} texts have more than one label: {shown}" if several else ""
