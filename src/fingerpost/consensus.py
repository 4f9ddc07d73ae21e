"""From verdicts to what a student learns: a probability for each label and a weight for every question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from fingerpost.text import fingerprint
from fingerpost.types import Example, Verdict

LabelsFrom: TypeAlias = Literal["best", "teacher", "human"]


def consensus(verdicts: Sequence[Verdict], use: LabelsFrom = "best") -> dict[str, float] | None:
    """The probability of each label of one question, or None where nobody named one.

    People's verdicts count before a teacher's; with `teacher` or `human` only theirs count. Several votes of
    a teacher are shares. Of one person (or one teacher and label order) only the latest verdict counts.
    """
    latest: dict[tuple[str, str, int | None], Verdict] = {}
    for verdict in verdicts:
        if verdict.label is not None:
            latest[verdict.kind, verdict.by, verdict.order] = verdict
    people = [verdict for verdict in latest.values() if verdict.kind == "person"]
    teachers = [verdict for verdict in latest.values() if verdict.kind == "teacher"]
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
