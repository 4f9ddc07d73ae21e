"""The review queue of a project for several people: verdicts are stored at once, and the consensus is recomputed beside."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from fingerpost.consensus.history import Decision, decisions, take_back
from fingerpost.consensus.review import QuestionGroup, ReviewQueue
from fingerpost.consensus.session import Card, ReviewSession, UniformSample
from fingerpost.core.errors import FingerpostError, InputError
from fingerpost.core.types import Progress, Question, Verdict
from fingerpost.core.verdicts import BULK, WITHDRAWN, QuestionVerdicts, active
from fingerpost.evaluation.results import Report
from fingerpost.project import Project
from fingerpost.store.project import Store
from fingerpost.task.settings import Task
from fingerpost.ui.leases import LEASE_S, SECOND, LeasedCards

logger = logging.getLogger(__name__)
PREPARED = 100
"""Cards that are computed at once."""
ROUND = 25
"""Answers after which consensus and queue are computed anew."""
STOP_S = 20.0
SAMPLE = 100
"""Questions of the test sample."""


@dataclass(frozen=True, slots=True)
class Action:
    """What a reviewer did: `answer`, `skip` or `group`, to which questions, and the mark of the verdicts.

    Attributes:
        sample: to a question of the test sample.
    """

    kind: str
    questions: tuple[str, ...]
    mark: str | None = None
    sample: bool = False


@dataclass(frozen=True, slots=True)
class Gauge:
    """What reviews bring.

    Attributes:
        gained: what reviews have gained so far, as the last evaluation measured it; empty where it did not.
        reviewed: training questions that people have decided.
        total: training questions.
        next_changes: labels that the next 25 answers will change, by estimate.
    """

    reviewed: int
    next_changes: int
    total: int = 0
    gained: str = ""


class SharedQueue:
    """The questions to review, for several people at once. All methods may be called from several threads.

    Args:
        store: stays open for as long as the queue is used.
        double: the share of questions that two people answer.
        lease_s: see `LeasedCards`.
    """

    def __init__(self, project: Project, store: Store, double: float = 0.0, lease_s: float = LEASE_S) -> None:
        self.project, self.task = project, project.task
        self.cards = LeasedCards(double, lease_s)
        self.sample = LeasedCards(0.0, lease_s)
        self.message, self.problem = "reading the questions", ""
        self.is_computing = False
        self._store = store
        self._actions: dict[str, list[Action]] = defaultdict(list)
        self._groups: list[QuestionGroup] = []
        self._gauge: Gauge | None = None
        self._since = 0
        self._computed_for = (-1, -1)
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="review-queue", daemon=True)

    @property
    def is_ready(self) -> bool:
        """Whether the queue has been computed once."""
        return self._gauge is not None

    @property
    def gauge(self) -> Gauge:
        """What reviews bring. The answers since the last computation are counted."""
        found = self._gauge or Gauge(0, 0)
        return Gauge(found.reviewed + self._since, found.next_changes, found.total, found.gained)

    def start(self) -> None:
        """Compute the queue in a thread, and again whenever it is due."""
        with self._lock:
            if self._thread.ident is None:
                self._wake.set()
                self._thread.start()

    def stop(self) -> None:
        """End the thread when its present computation is done; wait for that, but not for long."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def refresh(self) -> None:
        """Compute the queue anew, beside."""
        self._wake.set()

    # --- what a reviewer does

    def next(self, reviewer: str, sample: bool = False) -> Card | None:
        """The card in front of a reviewer; None where there is none left.

        Args:
            sample: of the test sample.
        """
        cards = self.sample if sample else self.cards
        while (card := cards.next(reviewer)) is not None:
            key = card.question.id
            if cards.is_opened(reviewer, key):
                return card
            people = _people(self.task, self._store, [key]).get(key, set())  # also of a terminal or another server
            if not cards.decided(key, people) and reviewer not in people:
                return card
        if not sample and not self.is_computing and self._state() != self._computed_for:
            self._wake.set()
        return None

    def retry(self) -> None:
        """Compute the queue again if that did not work."""
        if self.problem and not self.is_computing:
            self._wake.set()

    def _state(self) -> tuple[int, int]:
        """Changes when another computation could find more questions."""
        return self._since, self.cards.most_skipped

    def answer(
        self, reviewer: str, question_id: str, label: str | None, note: str | None = None, sample: bool = False
    ) -> None:
        """Store a verdict; None means that no label fits. It is taken also if the lease has ended.

        Raises:
            InputError: there is no such question or label.
        """
        question = self.question(question_id)
        mark = ReviewSession(self.task, self._store, reviewer).answer(question, label, note)
        (self.sample if sample else self.cards).answered(reviewer, question_id)
        with self._lock:
            self._actions[reviewer].append(Action("answer", (question_id,), mark, sample))
            self._since += not sample
            due = self._since % ROUND == 0 and not sample
        if due:
            self._wake.set()

    def skip(self, reviewer: str, question_id: str, sample: bool = False) -> None:
        """Do not show a question to this reviewer again."""
        (self.sample if sample else self.cards).skip(reviewer, question_id)
        with self._lock:
            self._actions[reviewer].append(Action("skip", (question_id,), None, sample))

    def undo(self, reviewer: str) -> Action | None:
        """Take back the last thing that a reviewer did, also before the server was started; None where there is nothing.

        Its question is in front of the reviewer again.
        """
        with self._lock:
            done = self._actions[reviewer]
            action = done.pop() if done else None
        if action is None:
            action = self._earlier(reviewer)
        if action is None:
            return None
        if action.mark is not None:
            take_back(self._store, action.mark)
        cards = self.sample if action.sample else self.cards
        for key in action.questions:
            cards.withdrawn(reviewer, key)
        if action.kind != "skip" and not action.sample:
            with self._lock:
                self._since -= len(action.questions)
        if action.kind == "group":
            self.refresh()
        else:
            self.open(reviewer, action.questions[0], action.sample)
        return action

    def open(self, reviewer: str, question_id: str, sample: bool = False) -> None:
        """Put a question in front of a reviewer.

        Raises:
            InputError: there is no such question.
        """
        cards = self.sample if sample else self.cards
        cards.show(reviewer, cards.card(question_id) or Card(self.question(question_id)))

    def question(self, question_id: str) -> Question:
        """The question with this id.

        Raises:
            InputError: there is none.
        """
        found = self._store.questions_by_id([question_id])
        if not found:
            raise InputError("there is no such question")
        return found[0]

    def verdicts(self, question_id: str) -> QuestionVerdicts:
        """The verdicts on a question that count."""
        found = self._store.verdicts_of([question_id]).get(question_id, [])
        return QuestionVerdicts(found, self.task.answers, self.task.teacher_model)

    def decisions(self) -> list[Decision]:
        """All decisions of all reviewers, the newest first."""
        return decisions(self._store)

    # --- groups

    def groups(self) -> list[QuestionGroup]:
        """The groups to correct at a stroke, the largest first, without the questions that people have decided since."""
        decided = self._decided({question.id for group in self._groups for question in group.questions})
        found = []
        for group in self._groups:
            rest = tuple(question for question in group.questions if question.id not in decided)
            if rest:
                found.append(QuestionGroup(group.teacher_label, group.consensus_label, rest))
        return found

    def correct_group(self, reviewer: str, questions: Iterable[str], label: str, note: str) -> int:
        """Give questions one label, but none that a person has decided; returns how many.

        Raises:
            InputError: the task has no such label.
        """
        if label not in self.task.answers:
            raise InputError(f"the task has no label '{label}'")
        wanted = list(dict.fromkeys(questions))
        decided = self._decided(wanted)
        chosen = [question for question in self._store.questions_by_id(wanted) if question.id not in decided]
        if not chosen:
            return 0
        session = _GroupSession(self.task, self._store, reviewer)
        mark = session.correct(chosen, label, note)
        self._withdraw_from_others(reviewer, mark, chosen)
        for question in chosen:
            self.cards.answered(reviewer, question.id)
        with self._lock:
            self._actions[reviewer].append(Action("group", tuple(question.id for question in chosen), mark))
            self._since += len(chosen)
        self._wake.set()
        return len(chosen)

    def _withdraw_from_others(self, reviewer: str, mark: str, chosen: Sequence[Question]) -> None:
        """Take back the correction of questions that somebody has decided at the same moment."""
        found = self._store.verdicts_of([question.id for question in chosen])
        late = [
            key for key, verdicts in found.items()
            if any(one.kind == "human" and one.by != reviewer for one in active(verdicts))
        ]  # fmt: skip
        self._store.add_verdicts(Verdict(key, "human", reviewer, None, origin=WITHDRAWN, mark=mark) for key in late)

    def _decided(self, ids: Iterable[str]) -> set[str]:
        """The questions that a person has decided."""
        found = self._store.verdicts_of(ids)
        return {key for key, verdicts in found.items() if any(one.kind == "human" for one in active(verdicts))}

    def _earlier(self, reviewer: str) -> Action | None:
        """The last decision of a reviewer in the database that was not taken back."""
        by_mark: dict[str, list[Verdict]] = {}
        for verdict in self._store.marked():
            if verdict.by == reviewer:
                by_mark.setdefault(str(verdict.mark), []).append(verdict)
        for mark, verdicts in reversed(by_mark.items()):
            if all(verdict.origin != WITHDRAWN for verdict in verdicts):
                kind = "group" if verdicts[0].origin == BULK else "answer"
                ids = tuple(verdict.question_id for verdict in verdicts)
                return Action(kind, ids, mark, self.question(ids[0]).split == "test")
        return None

    # --- in the thread

    def _run(self) -> None:
        queue: ReviewQueue | None = None
        while not self._stopped.is_set():
            self._wake.wait()
            self._wake.clear()
            if self._stopped.is_set():
                return
            self.is_computing = True
            try:
                queue = self._compute(queue)
                self.problem = ""
            except FingerpostError as error:
                self.problem = str(error)
            except Exception:
                logger.exception("the review queue could not be computed")
                self.problem = "the review queue could not be computed; the server's log says why"
            self.is_computing = False

    def _compute(self, queue: ReviewQueue | None) -> ReviewQueue:
        before, state = self._since, self._state()
        self.cards.begin()
        self.project.on_progress = self._note_progress
        counts = self._store.counts()
        train = sum(count for (_, split), count in counts.items() if split == "train")
        if queue is None or len(queue.questions) != train:
            queue = self.project.review(self._store, "")
            self._prepare_sample()
        else:
            queue.refresh()
        people = _people(self.task, self._store, [question.id for question in queue.questions])
        by_id = {question.id: question for question in queue.questions}
        halves = [
            Card(by_id[key], SECOND) for key, said in people.items() if len(said) == 1 and self.cards.wants_two(key)
        ]
        self.cards.replace([*halves, *queue.upcoming(PREPARED + state[1])], people)
        self._groups = queue.groups()
        with self._lock:
            self._gauge = Gauge(queue.reviewed, queue.expected_changes(), len(queue.questions), self._gained())
            self._since -= before
            self._computed_for = (self._since, state[1])
        return queue

    def _gained(self) -> str:
        """How good the labels are without and with reviews, by the project's report."""
        with suppress(OSError, ValueError):
            found = Report.model_validate_json((self.project.reports / "report.json").read_bytes()).label_quality
            if found is not None:
                teacher, consensus = found.teacher.value, found.consensus.value
                return (
                    f"Estimated accuracy of the training labels: teacher {teacher:.1%}, with reviews {consensus:.1%}."
                )
        return ""

    def _prepare_sample(self) -> None:
        with suppress(InputError):  # a project without test questions
            sample = UniformSample(self.task, self._store, "", SAMPLE)
            self.sample.begin()
            people = _people(self.task, self._store, [question.id for question in sample.questions])
            self.sample.replace([Card(question) for question in sample.questions], people)

    def _note_progress(self, progress: Progress) -> None:
        if progress.total:
            self.message = f"embedding the questions, {progress.done:,} of {progress.total:,}"


class _GroupSession(ReviewSession):
    """Stores the correction of a group."""

    def correct(self, questions: Sequence[Question], label: str, note: str) -> str:
        """The mark of the decision."""
        return self._record(questions, label, BULK, note)


def _people(task: Task, store: Store, ids: Sequence[str]) -> dict[str, set[str]]:
    """Who has decided each of these questions, with a label that the task still has or with "no label fits"."""
    found: dict[str, set[str]] = {}
    for key, verdicts in store.verdicts_of(ids).items():
        if people := {one.by for one in QuestionVerdicts(verdicts, task.answers).human}:
            found[key] = people
    return found
