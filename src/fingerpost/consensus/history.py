"""Past decisions, and taking them back."""

from __future__ import annotations

from dataclasses import dataclass

from fingerpost.core.errors import InputError
from fingerpost.core.types import Verdict
from fingerpost.core.verdicts import WITHDRAWN
from fingerpost.store.project import Store


@dataclass(frozen=True, slots=True)
class Stroke:
    """What was decided under one mark: by whom, how many questions, which label, when, and whether it still holds."""

    mark: str
    by: str
    count: int
    label: str | None
    note: str | None
    at: str
    holds: bool


def strokes(store: Store) -> list[Stroke]:
    """Everything that was decided under a mark, the newest first."""
    found: dict[str, list[Verdict]] = {}
    for verdict in store.marked():
        found.setdefault(str(verdict.mark), []).append(verdict)
    made = []
    for mark, verdicts in found.items():
        given = [each for each in verdicts if each.origin != WITHDRAWN]
        first = given[0]
        at = first.at.isoformat(timespec="seconds") if first.at else ""
        made.append(Stroke(mark, first.by, len(given), first.label, first.note, at, len(given) == len(verdicts)))
    return sorted(made, key=lambda each: each.at, reverse=True)


def take_back(store: Store, mark: str) -> int:
    """Take back everything that was decided under a mark: what was thought before holds again.

    Raises:
        InputError: nothing was decided under it.
    """
    given = store.marked(mark)
    if not given:
        raise InputError(f"nothing was decided under the mark '{mark}'; 'fingerpost review --history' lists the marks")
    withdrawn = {each.question_id for each in given if each.origin == WITHDRAWN}
    open_ = [each for each in given if each.origin != WITHDRAWN and each.question_id not in withdrawn]
    return store.add_verdicts(
        Verdict(each.question_id, "human", each.by, None, origin=WITHDRAWN, mark=mark) for each in open_
    )
