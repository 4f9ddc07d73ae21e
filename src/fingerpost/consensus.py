"""From verdicts to what a student learns: a probability for each label and a weight for every question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from fingerpost.text import fingerprint
from fingerpost.types import Example, Verdict

LabelsFrom: TypeAlias = Literal["best", "teacher", "human"]


def latest(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Of each person, and of each teacher and label order, the latest verdict that names a label; oldest first."""
    found: dict[tuple[str, str, int | None], Verdict] = {}
    for verdict in verdicts:
        if verdict.label is not None:
            found[verdict.kind, verdict.by, verdict.order] = verdict
    return list(found.values())


def consensus(
    verdicts: Sequence[Verdict], use: LabelsFrom = "best", teacher: str | None = None
) -> dict[str, float] | None:
    """The probability of each label of one question, or None where nobody named one.

    People's verdicts count before a teacher's; with `teacher` or `human` only theirs count. Several votes are shares.
    Of several teachers the named one counts alone, where it has answered.
    """
    named = latest(verdicts)
    people = [verdict for verdict in named if verdict.kind == "person"]
    teachers = [verdict for verdict in named if verdict.kind == "teacher"]
    teachers = [verdict for verdict in teachers if verdict.by == teacher] or teachers
    counted = {"best": people or teachers, "human": people, "teacher": teachers}[use]
    shares: dict[str, float] = {}
    for verdict in counted:
        shares[str(verdict.label)] = shares.get(str(verdict.label), 0.0) + 1 / len(counted)
    return shares or None


def data_fingerprint(examples: Sequence[Example], dev: Sequence[Example]) -> str:
    """Changes when a question, a target or a weight does."""
    return fingerprint(
        f"{side}/{each.id}/{sorted(each.target.items())}/{each.weight}"
        for side, part in (("train", examples), ("dev", dev))
        for each in part
    )
