"""The review queue: humans label the questions that improve the student most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np

from fingerpost.consensus.evidence import Evidence, answer_of_row, collect_evidence, compute_features, consensus_of
from fingerpost.consensus.model import Array, Consensus, Rows
from fingerpost.consensus.selection import Selection, select_rows
from fingerpost.consensus.session import Card, ReviewSession
from fingerpost.core.errors import InputError
from fingerpost.core.text import hash_fraction
from fingerpost.core.types import Question
from fingerpost.core.verdicts import BULK, QuestionVerdicts, active
from fingerpost.store.project import Store
from fingerpost.task.settings import Task

ROUND_SIZE = 25  # answers after which the consensus is recomputed and the queue is filled anew
NEIGHBOURS = 3
SUGGESTIONS = 5
CONVERGED_PREDICTED = 0.9  # share of a round's answers that the consensus predicted ...
CONVERGED_CHANGED = 0.002  # ... and share of all labels that changed: from here, more reviews bring little
SMALLEST_GROUP = 5


@dataclass(frozen=True, slots=True)
class QuestionGroup:
    """Unreviewed questions with the same teacher label and the same, different, consensus label; surest first."""

    teacher_label: str
    consensus_label: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class ReviewRound:
    """The effect of one round of answers.

    Attributes:
        answers: number of answers in the round.
        predicted: how many of them the consensus had as most probable label.
        changed: number of labels that the consensus changed.
        total: number of training questions.
    """

    answers: int
    predicted: int
    changed: int
    total: int

    @property
    def converged(self) -> bool:
        """Whether further reviews will change little."""
        return (
            self.answers >= ROUND_SIZE
            and self.predicted >= CONVERGED_PREDICTED * self.answers
            and self.changed <= CONVERGED_CHANGED * self.total
        )


class ReviewQueue(ReviewSession):
    """Selects training questions to review. After each round of 25 answers, consensus and queue are recomputed.

    Args:
        embed: returns the embeddings of questions, shape (questions, width).
        first: ids of the questions to ask first: those on which a student in service and the model that it replaces disagreed.

    Raises:
        InputError: there are no training questions.
    """

    def __init__(
        self,
        task: Task,
        store: Store,
        by: str,
        embed: Callable[[Sequence[Question]], Array],
        first: Container[str] = (),
    ) -> None:
        super().__init__(task, store, by)
        self.questions = store.questions("train")
        if not self.questions:
            raise InputError("there are no training questions; run 'fingerpost import FILE'")
        self._first = first
        self._row = {question.id: row for row, question in enumerate(self.questions)}
        self._vectors = embed(self.questions)
        self._verdicts = store.verdicts()
        self._skipped: set[int] = set()
        self._round: list[tuple[str, bool]] = []  # mark of an answer, and whether the consensus predicted it
        evidence = self._collect()
        self._features = compute_features(evidence)
        self._update(evidence)
        self.rounds: list[ReviewRound] = []

    # --- cards

    def next(self) -> Card | None:
        """The next card, or None where all questions are reviewed or skipped. Ends a round of 25 answers."""
        if len(self._round) >= ROUND_SIZE:
            self._end_round()
        if not self._queue:
            self._fill_queue()
        return self._card(self._queue.pop(0)) if self._queue else None

    def upcoming(self, count: int) -> list[Card]:
        """The next cards, without taking them out of the queue; fewer where fewer questions are open."""
        self._fill_queue(count)
        return [self._card(selected) for selected in self._queue]

    def answer(self, question: Question, label: str | None, note: str | None = None) -> str:
        mark = super().answer(question, label, note)
        self._round.append((mark, label == self._label(self._row[question.id])))
        return mark

    def undo(self) -> tuple[str, ...]:
        ids = super().undo()
        marks = {mark for mark, _ in self.log.decisions}
        if len(ids) > 1:
            self.refresh()
        self._round = [(mark, predicted) for mark, predicted in self._round if mark in marks]
        return ids

    def skip(self, question: Question) -> None:
        """Do not show this question again in this session."""
        self._skipped.add(self._row[question.id])

    def requeue(self, question_id: str) -> None:
        """Show this question next."""
        row = self._row[question_id]
        self._queue.insert(0, Selection(row, 1, float(self._error_probability[row])))

    @property
    def reviewed(self) -> int:
        """Number of training questions that humans have decided."""
        return len(self._evidence.reviewed) + len(self._evidence.none_fits) + len(self._round)

    @property
    def left_in_round(self) -> int:
        """Answers until consensus and queue are recomputed."""
        return max(0, ROUND_SIZE - len(self._round))

    def expected_changes(self) -> int:
        """Estimated number of labels that answering the queued cards will change, their own included."""
        return round(sum((one.error_probability * one.represents for one in self._queue[:ROUND_SIZE]), 0.0))

    # --- groups

    def groups(self) -> list[QuestionGroup]:
        """Groups of questions to correct in one decision, the largest first."""
        decided = set(self._evidence.reviewed.tolist()) | set(self._evidence.none_fits.tolist())
        votes, voted = self._evidence.pooled()
        found: dict[tuple[str, str], list[int]] = {}
        for row in np.flatnonzero(voted).tolist():
            teacher, likely = answer_of_row(self.task, votes[row]), self._label(row)
            if row not in decided and teacher != likely:
                found.setdefault((teacher, likely), []).append(row)
        groups = [
            QuestionGroup(teacher, likely, tuple(self.questions[row] for row in self._surest_first(rows)))
            for (teacher, likely), rows in found.items()
            if len(rows) >= SMALLEST_GROUP
        ]
        return sorted(groups, key=lambda group: -len(group.questions))

    def correct(self, group: QuestionGroup, label: str | None = None, leave_out: Sequence[int] = ()) -> str:
        """Give the questions of a group one label, and recompute the consensus.

        Args:
            label: the consensus label if not given.
            leave_out: positions in the group that keep their label.

        Returns:
            The decision's mark, by which it can be taken back.
        """
        left_out = set(leave_out)
        chosen = [question for i, question in enumerate(group.questions) if i not in left_out]
        note = f"group {group.teacher_label} -> {group.consensus_label}"
        mark = self._record(chosen, label or group.consensus_label, BULK, note)
        self.refresh()
        return mark

    def refresh(self) -> None:
        """Recompute the consensus from all verdicts in the store, and empty the queue."""
        self._verdicts = self._store.verdicts()
        self._update(self._collect())

    # --- internals

    def _collect(self) -> Evidence:
        answers, teacher = self.task.answers, self.task.teacher_model
        labelled = [
            (question, QuestionVerdicts(self._verdicts.get(question.id, ()), answers, teacher))
            for question in self.questions
        ]
        return collect_evidence(self.task, labelled, self._vectors)

    def _update(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._consensus: Consensus = consensus_of(evidence, self._features, self.task.student.seed)
        self._error_probability = self._consensus.error_probability
        self._queue: list[Selection] = []
        self._round = []

    def _end_round(self) -> None:
        before = self._answers()
        answers, predicted = len(self._round), sum(predicted for _, predicted in self._round)
        self.refresh()
        changed = sum(answer != old for answer, old in zip(self._answers(), before, strict=True))
        self.rounds.append(ReviewRound(answers, predicted, changed, len(self.questions)))

    def _fill_queue(self, count: int = ROUND_SIZE) -> None:
        decided = np.concatenate([self._evidence.reviewed, self._evidence.none_fits])
        in_session = [self._row[question_id] for _, ids in self.log.decisions for question_id in ids]
        closed = np.union1d(decided, np.array([*in_session, *self._skipped], dtype=np.int64))
        open_rows: Rows = np.setdiff1d(np.arange(len(self.questions)), closed)
        seed = int(1e6 * hash_fraction(f"{self.by}/{len(decided)}/{len(self._skipped)}"))
        first = [row for row in open_rows.tolist() if self.questions[row].id in self._first][:count]
        others = select_rows(
            self._features.embeddings,
            self._error_probability,
            np.setdiff1d(open_rows, np.array(first, dtype=np.int64)),
            closed.astype(np.int64),
            count - len(first),
            seed=seed,
        )
        self._queue = [*(Selection(row, 1, float(self._error_probability[row])) for row in first), *others]

    def _card(self, selected: Selection) -> Card:
        probabilities = self._consensus.estimates[selected.row]
        order = np.argsort(-probabilities)[:SUGGESTIONS]
        names = self.task.names
        verdicts = active(self._verdicts.get(self.questions[selected.row].id, []))
        votes = Counter(verdict.label for verdict in verdicts if verdict.kind == "teacher")
        neighbours = self._nearest(selected.row)
        return Card(
            self.questions[selected.row],
            self._reason(selected, votes, neighbours),
            tuple((names[i], float(probabilities[i])) for i in order),
            votes.most_common(1)[0][0] if votes else None,
            tuple((self.questions[row], label) for row, label in neighbours),
            answer_of_row(self.task, self._features.student[selected.row]),
        )

    def _reason(self, selected: Selection, votes: Counter[str | None], neighbours: list[tuple[int, str]]) -> str:
        consensus = self._label(selected.row)
        student = answer_of_row(self.task, self._features.student[selected.row])
        similar = selected.represents - 1
        reasons = [f"about {similar:,} similar questions"] if similar else []
        if self.questions[selected.row].id in self._first:
            reasons = [
                "the student in service and the model that it replaces disagreed here, which contributed to an alarm"
            ]
        teacher = votes.most_common(1)[0][0] if votes else None
        if len(votes) > 1:
            reasons.append("the teacher's answers differ: " + ", ".join(str(label) for label in votes))
        elif teacher is None:
            reasons.append("the teacher gave no label")
        elif consensus != teacher:
            reasons.append(f"teacher: {teacher}; consensus with the reviews: {consensus}")
        elif student != teacher:
            reasons.append(f"teacher: {teacher}; student, out of fold: {student}")
        elif neighbours and neighbours[0][1] != teacher:
            reasons.append(f"teacher: {teacher}; nearest reviewed question: {neighbours[0][1]}")
        return "; ".join(reasons) or "no similar questions"

    def _nearest(self, row: int) -> list[tuple[int, str]]:
        """The most similar reviewed rows with their label, the most similar first."""
        reviewed = self._evidence.reviewed
        if not len(reviewed):
            return []
        similarity = self._features.embeddings[reviewed] @ self._features.embeddings[row]
        chosen = np.argsort(-similarity)[:NEIGHBOURS]
        return [(int(reviewed[i]), answer_of_row(self.task, self._evidence.human_votes[i])) for i in chosen]

    def _surest_first(self, rows: list[int]) -> list[int]:
        return sorted(rows, key=lambda row: float(self._error_probability[row]))

    def _label(self, row: int) -> str:
        return answer_of_row(self.task, self._consensus.estimates[row])

    def _answers(self) -> list[str]:
        """The consensus on each row."""
        return [answer_of_row(self.task, row) for row in self._consensus.probabilities]
