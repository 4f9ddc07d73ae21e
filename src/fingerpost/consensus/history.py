"""Past review decisions, and undoing them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fingerpost.core.errors import InputError
from fingerpost.core.types import Verdict
from fingerpost.core.verdicts import WITHDRAWN
from fingerpost.store.project import Store


@dataclass(frozen=True, slots=True)
class Decision:
    """One review decision: a label for one question, or for a group of questions.

    Attributes:
        mark: the id by which the decision can be taken back.
        by: the reviewer's name.
        count: number of questions.
        label: None for "no label fits".
        at: ISO 8601 time; empty where unknown.
        active: whether it has not been taken back.
        text: the first question's last message.
        question: the first question's id.
    """

    mark: str
    by: str
    count: int
    label: str | None
    note: str | None
    at: str
    active: bool
    text: str = ""
    question: str = ""


def decisions(store: Store) -> list[Decision]:
    """All decisions with a mark, the newest first."""
    by_mark: dict[str, list[Verdict]] = {}
    for verdict in store.marked():
        by_mark.setdefault(str(verdict.mark), []).append(verdict)
    found: list[Decision] = []
    firsts: dict[str, str] = {}
    for mark, verdicts in by_mark.items():
        given = [verdict for verdict in verdicts if verdict.origin != WITHDRAWN]
        first = given[0]
        at = first.at.isoformat(timespec="seconds") if first.at else ""
        active = len(given) == len(verdicts)
        found.append(Decision(mark, first.by, len(given), first.label, first.note, at, active, "", first.question_id))
        firsts[mark] = first.question_id
    texts = {question.id: question.messages[-1].content for question in store.questions_by_id(firsts.values())}
    found = [replace(decision, text=texts.get(firsts[decision.mark], "")) for decision in found]
    return sorted(found, key=lambda decision: decision.at, reverse=True)


def take_back(store: Store, mark: str) -> int:
    """Take back a decision: earlier verdicts on its questions count again.

    Returns:
        The number of questions that change; 0 where the decision was taken back before.

    Raises:
        InputError: no decision has this mark.
    """
    verdicts = store.marked(mark)
    if not verdicts:
        raise InputError(f"no decision has the mark '{mark}'; 'fingerpost review --history' lists the marks")
    withdrawn = {verdict.question_id for verdict in verdicts if verdict.origin == WITHDRAWN}
    active = [verdict for verdict in verdicts if verdict.origin != WITHDRAWN and verdict.question_id not in withdrawn]
    return store.add_verdicts(
        Verdict(verdict.question_id, "human", verdict.by, None, origin=WITHDRAWN, mark=mark) for verdict in active
    )
