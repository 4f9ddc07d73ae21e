"""The state of generation: one snapshot of drafts, questions and verdicts, read once a round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from fingerpost.core.text import fingerprint, shorten
from fingerpost.core.types import Question, Verdict
from fingerpost.core.verdicts import QuestionVerdicts
from fingerpost.generation.brief import Brief, label_description
from fingerpost.generation.filters import main_language
from fingerpost.generation.plan import HardExample
from fingerpost.generation.requests import SOURCE, STEP, writers_of
from fingerpost.llm.requests import teacher_of
from fingerpost.store.project import Draft, Store
from fingerpost.task.settings import Task

MAX_SAMPLE_WORDS, MAX_SAMPLE_CHARACTERS = 40, 200  # of users' messages that a writer is shown
LANGUAGE_SAMPLE = 200  # users' messages


@dataclass(frozen=True)
class GenerationState:
    """What was planned, written, kept and labelled so far. Never changes; read a new one after the store has changed.

    Attributes:
        drafts: the drafts in the order of planning, without stale ones.
        stale: ids of unanswered drafts that were planned for another version of the task or for another writer.
        handed_in: ids of drafts in batches that have not been fetched.
        questions: all questions of the project, in the order they came.
        verdicts: the verdicts that count, by question id.
    """

    task: Task
    drafts: tuple[Draft, ...]
    stale: frozenset[int]
    handed_in: frozenset[int]
    questions: tuple[Question, ...]
    verdicts: Mapping[str, QuestionVerdicts]

    @classmethod
    def read(cls, task: Task, store: Store) -> GenerationState:
        """Take a snapshot of the store.

        Raises:
            TaskError: the task has no teacher, or recorded answers stand in for it.
        """
        teacher = teacher_of(task).model
        verdicts = {key: QuestionVerdicts(given, task.answers, teacher) for key, given in store.verdicts().items()}
        empty = cls(task, (), frozenset(), frozenset(), tuple(store.questions()), verdicts)
        return empty.with_drafts_of(store)

    def with_drafts_of(self, store: Store) -> GenerationState:
        """The same snapshot with the drafts that the store has now: new drafts get their ids there."""
        mark, writers = task_fingerprint(self.task), {writer.model for writer in writers_of(self.task)}
        handed_in = frozenset(key[0] for key in store.batch_keys(STEP))
        drafts = store.drafts()
        stale = frozenset(
            draft.id
            for draft in drafts
            if not draft.answered and draft.id not in handed_in and (draft.task != mark or draft.model not in writers)
        )
        current = tuple(draft for draft in drafts if draft.id not in stale)
        return replace(self, drafts=current, stale=stale, handed_in=handed_in)

    @cached_property
    def briefs(self) -> Mapping[int, Brief]:
        """The brief of each draft, by the draft's id."""
        return {draft.id: Brief.from_json(draft.brief) for draft in self.drafts}

    def open_drafts(self, writer: str | None = None) -> list[Draft]:
        """Drafts that this writer, or any, has not answered and that are in no batch."""
        return [
            draft
            for draft in self.drafts
            if writer in (None, draft.model) and not draft.answered and draft.id not in self.handed_in
        ]

    @cached_property
    def intended(self) -> Mapping[str, Verdict]:
        """The writer's verdict on each synthetic question, by question id: the label that it was written for."""
        return {
            key: verdict for key, found in self.verdicts.items() for verdict in found.valid if verdict.kind == "writer"
        }

    @cached_property
    def teacher_labels(self) -> Mapping[str, str]:
        """The label that the teacher gives, by question id. The teacher does not know the intended label."""
        labels = ((key, found.teacher_label) for key, found in self.verdicts.items())
        return {key: label for key, label in labels if label is not None}

    @cached_property
    def trusted(self) -> frozenset[str]:
        """Ids of synthetic questions to train on: the teacher confirms the intended label, or a human has decided."""
        return frozenset(key for key in self.intended if self.verdicts[key].label())

    def tally(self, hard_examples: Sequence[HardExample] = ()) -> tuple[int, int]:
        """How many questions were requested and how many of them are trusted.

        With `hard_examples`, only questions written after one of these are counted.
        """
        texts = {example.text for example in hard_examples}
        requested = {
            (draft, number)
            for draft, brief in self.briefs.items()
            for number, item in enumerate(brief.items)
            if not hard_examples or (item.kind == "error" and item.about in texts)
        }
        trusted = (self.intended[key] for key in self.trusted)
        return len(requested), sum((verdict.draft, verdict.item) in requested for verdict in trusted)

    @cached_property
    def user_questions(self) -> Sequence[Question]:
        """Questions that were not generated, of the splits train and dev."""
        return [
            question for question in self.questions if question.source != SOURCE and question.split in ("train", "dev")
        ]

    @cached_property
    def user_texts(self) -> Sequence[str]:
        """Users' messages that a writer may be shown."""
        return user_texts(self.questions)

    @cached_property
    def language(self) -> str:
        """The expected language, as `expected_language` finds it."""
        return expected_language(self.task, self.questions)


def task_fingerprint(task: Task) -> str:
    """Changes when the labels, their descriptions or the description of the assistant change."""
    labels = (f"{label.name}: {label_description(label)}" for label in task.labels)
    return fingerprint([task.name, task.generate.about, *labels])


def user_texts(questions: Iterable[Question]) -> list[str]:
    """Messages of users that a writer may be shown: of the split train, neither one word nor very long."""
    texts = (
        question.messages[-1].content
        for question in questions
        if question.split == "train" and question.source != SOURCE
    )
    return [shorten(text, MAX_SAMPLE_CHARACTERS) for text in texts if 1 < len(text.split()) <= MAX_SAMPLE_WORDS]


def expected_language(task: Task, questions: Iterable[Question]) -> str:
    """ISO 639-1 code of the language that generated texts should be in; empty for any.

    The task's own language, else that of its users, else that of the label descriptions.
    """
    if task.generate.languages:
        return task.generate.languages[0] if len(task.generate.languages) == 1 else ""
    return main_language(user_texts(questions)[:LANGUAGE_SAMPLE] or [label_description(label) for label in task.labels])
