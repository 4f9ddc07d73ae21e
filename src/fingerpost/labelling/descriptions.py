"""Better descriptions for labels that the teacher confuses, written by the teacher from human-labelled questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fingerpost.core.errors import TaskError
from fingerpost.core.text import parse_json, shorten
from fingerpost.core.types import Label, Message
from fingerpost.llm import prices
from fingerpost.llm.completion import Chat, Reply, Schema, request_bytes
from fingerpost.llm.requests import Key, teacher_endpoint, teacher_of
from fingerpost.llm.runner import run_requests
from fingerpost.store.project import Store
from fingerpost.task.prompt import chat
from fingerpost.task.settings import Task, TeacherSettings

STEP = "define"

MIN_CONFUSIONS = 3  # fewer confusions of two labels may be single mistakes

EXAMPLES = 8  # most examples of each kind in a request

REPLY_TOKENS = 200


@dataclass(frozen=True, slots=True)
class ConfusedLabel:
    """A label that the teacher confuses with others, and the texts that show it.

    Attributes:
        confirmed: texts that humans gave this label.
        missed: (text, other label); texts of this label that the teacher gave the other one.
        mistaken: (text, other label); texts of the other label that the teacher gave this one.
    """

    label: Label
    confirmed: tuple[str, ...]
    missed: tuple[tuple[str, str], ...]
    mistaken: tuple[tuple[str, str], ...]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat messages that ask the teacher for a better description."""
        return describe(self.label, self.confirmed[:EXAMPLES], self.missed[:EXAMPLES], self.mistaken[:EXAMPLES])


@dataclass(frozen=True, slots=True)
class Proposal:
    """A new description for a label; None where the teacher's reply had none."""

    label: Label
    description: str | None


def confused_labels(task: Task, store: Store) -> list[ConfusedLabel]:
    """The labels that the teacher confused with one other at least MIN_CONFUSIONS times; most confusions first.

    Human labels decide what is right. Test questions are left out: they have to stay unseen by the new descriptions.
    """
    confirmed: dict[str, list[str]] = defaultdict(list)
    confusions: dict[tuple[str, str], list[str]] = defaultdict(list)
    for question, verdicts in store.labelled(task.names, task.teacher_model, "train", "dev"):
        human, teacher = verdicts.label("human"), verdicts.teacher_label
        if human is None:
            continue
        text = shorten(question.messages[-1].content, 300)
        confirmed[human].append(text)
        if teacher is not None and teacher != human:
            confusions[human, teacher].append(text)
    frequent = {pair: texts for pair, texts in confusions.items() if len(texts) >= MIN_CONFUSIONS}
    found = []
    for label in task.labels:
        missed = tuple(
            (text, teacher) for (human, teacher), texts in frequent.items() if human == label.name for text in texts
        )
        mistaken = tuple(
            (text, human) for (human, teacher), texts in frequent.items() if teacher == label.name for text in texts
        )
        if missed or mistaken:
            found.append(ConfusedLabel(label, tuple(confirmed[label.name]), missed, mistaken))
    return sorted(found, key=lambda confused: -len(confused.missed) - len(confused.mistaken))


class DescriptionRequests:
    """Requests for descriptions, for `run_requests`; `proposed` collects the descriptions by label name."""

    step, expected, retry, temperature = STEP, "holds a description", "then run it again", 0.0

    def __init__(self) -> None:
        self.proposed: dict[str, str | None] = {}

    def request(self, job: ConfusedLabel) -> tuple[Chat, Schema]:
        return job.messages, DESCRIPTION_SCHEMA

    def key(self, job: ConfusedLabel) -> Key:
        return [job.label.name]

    def keep(self, key: Key, reply: Reply) -> tuple[None, bool]:
        self.proposed[key[0]] = description = parse_description(reply.text)
        return None, description is not None


def at_most_usd(task: Task, found: list[ConfusedLabel]) -> float:
    """Upper bound of the cost of the requests, in US dollars."""
    teacher = _writer(task)
    return sum(prices.at_most(teacher, request_bytes(confused.messages, DESCRIPTION_SCHEMA)) for confused in found)


def propose(
    task: Task, store: Store, found: list[ConfusedLabel], folder: Path, *, budget_usd: float | None = None
) -> list[Proposal]:
    """Ask the teacher for a better description of each label. The description is None where the budget ran out before.

    Raises:
        TaskError: the task has no teacher.
        TeacherError: the teacher cannot be reached, or none of its replies has a description.
        BudgetError: the budget does not allow a single request.
        InputError: another process asks for descriptions.
    """
    spec = DescriptionRequests()
    with store.exclusive(STEP), teacher_endpoint(_writer(task), folder) as teacher:
        run_requests(spec, found, store, teacher, folder, budget_usd=budget_usd)
    return [Proposal(confused.label, spec.proposed.get(confused.label.name)) for confused in found]


def _writer(task: Task) -> TeacherSettings:
    """The teacher with room for a description.

    Raises:
        TaskError: there is no teacher, or recorded answers stand in for it.
    """
    if teacher_of(task).recorded:
        raise TaskError("recorded answers hold no descriptions; remove 'recorded' from [teacher] in task.toml")
    return teacher_of(task).model_copy(update={"max_tokens": REPLY_TOKENS})


def describe(
    label: Label, confirmed: Sequence[str], missed: Sequence[tuple[str, str]], mistaken: Sequence[tuple[str, str]]
) -> Chat:
    """The chat messages that ask for a better description of a label. See `ConfusedLabel` for the arguments."""
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
    """The description in a reply, on one line; None where there is none, or it is longer than 400 characters."""
    try:
        value = parse_json(raw or "")
    except ValueError:
        return None
    text = value.get("description") if isinstance(value, dict) else None
    line = " ".join(text.split()) if isinstance(text, str) else ""
    return line if 0 < len(line) <= 400 else None
