"""A review session: one person decides questions, and each decision is stored at once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from fingerpost.consensus.history import take_back
from fingerpost.core.errors import InputError
from fingerpost.core.text import hash_fraction
from fingerpost.core.types import Question, Verdict
from fingerpost.core.verdicts import REVIEW, active
from fingerpost.store.project import Store
from fingerpost.task.settings import Task


@dataclass(frozen=True, slots=True)
class Card:
    """A question to decide, why it was chosen, the likely labels first, and the nearest reviewed questions.

    A card of the test sample has none of these: who measures should not be led.
    """

    question: Question
    reason: str = ""
    likely: tuple[tuple[str, float], ...] = ()
    teacher: str | None = None
    neighbours: tuple[tuple[Question, str], ...] = ()


@dataclass(slots=True)
class Log:
    """What this sitting did: its strokes in order, each a mark and the ids of its questions; and when it began."""

    strokes: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def answers(self) -> int:
        """Questions that were decided."""
        return sum(len(ids) for _, ids in self.strokes)

    @property
    def rate(self) -> float:
        """Answers a minute."""
        return 60 * self.answers / max(time.monotonic() - self.began, 1.0)


class Desk:
    """Where one person decides questions; answers go to the store at once.

    Args:
        by: the reviewer's name, under which the verdicts are kept.
    """

    def __init__(self, task: Task, store: Store, by: str) -> None:
        self.task, self.by, self.log = task, by, Log()
        self._store = store

    def answer(self, question: Question, label: str | None, note: str | None = None) -> str:
        """Store a decision; None says that no label fits. Returns its mark, by which it can be taken back.

        Raises:
            InputError: the task has no such label.
        """
        return self._record([question], label, REVIEW, note)

    def undo(self) -> tuple[str, ...]:
        """Take back this sitting's last stroke; returns the ids of its questions, none where there is no stroke."""
        if not self.log.strokes:
            return ()
        mark, ids = self.log.strokes.pop()
        take_back(self._store, mark)
        return ids

    def _record(self, questions: Sequence[Question], label: str | None, origin: str, note: str | None) -> str:
        if label is not None and label not in self.task.names:
            raise InputError(f"there is no label '{label}'; add it to task.toml first")
        mark = uuid.uuid4().hex[:12]
        self._store.add_verdicts(
            Verdict(each.id, "human", self.by, label, origin=origin, mark=mark, note=note) for each in questions
        )
        self.log.strokes.append((mark, tuple(each.id for each in questions)))
        return mark


class Sample(Desk):
    """A uniform sample of the test split, to measure with: the same questions for everyone, and no hints.

    Raises:
        InputError: there are no test questions.
    """

    def __init__(self, task: Task, store: Store, by: str, size: int) -> None:
        super().__init__(task, store, by)
        questions = sorted(store.questions("test"), key=lambda each: hash_fraction(f"sample/{each.id}"))
        if not questions:
            raise InputError("there are no test questions; import more, some of them go to the test side")
        self.questions = questions[:size]
        verdicts = store.verdicts()
        self._open = [each for each in self.questions if not _decided(verdicts.get(each.id, []))]
        self._open.reverse()
        self._undecided = len(self._open)

    @property
    def left(self) -> int:
        """How many questions of the sample are still to be decided."""
        return self._undecided - self.log.answers

    def next(self) -> Card | None:
        """The next card, or None at the end."""
        return Card(self._open.pop()) if self._open else None

    def put_back(self, question_id: str) -> None:
        """Show this question next."""
        self._open.append(next(each for each in self.questions if each.id == question_id))


def _decided(verdicts: Sequence[Verdict]) -> bool:
    return any(each.kind == "human" for each in active(verdicts))
