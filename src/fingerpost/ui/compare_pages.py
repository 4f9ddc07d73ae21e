"""Teacher and student beside each other: on a message, on a list of them, and blind."""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import binomtest
from starlette.responses import Response
from starlette.routing import Route

from fingerpost.core.errors import FingerpostError, InputError
from fingerpost.core.text import question_id, storable
from fingerpost.core.types import Conversation, Message, Prediction, Predictor
from fingerpost.core.verdicts import QuestionVerdicts
from fingerpost.data.importer import import_messages
from fingerpost.labelling.teacher import LiveTeacher
from fingerpost.llm.requests import teacher_endpoint, teacher_of
from fingerpost.project import STUDENT, Project
from fingerpost.project.project import BASE
from fingerpost.store.project import Store
from fingerpost.ui.models import ProjectModels
from fingerpost.ui.pages import Pages, Visit
from fingerpost.ui.queue import SharedQueue

MOST_LINES, MOST_CHARACTERS = 200, 50_000
VOTES = "blind_votes.jsonl"
"""The file of the blind votes, in the project's folder."""
SHOWN_SCORES = 3
SIDES = ("A", "B")
TURNS = ("user", "assistant")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says to a message, or why it says nothing."""

    model: str
    label: str | None = None
    confidence: float | None = None
    scores: tuple[tuple[str, float], ...] = ()
    seconds: float | None = None
    cost_usd: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """A message with the answers of all models."""

    text: str
    answers: tuple[Answer, ...]

    @property
    def differs(self) -> bool:
        """Whether the models that answered say different things."""
        return len({answer.label for answer in self.answers if not answer.problem and answer.model != BASE}) > 1


@dataclass(frozen=True, slots=True)
class Ballot:
    """A blind comparison: the question, and the model and the label on each side."""

    question: str
    models: tuple[str, str]
    labels: tuple[str, str]


class ComparePages:
    """The pages for comparing models."""

    def __init__(self, pages: Pages, project: Project, store: Store, queue: SharedQueue, models: ProjectModels) -> None:
        self._pages, self._project, self._store, self._queue = pages, project, store, queue
        self._loaded = models
        self._ballots: dict[str, Ballot] = {}
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """All routes."""
        get, post = self._pages.get, self._pages.post
        return [
            get("/compare", self.show),
            post("/compare", self.compare),
            post("/compare/review", self.to_review),
            get("/compare/blind", self.blind),
            post("/compare/blind", self.vote),
            get("/compare/votes", self.votes),
        ]

    def show(self, visit: Visit) -> Response:
        """The form."""
        return self._page(visit, "", ())

    def compare(self, visit: Visit) -> Response:
        """The answers to a message, a conversation, or each line of a list."""
        text = visit.field("text").strip()
        if not text or len(text) > MOST_CHARACTERS:
            raise InputError(f"write a message of at most {MOST_CHARACTERS:,} characters")
        conversations = conversations_in(text, visit.field("lines") == "1")
        found = self._compare(conversations, visit.field("teacher") == "1")
        return self._page(visit, text, sorted(found, key=lambda one: not one.differs))

    def to_review(self, visit: Visit) -> Response:
        """Put a message into the review queue, at its head."""
        (messages,) = conversations_in(visit.field("text"), False)
        import_messages(self._store, self._project.task, [messages], "compare")
        key = question_id(messages)
        self._project.ask_first([key])
        self._queue.open(visit.visitor.name, key)
        self._pages.say(visit, "Added to the review queue")
        return self._pages.go("/review")

    def blind(self, visit: Visit) -> Response:
        """A question on which teacher and student differ, without their names; and how the votes stand."""
        ballot = self._draw()
        shown: dict[str, Any] = {}
        if ballot is not None:
            key = secrets.token_hex(8)
            with self._lock:
                self._ballots[key] = ballot
                for old in list(self._ballots)[:-1_000]:
                    del self._ballots[old]
            described = {label.name: label.description for label in self._project.task.labels}
            shown = {
                "key": key,
                "question": self._queue.question(ballot.question),
                "choices": [
                    (side, label, described.get(label, "")) for side, label in zip(SIDES, ballot.labels, strict=True)
                ],
            }
        return self._pages.render(visit, "blind", **shown, votes=self._tally())

    def votes(self, visit: Visit) -> Response:
        """How the votes stand, by model."""
        return self._pages.render(visit, "votes", votes=self._tally())

    def vote(self, visit: Visit) -> Response:
        """Store a vote, and say what it was for."""
        with self._lock:
            ballot = self._ballots.pop(visit.field("ballot"), None)
        choice = visit.field("choice")
        if ballot is None or choice not in (*SIDES, "both", "neither"):
            raise InputError("this vote was given already, or is too old; go on with the next one")
        line = {"at": round(time.time()), "by": visit.visitor.name, "choice": choice, **asdict(ballot)}
        with self._lock, (self._project.folder / VOTES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        named = {
            side: f"{label} by {model}" for side, label, model in zip(SIDES, ballot.labels, ballot.models, strict=True)
        }
        self._pages.say(visit, f"A was {named['A']}, B was {named['B']}")
        return self._pages.go("/compare/blind")

    # --- internals

    def _page(self, visit: Visit, text: str, found: Sequence[Compared]) -> Response:
        task = self._project.task
        return self._pages.render(
            visit, "compare", text=text, found=found, differing=sum(one.differs for one in found), teacher=task.teacher_model, lines=visit.field("lines") == "1",
            asked=visit.field("teacher") == "1", has_student=self._loaded.get(STUDENT) is not None,
        )  # fmt: skip

    def _compare(self, conversations: Sequence[Conversation], teacher: bool) -> list[Compared]:
        columns: list[list[Answer]] = []
        for name in (BASE, STUDENT):
            model = self._loaded.get(name)
            if model is not None:
                columns.append(_answers(name, model, conversations))
        if teacher and self._project.task.teacher is not None:
            columns.insert(len(columns) - 1 if columns else 0, self._teachers(conversations))
        return [
            Compared(messages[-1].content, tuple(column[i] for column in columns))
            for i, messages in enumerate(conversations)
        ]

    def _teachers(self, conversations: Sequence[Conversation]) -> list[Answer]:
        """The teacher's answers. They cost money, which is recorded."""
        name = teacher_of(self._project.task).model
        try:
            with teacher_endpoint(teacher_of(self._project.task), self._project.folder) as reachable:
                task = self._project.task.model_copy(update={"teacher": reachable})
                live = LiveTeacher(task, self._project.folder, self._store.ledger)
                return _answers(name, live, conversations)
        except FingerpostError as error:
            return [Answer(name, problem=str(error))] * len(conversations)

    def _draw(self) -> Ballot | None:
        """A random test question on which teacher and student differ, and which has no vote; None where there is none."""
        student = self._loaded.get(STUDENT)
        if student is None:
            return None
        voted = {vote["question"] for vote in self._votes()}
        questions = [one for one in self._store.questions("test") if one.id not in voted]
        random.shuffle(questions)
        questions = questions[:200]
        verdicts = self._store.verdicts_of([one.id for one in questions])
        task = self._project.task
        answers = student.predict([one.messages for one in questions])
        for question, answer in zip(questions, answers, strict=True):
            teacher = QuestionVerdicts(verdicts.get(question.id, ()), task.answers, task.teacher_model).teacher_label
            if teacher is not None and answer.label is not None and teacher != answer.label:
                sides = [("teacher", teacher), ("student", answer.label)]
                random.shuffle(sides)
                (one, first), (two, second) = sides
                return Ballot(question.id, (one, two), (first, second))
        return None

    def _votes(self) -> list[dict[str, Any]]:
        try:
            text = (self._project.folder / VOTES).read_text(encoding="utf-8")
        except OSError:
            return []
        votes = []
        for line in text.splitlines():
            with suppress(ValueError):  # a kill may have cut one off
                votes.append(json.loads(line))
        return votes

    def _tally(self) -> dict[str, Any]:
        """How often each model was chosen, with the sign test; and how often each side was, to show position bias."""
        votes = self._votes()
        chosen = [vote for vote in votes if vote["choice"] in SIDES]
        student = sum(vote["models"][SIDES.index(vote["choice"])] == "student" for vote in chosen)
        first = sum(vote["choice"] == "A" for vote in chosen)
        n = len(chosen)
        return {
            "n": n, "other": len(votes) - n, "student": student, "teacher": n - student, "first": first,
            "p": binomtest(student, n).pvalue if n else None, "p_side": binomtest(first, n).pvalue if n else None,
        }  # fmt: skip


def conversations_in(text: str, lines: bool) -> list[Conversation]:
    """The conversations in a text: one message; turns that begin with `user:` or `assistant:`; or a message on each line.

    Raises:
        InputError: there is no message, or there are too many.
    """
    text = storable(text)
    if lines:
        found: list[Conversation] = [(Message("user", line.strip()),) for line in text.splitlines() if line.strip()]
        if not 0 < len(found) <= MOST_LINES:
            raise InputError(f"give 1 to {MOST_LINES} lines; there are {len(found)}")
        return found
    turns: list[Message] = []
    for line in text.splitlines():
        role, colon, rest = line.partition(":")
        if colon and role.strip().lower() in TURNS:
            turns.append(Message(role.strip().lower(), rest.strip()))
        elif turns:
            turns[-1] = Message(turns[-1].role, f"{turns[-1].content}\n{line}".strip())
        else:
            turns.append(Message("user", line))
    if not turns or turns[-1].role != "user" or not turns[-1].content.strip():
        raise InputError("the last turn has to be a message of the user")
    return [tuple(turns)]


def _answers(name: str, model: Predictor, conversations: Sequence[Conversation]) -> list[Answer]:
    """A model's answers, each with the time that it took."""
    found = []
    if not isinstance(model, LiveTeacher):
        model.predict(conversations[:1])  # the first prediction of a model loads it
    for prediction, seconds in _timed(model, conversations):
        scores = sorted(prediction.scores.items(), key=lambda pair: -pair[1])[:SHOWN_SCORES]
        confidence = None if prediction.confidence != prediction.confidence else prediction.confidence
        found.append(
            Answer(name, prediction.label, confidence, tuple(scores), seconds, prediction.usage.cost_usd)
        )  # fmt: skip
    return found


def _timed(model: Predictor, conversations: Sequence[Conversation]) -> list[tuple[Prediction, float]]:
    if isinstance(model, LiveTeacher):
        return [(one, one.usage.latency_s or 0.0) for one in model.predict(conversations)]
    timed = []
    for messages in conversations:
        began = time.perf_counter()
        (one,) = model.predict([messages])
        timed.append((one, time.perf_counter() - began))
    return timed
