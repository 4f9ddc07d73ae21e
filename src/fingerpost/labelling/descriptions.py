"""Better descriptions for labels that the teacher misreads, written by the teacher from reviewed questions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fingerpost.core.text import shorten
from fingerpost.core.types import Label, Message
from fingerpost.llm import prices
from fingerpost.llm.completion import Chat, Reply, Schema, request_bytes
from fingerpost.llm.requests import Key, teacher_endpoint, teacher_of
from fingerpost.llm.runner import run_requests
from fingerpost.store.project import Store
from fingerpost.task.prompt import chat
from fingerpost.task.settings import Task, TeacherSettings

STEP = "define"

OFTEN = 3  # a confusion seen so often is a misreading, not a slip

EXAMPLES = 8

REPLY_TOKENS = 200


@dataclass(frozen=True, slots=True)
class Misread:
    """A label that the teacher misreads: texts confirmed to be of it, and (text, other label) of both mistakes.

    `missed` are of this label and the teacher said the other; `mistaken` the teacher gave this label, they are of the
    other.
    """

    label: Label
    confirmed: tuple[str, ...]
    missed: tuple[tuple[str, str], ...]
    mistaken: tuple[tuple[str, str], ...]

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the teacher is asked."""
        return describe(self.label, self.confirmed[:EXAMPLES], self.missed[:EXAMPLES], self.mistaken[:EXAMPLES])


@dataclass(frozen=True, slots=True)
class Proposal:
    """A description to replace a label's own; None where the teacher's reply had none."""

    label: Label
    description: str | None


def misread(task: Task, store: Store) -> list[Misread]:
    """The labels that the teacher confused with one other at least OFTEN times, by people's verdicts; worst first.

    Test questions are left out: a description that has seen them could not be measured on them.
    """
    confirmed: dict[str, list[str]] = defaultdict(list)
    confused: dict[tuple[str, str], list[str]] = defaultdict(list)
    for question, verdicts in store.labelled(task.names, task.teacher_model, "train", "dev"):
        right, said = verdicts.label("human"), verdicts.teacher_label
        if right is None:
            continue
        text = shorten(question.messages[-1].content, 300)
        confirmed[right].append(text)
        if said is not None and said != right:
            confused[right, said].append(text)
    often = {pair: texts for pair, texts in confused.items() if len(texts) >= OFTEN}
    found = []
    for label in task.labels:
        missed = tuple((text, said) for (right, said), texts in often.items() if right == label.name for text in texts)
        mistaken = tuple(
            (text, right) for (right, said), texts in often.items() if said == label.name for text in texts
        )
        if missed or mistaken:
            found.append(Misread(label, tuple(confirmed[label.name]), missed, mistaken))
    return sorted(found, key=lambda each: -len(each.missed) - len(each.mistaken))


class DescriptionRequests:
    """The work of describing, as `asking` takes it; `proposed` are the descriptions by label."""

    step, expected, retry, temperature = STEP, "holds a description", "then run it again", 0.0

    def __init__(self) -> None:
        self.proposed: dict[str, str | None] = {}

    def request(self, job: Misread) -> tuple[Chat, Schema]:
        return job.messages, DESCRIPTION_SCHEMA

    def key(self, job: Misread) -> Key:
        return [job.label.name]

    def keep(self, key: Key, reply: Reply) -> tuple[None, bool]:
        self.proposed[key[0]] = description = parse_description(reply.text)
        return None, description is not None


def at_most_usd(task: Task, found: list[Misread]) -> float:
    """The most that asking for descriptions can cost, in US dollars."""
    teacher = _writer(task)
    return sum(prices.at_most(teacher, request_bytes(each.messages, DESCRIPTION_SCHEMA)) for each in found)


def propose(
    task: Task, store: Store, found: list[Misread], folder: Path, *, budget_usd: float | None = None
) -> list[Proposal]:
    """Ask the teacher for a description of each label; none where the budget ends before.

    Raises:
        TaskError: the task has no teacher.
        TeacherError: it cannot be used, or none of its replies holds a description.
        BudgetError: not even one fits into the budget.
    """
    does = DescriptionRequests()
    with teacher_endpoint(_writer(task), folder) as teacher:
        run_requests(does, found, store, teacher, folder, budget_usd=budget_usd)
    return [Proposal(each.label, does.proposed.get(each.label.name)) for each in found]


def _writer(task: Task) -> TeacherSettings:
    return teacher_of(task).model_copy(update={"max_tokens": REPLY_TOKENS})


def describe(
    label: Label, confirmed: Sequence[str], missed: Sequence[tuple[str, str]], mistaken: Sequence[tuple[str, str]]
) -> Chat:
    """The chat messages that ask for a better description of a label.

    `confirmed` are texts that belong to it; of `missed`, (text, label), it was not seen that they do; of `mistaken`,
    (text, label), it was wrongly thought that they do: the label is where they belong.
    """
    parts = [f"Label: {label.name}", f"Description so far: {label.description or '(none)'}"]
    parts += ["", "These messages belong to it:", *(f"- {text}" for text in confirmed)]
    if missed:
        parts += ["", "These belong to it, but were taken for another label:"]
        parts += [f"- {text} (taken for {other})" for text, other in missed]
    if mistaken:
        parts += ["", "These were taken for it, but belong to another label:"]
        parts += [f"- {text} (belongs to {other})" for text, other in mistaken]
    system = (
        "You describe the labels of a message classifier, for someone who has to choose among them. Write one sentence "
        "of at most 30 words that says what belongs to the label and, where it matters, what does not. Describe the "
        'kind of message, do not repeat the examples. Reply with JSON only, {"description": "..."}.'
    )
    return chat(system, (Message("user", "\n".join(parts)),))


DESCRIPTION_SCHEMA = {
    "type": "object",
    "properties": {"description": {"type": "string"}},
    "required": ["description"],
    "additionalProperties": False,
}


def parse_description(raw: str | None) -> str | None:
    """The description in a reply, on one line; None where there is none, or it is no description."""
    try:
        value = json.loads(raw or "")
    except ValueError:
        return None
    text = value.get("description") if isinstance(value, dict) else None
    line = " ".join(text.split()) if isinstance(text, str) else ""
    return line if 0 < len(line) <= 400 else None
