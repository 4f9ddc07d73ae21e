"""Review sessions: one reviewer labels questions, and each decision is stored at once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from fingerpost.consensus.history import take_back
from fingerpost.core.errors import InputError
from fingerpost.core.text import hash_fraction
from fingerpost.core.types import Question, Split, Verdict
from fingerpost.core.verdicts import REVIEW, active
from fingerpost.store.project import Store
from fingerpost.task.settings import Task


@dataclass(frozen=True, slots=True)
class Card:
    """A question to label, with hints. A card of the test sample has no hints: they would bias the measurement.

    Attributes:
        reason: why the question was selected.
        suggestions: the most probable labels with their probability, the most probable first.
        teacher_label: the teacher's label, if it has one.
        student_label: what a student answers that has not learnt from this question.
        neighbours: the most similar reviewed questions with their label.
    """

    question: Question
    reason: str = ""
    suggestions: tuple[tuple[str, float], ...] = ()
    teacher_label: str | None = None
    neighbours: tuple[tuple[Question, str], ...] = ()
    student_label: str | None = None


@dataclass(slots=True)
class SessionLog:
    """What was decided in this session.

    Attributes:
        decisions: mark and question ids of each decision, the oldest first.
        started_at: monotonic clock, in seconds.
    """

    decisions: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    started_at: float = field(default_factory=time.monotonic)

    @property
    def answered(self) -> int:
        """Number of questions that were decided."""
        return sum(len(ids) for _, ids in self.decisions)

    @property
    def per_minute(self) -> float:
        """Decided questions per minute."""
        return 60 * self.answered / max(time.monotonic() - self.started_at, 1.0)


class ReviewSession:
    """One reviewer's session. Answers are stored at once.

    Args:
        by: the reviewer's name, stored with each verdict.
    """

    def __init__(self, task: Task, store: Store, by: str) -> None:
        self.task, self.by, self.log = task, by, SessionLog()
        self._store = store

    def answer(self, question: Question, label: str | None, note: str | None = None) -> str:
        """Store a decision on a question; None means that no label fits.

        Returns:
            The decision's mark, by which it can be taken back.

        Raises:
            InputError: the task has no such label.
        """
        return self._record([question], label, REVIEW, note)

    def undo(self) -> tuple[str, ...]:
        """Take back this session's last decision; returns the ids of its questions, none where there is no decision."""
        if not self.log.decisions:
            return ()
        mark, ids = self.log.decisions.pop()
        take_back(self._store, mark)
        return ids

    def _record(self, questions: Sequence[Question], label: str | None, origin: str, note: str | None) -> str:
        if label is not None and label not in self.task.answers:
            raise InputError(f"the task has no label '{label}'; add it to task.toml first")
        mark = uuid.uuid4().hex[:12]
        self._store.add_verdicts(
            Verdict(question.id, "human", self.by, label, origin=origin, mark=mark, note=note) for question in questions
        )
        self.log.decisions.append((mark, tuple(question.id for question in questions)))
        return mark


class UniformSample(ReviewSession):
    """Labels a uniform sample of the test or dev split, to evaluate on or to choose a cut-off by.

    Every reviewer gets the same questions, without hints.

    Args:
        size: number of questions in the sample.
        split: the split.

    Raises:
        InputError: there are no questions in the split.
    """

    def __init__(self, task: Task, store: Store, by: str, size: int, split: Split = "test") -> None:
        super().__init__(task, store, by)
        questions = sorted(store.questions(split), key=lambda question: hash_fraction(f"sample/{question.id}"))
        if not questions:
            raise InputError(f"there are no {split} questions; import more questions, some go to the {split} split")
        self.questions = questions[:size]
        verdicts = store.verdicts()
        self._open = [question for question in self.questions if not _has_human(verdicts.get(question.id, []))]
        self._open.reverse()
        self._open_at_start = len(self._open)

    @property
    def remaining(self) -> int:
        """Number of questions of the sample that no human has decided."""
        return self._open_at_start - self.log.answered

    def next(self) -> Card | None:
        """The next card, or None at the end."""
        return Card(self._open.pop()) if self._open else None

    def requeue(self, question_id: str) -> None:
        """Show this question next."""
        self._open.append(next(question for question in self.questions if question.id == question_id))


def _has_human(verdicts: Sequence[Verdict]) -> bool:
    return any(verdict.kind == "human" for verdict in active(verdicts))
