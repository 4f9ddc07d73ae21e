"""Review: people decide the few questions that teach the student most. No screen here.

Every answer is a verdict of its own and stored at once, so stopping at any moment loses nothing.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fingerpost.consensus import Array, Consensus, Rows
from fingerpost.errors import InputError
from fingerpost.evidence import Evidence, agree, gather, ground
from fingerpost.opinions import BULK, REVIEW, WITHDRAWN, current
from fingerpost.queue import Pick, choose
from fingerpost.store import Store
from fingerpost.text import share
from fingerpost.types import Question, Task, Verdict

ROUND = 25  # answers after which the consensus learns and the queue is drawn anew
NEIGHBOURS = 3
LIKELY = 5
ENOUGH_RIGHT = 0.9  # share of a round that consensus had right already ...
ENOUGH_CHANGED = 0.002  # ... and share of all labels that it changed, from where on more hardly pays
SMALLEST_GROUP = 5


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
            Verdict(each.id, "person", self.by, label, origin=origin, mark=mark, note=note) for each in questions
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
        questions = sorted(store.questions("test"), key=lambda each: share(f"sample/{each.id}"))
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
        return gather(self.task.names, self.questions, self._verdicts, self._vectors)

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
        seed = int(1e6 * share(f"{self.by}/{len(decided)}/{len(self._skipped)}"))
        self._queue = choose(self._ground.space, self._doubt, open_rows, closed.astype(np.int64), ROUND, seed=seed)

    def _card(self, pick: Pick) -> Card:
        probabilities = self._consensus.beliefs[pick.row]
        order = np.argsort(-probabilities)[:LIKELY]
        names = self.task.names
        opinions = current(self._verdicts.get(self.questions[pick.row].id, []))
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
        Verdict(each.question_id, "person", each.by, None, origin=WITHDRAWN, mark=mark) for each in open_
    )


def _decided(verdicts: Sequence[Verdict]) -> bool:
    return any(each.kind == "person" for each in current(verdicts))
