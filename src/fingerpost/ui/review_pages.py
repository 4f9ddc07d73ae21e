"""The review page: one question at a time, by keys, by thumb, or without scripts; groups; and the reviewer's own history."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response
from starlette.routing import Route

from fingerpost.consensus.session import Card
from fingerpost.core.errors import InputError
from fingerpost.core.label_sets import format_labels, join_labels, split_labels
from fingerpost.core.types import Label
from fingerpost.project import STUDENT
from fingerpost.task.replies import resolve_label
from fingerpost.ui.models import ProjectModels
from fingerpost.ui.pages import Pages, Visit
from fingerpost.ui.queue import SharedQueue

SHOWN, ALL = 9, 12
"""Labels that are shown at once without hints, and up to how many all are."""
FOLDED = 1_200
"""Characters of a text that are shown before the rest is folded."""
FOUND = 20
"""Labels that a search shows."""
TURNS = 6
"""Turns before the last one that are shown before the rest is folded."""
HISTORY = 100
GROUP_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Choice:
    """A label on a button."""

    name: str
    description: str
    probability: float | None = None


class ReviewPages:
    """The pages for reviewing."""

    def __init__(self, pages: Pages, queue: SharedQueue, models: ProjectModels) -> None:
        self._pages, self._queue, self._task, self._loaded = pages, queue, queue.task, models
        self._described = {label.name: label.description for label in self._task.labels}

    def routes(self) -> list[Route]:
        """All routes."""
        get, post = self._pages.get, self._pages.post
        return [
            get("/review", self.show),
            post("/review/answer", self.answer),
            post("/review/skip", self.skip),
            post("/review/undo", self.undo),
            post("/review/open", self.open),
            get("/review/labels", self.labels),
            get("/review/models", self.models),
            get("/review/history", self.history),
            get("/review/groups", self.groups),
            post("/review/groups", self.correct),
        ]

    def show(self, visit: Visit) -> Response:
        """The question in front of the reviewer."""
        sample = visit.query.get("sample") == "test"
        self._queue.start()
        if not self._queue.is_ready:
            self._queue.retry()
            return self._pages.render(visit, "review_wait", progress=self._queue.message, problem=self._queue.problem)
        card = self._queue.next(visit.visitor.name, sample)
        if card is None:
            return self._pages.render(visit, "review_done", sample=sample, gauge=self._queue.gauge)
        searched = visit.query.get("q", "")
        return self._pages.render(
            visit, "review", card=card, sample=sample, gauge=self._queue.gauge, choices=self._choices(card),
            chosen=self._chosen(card), multi=self._task.multi, turns=card.question.messages[:-1][-TURNS:],
            earlier=card.question.messages[:-1][:-TURNS], text=card.question.messages[-1].content, fold_at=FOLDED,
            found=self._search(searched), searched=searched, total=len(self._task.labels), left=self._queue.sample.left, answers=self._answers(card),
            names=self._task.names if len(self._task.names) <= 200 else [],
        )  # fmt: skip

    def answer(self, visit: Visit) -> Response:
        """Store a verdict and go on to the next question."""
        sample = visit.field("sample") == "test"
        label, note = self._verdict(visit)
        self._queue.answer(visit.visitor.name, visit.field("question"), label, note or None, sample)
        shown = "no label fits" if label is None else format_labels(label) if self._task.multi else label
        self._pages.say(visit, f"Saved: {shown}")
        return self._next(sample)

    def skip(self, visit: Visit) -> Response:
        """Go on without an answer."""
        sample = visit.field("sample") == "test"
        self._queue.skip(visit.visitor.name, visit.field("question"), sample)
        self._pages.say(visit, "Skipped")
        return self._next(sample)

    def undo(self, visit: Visit) -> Response:
        """Take back the last thing that was done."""
        sample = visit.field("sample") == "test"
        done = self._queue.undo(visit.visitor.name)
        if done is None:
            self._pages.say(visit, "There is nothing to undo")
        else:
            count = len(done.questions)
            self._pages.say(visit, f"{count:,} answers undone" if count > 1 else "Undone: here is the question again")
            sample = done.sample
        return self._next(sample)

    def open(self, visit: Visit) -> Response:
        """Put a question in front of the reviewer again."""
        self._queue.open(visit.visitor.name, visit.field("question"))
        return self._next(False)

    def labels(self, visit: Visit) -> Response:
        """The labels that a search finds, as buttons."""
        return self._pages.render(
            visit,
            "review_labels",
            part=True,
            multi=self._task.multi,
            searched=visit.query.get("q", ""),
            found=self._search(visit.query.get("q", "")),
        )

    def models(self, visit: Visit) -> Response:
        """What the models say about a question of the test sample."""
        question = self._queue.question(visit.query.get("question", ""))
        verdicts, student = self._queue.verdicts(question.id), self._loaded.get(STUDENT)
        said = student.predict([question.messages])[0].label if student is not None else None
        return self._pages.render(
            visit, "review_models", teacher=verdicts.teacher_label, student=said,
            sample=visit.query.get("sample", ""),
        )  # fmt: skip

    def history(self, visit: Visit) -> Response:
        """What the reviewer has decided, the latest first."""
        own = [one for one in self._queue.decisions() if one.by == visit.visitor.name]
        return self._pages.render(visit, "review_history", decisions=own[:HISTORY], total=len(own))

    def groups(self, visit: Visit) -> Response:
        """Groups of questions with the same confusion."""
        groups = self._queue.groups()
        return self._pages.render(visit, "review_groups", groups=groups[:20], total=len(groups), shown=GROUP_SHOWN)

    def correct(self, visit: Visit) -> Response:
        """Correct the chosen questions of a group."""
        label = visit.field("label")
        if not visit.fields("question"):
            raise InputError("tick at least one question")
        count = self._queue.correct_group(visit.visitor.name, visit.fields("question"), label, visit.field("note"))
        self._pages.say(visit, f"{count:,} questions are now {label}; Undo on the review page takes that back")
        return self._pages.go("/review/groups")

    # --- internals

    def _next(self, sample: bool) -> Response:
        return self._pages.go("/review", sample="test") if sample else self._pages.go("/review")

    def _verdict(self, visit: Visit) -> tuple[str | None, str]:
        """The label and the note of an answer.

        Raises:
            InputError: it names no label of the task.
        """
        note = visit.field("note").strip()
        if visit.field("none"):
            return None, note
        if self._task.multi:
            return join_labels(visit.fields("labels")), note
        if visit.field("two"):
            both = [self._known(visit.field("first")), self._known(visit.field("second"))]
            return both[0], f"two labels: {' and '.join(both)}" + (f"; {note}" if note else "")
        return self._known(visit.field("label")), note

    def _known(self, given: str) -> str:
        found = resolve_label(self._task, given)
        if found is None:
            raise InputError(f"'{given}' is none of the labels; go back and choose one")
        return found

    def _choices(self, card: Card) -> list[Choice]:
        """The likely labels first; without hints, the first ones of the task."""
        likely = [Choice(name, self._described[name], share) for name, share in card.suggestions]
        return likely or [
            Choice(label.name, label.description)
            for label in self._task.labels[: SHOWN if len(self._task.labels) > ALL else ALL]
        ]

    def _chosen(self, card: Card) -> list[str]:
        """The labels that are ticked at first, where a question may have several."""
        return [name for name, share in card.suggestions if share >= 0.5] if self._task.multi else []

    def _answers(self, card: Card) -> list[tuple[str, str]]:
        """What the models say, to show on request."""
        found = [("teacher", card.teacher_label), ("student", card.student_label)]
        return [(who, " + ".join(split_labels(said)) if self._task.multi else said) for who, said in found if said]

    def _search(self, searched: str) -> Sequence[Choice]:
        """The labels that have all words of a search in their name or description; names first."""
        words = re.findall(r"\w+", searched.lower())
        if not words:
            return []

        def rank(label: Label) -> int:
            name = label.name.lower()
            if all(word in name for word in words):
                return 0 if name.startswith(words[0]) else 1
            return 2 if all(word in f"{name} {label.description.lower()}" for word in words) else 3

        ranked = sorted(((rank(label), i, label) for i, label in enumerate(self._task.labels)), key=lambda one: one[:2])
        return [Choice(label.name, label.description) for order, _, label in ranked if order < 3][:FOUND]
