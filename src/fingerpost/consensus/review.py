"""The review queue: people decide the few questions that teach the student most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fingerpost.consensus.evidence import Evidence, agree, gather, ground
from fingerpost.consensus.model import Array, Consensus, Rows
from fingerpost.consensus.selection import Pick, choose
from fingerpost.consensus.session import Card, Desk
from fingerpost.core.errors import InputError
from fingerpost.core.text import hash_fraction
from fingerpost.core.types import Question
from fingerpost.core.verdicts import BULK, QuestionVerdicts, active
from fingerpost.store.project import Store
from fingerpost.task.settings import Task

ROUND = 25  # answers after which the consensus learns and the queue is drawn anew

NEIGHBOURS = 3

LIKELY = 5

ENOUGH_RIGHT = 0.9  # share of a round that consensus had right already ...

ENOUGH_CHANGED = 0.002  # ... and share of all labels that it changed, from where on more hardly pays

SMALLEST_GROUP = 5


@dataclass(frozen=True, slots=True)
class Group:
    """Unreviewed questions that the teacher labels `said` and the consensus labels `likely`, the surest first."""

    said: str
    likely: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """What a round of answers brought: of `answers`, consensus had `foreseen`; it `changed` so many of `of` labels."""

    answers: int
    foreseen: int
    changed: int
    of: int

    @property
    def enough(self) -> bool:
        """Whether going on hardly pays: the doubtful questions bring no news."""
        return (
            self.answers >= ROUND
            and self.foreseen >= ENOUGH_RIGHT * self.answers
            and self.changed <= ENOUGH_CHANGED * self.of
        )


class Review(Desk):
    """The queue over the training questions, in rounds: 25 answers in, the consensus learns, the queue is drawn anew.

    Args:
        embed: vectors of questions, (questions, width).

    Raises:
        InputError: there is nothing to review.
    """

    def __init__(self, task: Task, store: Store, by: str, embed: Callable[[Sequence[Question]], Array]) -> None:
        super().__init__(task, store, by)
        self.questions = store.questions("train")
        if not self.questions:
            raise InputError("there are no training questions; run 'fingerpost import FILE'")
        self._row = {each.id: row for row, each in enumerate(self.questions)}
        self._vectors = embed(self.questions)
        self._verdicts = store.verdicts()
        self._skipped: set[int] = set()
        self._round: list[tuple[str, bool]] = []
        evidence = self._gather()
        self._ground = ground(evidence)
        self._learn(evidence)
        self.rounds: list[Round] = []

    # --- cards

    def next(self) -> Card | None:
        """The next card, or None where everything is reviewed or skipped. After 25 answers this is a new round."""
        if len(self._round) >= ROUND:
            self._new_round()
        if not self._queue:
            self._draw()
        return self._card(self._queue.pop(0)) if self._queue else None

    def answer(self, question: Question, label: str | None, note: str | None = None) -> str:
        mark = super().answer(question, label, note)
        self._round.append((mark, label == self._label(self._row[question.id])))
        return mark

    def undo(self) -> tuple[str, ...]:
        ids = super().undo()
        marks = {mark for mark, _ in self.log.strokes}
        if len(ids) > 1:
            self.refresh()
        self._round = [each for each in self._round if each[0] in marks]
        return ids

    def skip(self, question: Question) -> None:
        """Do not ask this again in this sitting."""
        self._skipped.add(self._row[question.id])

    def put_back(self, question_id: str) -> None:
        """Show this question next."""
        row = self._row[question_id]
        self._queue.insert(0, Pick(row, 1, float(self._doubt[row])))

    @property
    def reviewed(self) -> int:
        """Training questions that people have decided."""
        return len(self._evidence.reviewed) + len(self._evidence.outside) + len(self._round)

    @property
    def round_left(self) -> int:
        """Answers until the consensus learns again."""
        return max(0, ROUND - len(self._round))

    def expected_changes(self) -> int:
        """About how many labels the answers to the cards that are queued should change, themselves included."""
        return round(sum((pick.doubt * pick.speaks_for for pick in self._queue), 0.0))

    # --- groups

    def groups(self) -> list[Group]:
        """Confusions that the consensus sees, the largest first: to be corrected at one stroke."""
        decided = set(self._evidence.reviewed.tolist()) | set(self._evidence.outside.tolist())
        votes = sum(self._evidence.teachers[1:], start=self._evidence.teachers[0])
        found: dict[tuple[int, int], list[int]] = {}
        best = self._consensus.beliefs.argmax(1)
        for row in np.flatnonzero((votes.sum(1) > 0) & (votes.argmax(1) != best)).tolist():
            if row not in decided:
                found.setdefault((int(votes[row].argmax()), int(best[row])), []).append(row)
        names = self.task.names
        groups = [
            Group(names[said], names[likely], tuple(self.questions[row] for row in self._surest_first(rows)))
            for (said, likely), rows in found.items()
            if len(rows) >= SMALLEST_GROUP
        ]
        return sorted(groups, key=lambda group: -len(group.questions))

    def correct(self, group: Group, label: str | None = None, leave_out: Sequence[int] = ()) -> str:
        """Give all of a group the label (its likely one), but the members at these positions; returns the mark."""
        left_out = set(leave_out)
        chosen = [each for i, each in enumerate(group.questions) if i not in left_out]
        mark = self._record(chosen, label or group.likely, BULK, f"group {group.said} -> {group.likely}")
        self.refresh()
        return mark

    def refresh(self) -> None:
        """Learn from what was decided since, and draw the queue anew."""
        self._verdicts = self._store.verdicts()
        self._learn(self._gather())

    # --- inside

    def _gather(self) -> Evidence:
        names, teacher = self.task.names, self.task.teacher_model
        labelled = [
            (question, QuestionVerdicts(self._verdicts.get(question.id, ()), names, teacher))
            for question in self.questions
        ]
        return gather(names, labelled, self._vectors)

    def _learn(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._consensus: Consensus = agree(evidence, self._ground, self.task.student.seed)
        self._doubt = self._consensus.doubt
        self._queue: list[Pick] = []
        self._round = []

    def _new_round(self) -> None:
        before = self._consensus.probabilities.argmax(1)
        answers, foreseen = len(self._round), sum(right for _, right in self._round)
        self.refresh()
        changed = int((self._consensus.probabilities.argmax(1) != before).sum())
        self.rounds.append(Round(answers, foreseen, changed, len(self.questions)))

    def _draw(self) -> None:
        decided = np.concatenate([self._evidence.reviewed, self._evidence.outside])
        taken = [self._row[key] for _, ids in self.log.strokes for key in ids]
        closed = np.union1d(decided, np.array([*taken, *self._skipped], dtype=np.int64))
        open_rows: Rows = np.setdiff1d(np.arange(len(self.questions)), closed)
        seed = int(1e6 * hash_fraction(f"{self.by}/{len(decided)}/{len(self._skipped)}"))
        self._queue = choose(self._ground.space, self._doubt, open_rows, closed.astype(np.int64), ROUND, seed=seed)

    def _card(self, pick: Pick) -> Card:
        probabilities = self._consensus.beliefs[pick.row]
        order = np.argsort(-probabilities)[:LIKELY]
        names = self.task.names
        opinions = active(self._verdicts.get(self.questions[pick.row].id, []))
        said = Counter(each.label for each in opinions if each.kind == "teacher")
        near = self._nearest(pick.row)
        return Card(
            self.questions[pick.row],
            self._reason(pick, said, near),
            tuple((names[i], float(probabilities[i])) for i in order),
            said.most_common(1)[0][0] if said else None,
            tuple((self.questions[row], label) for row, label in near),
        )

    def _reason(self, pick: Pick, said: Counter[str | None], near: list[tuple[int, str]]) -> str:
        student = self.task.names[int(self._ground.student[pick.row].argmax())]
        reasons = [f"speaks for about {pick.speaks_for:,} questions" if pick.speaks_for > 1 else "stands alone"]
        teacher = said.most_common(1)[0][0] if said else None
        if len(said) > 1:
            reasons.append("the teacher's answers differ: " + ", ".join(str(label) for label in said))
        elif teacher is None:
            reasons.append("the teacher gave no label")
        elif self._label(pick.row) != teacher:
            reasons.append(f"the teacher says {teacher}, the reviews so far say {self._label(pick.row)}")
        elif student != teacher:
            reasons.append(f"the teacher says {teacher}, a student of its other answers {student}")
        elif near and near[0][1] != teacher:
            reasons.append(f"the teacher says {teacher}, the nearest reviewed question is {near[0][1]}")
        return "; ".join(reasons)

    def _nearest(self, row: int) -> list[tuple[int, str]]:
        reviewed = self._evidence.reviewed
        if not len(reviewed):
            return []
        close = self._ground.space[reviewed] @ self._ground.space[row]
        chosen = np.argsort(-close)[:NEIGHBOURS]
        answers = self._evidence.answers[chosen].argmax(1)
        return [(int(reviewed[i]), self.task.names[k]) for i, k in zip(chosen, answers, strict=True)]

    def _surest_first(self, rows: list[int]) -> list[int]:
        return sorted(rows, key=lambda row: float(self._doubt[row]))

    def _label(self, row: int) -> str:
        return self.task.names[int(self._consensus.beliefs[row].argmax())]
