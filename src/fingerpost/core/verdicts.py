"""Whose verdicts count: of everyone the latest, of what was taken back none, as shares of the labels."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Literal, TypeAlias

from fingerpost.core.types import Verdict

LabelsFrom: TypeAlias = Literal["consensus", "best", "teacher", "human"]
"""`best`: people's, and the teacher's where no person has decided. `consensus`: what these teach about the rest, too."""
REVIEW, BULK = "review", "bulk"
"""The origins of verdicts that the queue asked for, and of those given to many questions at one stroke."""
WITHDRAWN = "withdrawn"
"""The origin of a verdict that takes back those of the same person and mark on the same question."""


def current(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """What everyone thinks now, oldest first: of each person, and of each teacher and label order, one verdict.

    Of a person the latest that was not taken back, be it that no label fits. Of a teacher the latest that names a
    label: a reply without one is no opinion.
    """
    taken_back = {(each.by, each.mark) for each in verdicts if each.origin == WITHDRAWN}
    found: dict[tuple[str, str, int | None], Verdict] = {}
    for verdict in verdicts:
        key = (verdict.kind, verdict.by, verdict.order)
        if verdict.kind == "person":
            if verdict.origin != WITHDRAWN and (verdict.mark is None or (verdict.by, verdict.mark) not in taken_back):
                found.pop(key, None)
                found[key] = verdict
        elif verdict.label is not None:
            found.pop(key, None)
            found[key] = verdict
    return list(found.values())


def known(verdicts: Sequence[Verdict], names: Container[str]) -> list[Verdict]:
    """Of `current`, those whose label the task has, and those of people who say that none fits."""
    return [each for each in current(verdicts) if each.label is None or each.label in names]


def latest(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Of `current`, those that name a label."""
    return [verdict for verdict in current(verdicts) if verdict.label is not None]


def fits_none(opinions: Sequence[Verdict]) -> bool:
    """Whether at least half of the people who decided say that no label fits."""
    people = [each.label is None for each in opinions if each.kind == "person"]
    return bool(people) and 2 * sum(people) >= len(people)


def doubted(verdicts: Sequence[Verdict], teacher: str | None = None) -> bool:
    """Whether a written question is a border case: a teacher gives it another label than it was written for.

    Where a person has decided, there is no doubt any more.
    """
    meant = {each.label for each in verdicts if each.kind == "writer"}
    if not meant or any(each.kind == "person" for each in current(verdicts)):
        return False
    said = shares(verdicts, "teacher", teacher)
    return said is not None and max(said, key=said.__getitem__) not in meant


def shares(
    verdicts: Sequence[Verdict], use: LabelsFrom = "best", teacher: str | None = None
) -> dict[str, float] | None:
    """The share of each label among the opinions on one question, or None where nobody names one.

    People's verdicts count before a teacher's; with `teacher` or `human` only theirs count. Of several teachers the
    named one counts alone, where it has answered.
    """
    named = latest(verdicts)
    people = [verdict for verdict in named if verdict.kind == "person"]
    teachers = [verdict for verdict in named if verdict.kind == "teacher"]
    teachers = [verdict for verdict in teachers if verdict.by == teacher] or teachers
    counted = {"human": people, "teacher": teachers}.get(use, people or teachers)
    found: dict[str, float] = {}
    for verdict in counted:
        found[str(verdict.label)] = found.get(str(verdict.label), 0.0) + 1 / len(counted)
    return found or None
