"""A decision's project: an ordinary one, with the upstream's answers as labels, that reviews and reports work on as well."""

from __future__ import annotations

import calendar
import math
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError

from fingerpost.core.errors import InputError
from fingerpost.core.text import question_id
from fingerpost.core.types import Label
from fingerpost.data.importer import import_log
from fingerpost.evaluation.thresholds import choose_for_folder
from fingerpost.project import Project
from fingerpost.server.loop.recognition import ObservedReply, Place
from fingerpost.server.schemas import Json
from fingerpost.store.server import ServerStore, now
from fingerpost.store.server_rows import DecisionRow, RequestLogEntry
from fingerpost.students.cutoff import at_least
from fingerpost.students.folder import MANIFEST, dev_answers
from fingerpost.task.loader import TASK_FILE
from fingerpost.task.reply_format import (
    NoClassification,
    ReplyTemplate,
    UserTemplate,
    find_reply_template,
    find_user_template,
    label_in,
    labels_of,
    single_values,
    without_template,
)
from fingerpost.task.settings import Task
from fingerpost.task.template import render_task

LEAST, GROWTH = 200, 1.5
"""Answers for the first training and for one after an alarm; and how many times more there have to be for another one."""
SAME_PROMPT = 0.7
"""How much the words of two prompts have to overlap (Jaccard) for the same version of a named decision."""
CALENDAR = {
    *(
        name.lower()
        for names in (calendar.day_name, calendar.day_abbr, calendar.month_name, calendar.month_abbr)
        for name in names
    ),
    *("am", "pm", "utc", "gmt", "th", "st", "nd", "rd", "t", "z"),
}
"""Words of dates and times in English."""
SOURCE = "upstream"
FEWEST_REPLIES = 50
"""Replies in plain text from which the labels are told, and messages from which the text around them is told."""
MOST_QUEUED = 100
"""Questions behind an alarm that lead the review queue: the latest."""
FEWEST_REVIEWS = 50
"""Human labels from which on a student is held to the upstream's answers as the consensus corrects them."""
MORE_SETTINGS = "\n# What passes by later tests the student.\n[split]\ntest = 0.0\ndev = 0.15\n"


def overlap(one: set[str | int] | set[str], other: set[str | int] | set[str]) -> float:
    """The share of the elements of two sets that are in both (Jaccard); 1 for two empty sets."""
    return len(one & other) / len(one | other) if one or other else 1.0


def is_same_prompt(one: str, other: str, named: bool, exact: bool = False) -> bool:
    """Whether two system prompts make the same version of a decision: all words but numbers, days and months are equal.

    Args:
        named: the requests name the decision themselves, so that it is enough if most words are equal.
        exact: they are typed questions, of which every character counts.
    """
    if exact:
        return one == other
    first, second = prompt_words(one), prompt_words(other)
    return overlap(set(first), set(second)) >= SAME_PROMPT if named else first == second


@lru_cache(maxsize=256)
def prompt_words(prompt: str) -> tuple[str, ...]:
    """The words of a prompt, without numbers and the names of days and months."""
    return tuple(word for word in re.findall(r"[^\W\d]+", prompt.lower()) if word not in CALENDAR)


def task_of_decision(row: DecisionRow) -> Task | None:
    """The task of a decision; None while its labels are not known."""
    field = (row.place["path"] or ["action"])[-1]
    return _task(row.name, tuple(row.labels), row.prompt, field, _is_question(row), bool(row.place.get("ordinal")))


@lru_cache(maxsize=256)
def _task(
    name: str, values: tuple[str | int, ...], prompt: str, field: str, question: bool, ordinal: bool
) -> Task | None:
    try:
        known = _labels(values, prompt, question)
        labels = tuple(known[value] for value in values) if ordinal else tuple(known.values())
        return Task(name=name, labels=labels, answer_field=field, ordinal=ordinal)
    except ValidationError:
        return None


@lru_cache(maxsize=256)
def _labels(values: tuple[str | int, ...], prompt: str, question: bool) -> dict[str | int, Label]:
    """The labels by their values in replies, described by the prompt. Those of a typed question have the values as names.

    Raises:
        ValidationError: a value is empty.
    """
    found = labels_of(values, prompt)
    if not question:
        return found
    return {value: Label(name=str(value), description=label.description) for value, label in found.items()}


def _is_question(row: DecisionRow) -> bool:
    """Whether a decision is a typed question."""
    return bool(row.place.get("question"))


def answers_missing(row: DecisionRow, new: int) -> int:
    """How many answers are missing for the next training; 0 or less if it is due.

    Args:
        new: the answers that are not in the decision's project yet.
    """
    rows = int(row.training.get("rows", 0))
    wanted = LEAST if not rows or row.alarm is not None else round(rows * (GROWTH - 1))
    return max(wanted, int(row.training.get("tried", 0))) - new


def label_of_reply(row: DecisionRow, task: Task | None, reply: ObservedReply) -> str | None:
    """The name of the label in an upstream reply; None if it names none, or the labels are not known yet."""
    place = Place(tuple(row.place["path"]), row.place["tool"], row.place["by_tool"])
    if task is None:
        return None
    value = place.value_in(reply)
    if place.path or place.by_tool:
        label = None if value is None else _labels(tuple(row.labels), row.prompt, _is_question(row)).get(value)
        return None if label is None else label.name
    return label_in(ReplyTemplate(**(row.reply_template or {})), task, reply.text or "")


def learn(store: ServerStore, row: DecisionRow, folder: Path, limit: float, **options: Any) -> DecisionRow:
    """Import a decision's new answers into its project, train its student, and prove a cut-off.

    Args:
        folder: of the projects of all decisions.
        limit: the share of the student's answers that may differ from the upstream's.
        options: as of `Project.train`.

    Raises:
        InputError, ModelError: there is too little to learn from, or the encoder cannot be loaded.
    """
    began = time.monotonic()
    row = _with_templates(store, row)
    task = task_of_decision(row)
    if task is None:
        raise InputError("the replies have no labels yet")
    place = folder / row.folder
    if not (place / TASK_FILE).is_file():
        place.mkdir(parents=True, exist_ok=True)
        (place / TASK_FILE).write_text(_task_text(row, task), encoding="utf-8")
    project = Project(place)
    last = row.imported
    with project.store() as questions:
        if not row.imported:
            for earlier in _earlier_versions(store, row):
                import_log(questions, project.task, _usable(store, earlier, row, task), SOURCE)
        seen: list[tuple[int, str]] = []
        import_log(questions, project.task, _usable(store, row, row, task, last, seen), SOURCE)
        last = max([last, *(number for number, _ in seen)])
    trained = project.train(compare=False, **options)
    manifest = trained.folder / MANIFEST
    upstream: dict[str, str] = {}
    humans = 0
    with project.store() as questions:
        for question, verdicts in questions.stream_labelled(project.task.answers, None, "train", "dev"):
            humans += verdicts.label("human") is not None
            if (label := verdicts.label("teacher")) is not None:
                upstream[question.id] = label
    # With reviews, the student is to be right where the upstream is wrong: it is held to the corrected answers.
    corrected = humans >= FEWEST_REVIEWS
    choice = choose_for_folder(
        trained.folder, 1 - limit, "the teacher's answers", None if corrected else upstream, cross_validated=True
    )
    training: Json = {
        "at": now(),
        "rows": int(row.training.get("rows", 0)) + sum(by != "student" for _, by in seen),
        "seconds": round(time.monotonic() - began, 1),
        "stamp": manifest.stat().st_mtime_ns,
        "humans": humans,
        "corrected": corrected,
    }
    if choice.found is not None and choice.cutoff is not None and choice.cutoff < math.inf:
        found = choice.found
        training |= {"cutoff": choice.cutoff, "n": found.n, "of": found.of, "right": found.right,
                     "at_least": found.at_least}  # fmt: skip
        training["differs"] = _difference(trained.folder, upstream, choice.cutoff) if corrected else limit
    changed = store.change_decision(row.id, imported=last, training=training)
    return changed or row


def queue_disagreements(store: ServerStore, row: DecisionRow, folder: Path) -> int:
    """Put the requests on which the student was sure and the upstream said something else at the head of the review queue.

    Args:
        folder: of the projects of all decisions.

    Returns:
        The number of questions.
    """
    task, cutoff = task_of_decision(row), float(row.training.get("cutoff") or 0.0)
    place = folder / row.folder
    if task is None or not (place / TASK_FILE).is_file():
        return 0
    differing: deque[RequestLogEntry] = deque(maxlen=MOST_QUEUED)
    for entry in _usable(store, row, row, task, row.imported):
        if entry.student not in (None, entry.label) and entry.confidence >= cutoff:
            differing.append(entry)
    project = Project(place)
    with project.store() as questions:
        import_log(questions, project.task, differing, SOURCE, limit=MOST_QUEUED)
    ids = [question_id(entry.messages) for entry in differing]
    project.ask_first(ids)
    return len(set(ids))


def _difference(folder: Path, upstream: Mapping[str, str], cutoff: float) -> float:
    """The upper bound, with 95 % confidence, of how often a student differs from the upstream where it is sure."""
    answers = {one.id: one for one in dev_answers(folder, cross_validated=True)}
    sure = [one.answer == upstream[key] for key, one in answers.items() if key in upstream and one.confidence >= cutoff]
    return 1 - at_least(sum(sure), len(sure))


def human_labels(place: Path) -> int:
    """How many questions of a decision's project have a human label."""
    with Project(place).store() as questions:
        labelled = questions.label_counts(None).by
    return sum(count for (split, kind), count in labelled.items() if kind == "human" and split in ("train", "dev"))


def _usable(
    store: ServerStore,
    source: DecisionRow,
    row: DecisionRow,
    task: Task,
    after: int = 0,
    seen: list[tuple[int, str]] | None = None,
) -> Iterator[RequestLogEntry]:
    """The logged upstream answers of a decision, as answers of this version; those that name another label are left out.

    Args:
        source: the version that they were logged for.
        after: leave out what has no higher id.
        seen: gets the id of each logged request, and who answered it.
    """
    user = UserTemplate(**row.user_template) if row.user_template else UserTemplate()
    for number, entry in store.decision_log(source.id, after):
        if seen is not None:
            seen.append((number, entry.by))
        if entry.teacher is None:
            continue
        label = entry.teacher.label
        if label is None:
            reply = ObservedReply(entry.teacher.raw, entry.teacher.raw if row.place["by_tool"] else row.place["tool"])
            label = label_of_reply(row, task, reply)
        if label in task.names:
            messages = without_template(entry.messages, user)
            yield replace(entry, messages=messages, label=label, teacher=replace(entry.teacher, label=label))


def _with_templates(store: ServerStore, row: DecisionRow) -> DecisionRow:
    """The row with the text around replies and messages, which is told from the first ones that were logged."""
    told = row.user_template is not None and row.labels
    logged = [] if told else [entry for _, entry in store.decision_log(row.id)]
    if len(logged) < FEWEST_REPLIES:
        return row
    if row.user_template is None:
        user = find_user_template([entry.messages[-1].content for entry in logged])
        row = store.change_decision(row.id, user_template=user.model_dump()) or row
    if not row.labels:
        raws = [entry.teacher.raw for entry in logged if entry.teacher is not None]
        try:
            template, _field, values = find_reply_template(raws)
        except NoClassification as error:
            raise InputError(str(error)) from None
        labels = list(dict.fromkeys(single_values(values)))
        known = labels_of(labels, row.prompt)
        template = template.model_copy(update={"codes": any(label.code is not None for label in known.values())})
        row = store.change_decision(row.id, labels=labels, reply_template=template.model_dump()) or row
    return row


def _earlier_versions(store: ServerStore, row: DecisionRow) -> list[DecisionRow]:
    """The versions whose answers still count: of the same decision, with the same prompt."""
    return [
        other
        for other in store.decisions()
        if other.name == row.name
        and other.version < row.version
        and is_same_prompt(other.prompt, row.prompt, bool(row.place.get("named")), _is_question(row))
    ]


def _task_text(row: DecisionRow, task: Task) -> str:
    """The task.toml of a decision's project."""
    text = render_task(
        task.name, {label.name: label.description for label in task.labels}, instructions=row.prompt, model=row.model
    )
    document = tomlkit.parse(text)
    document["answer_field"] = task.answer_field
    if task.ordinal:
        document["ordinal"] = True
    for label in task.labels:
        if label.code is not None:
            described = tomlkit.inline_table()
            described.update({"description": label.description, "code": label.code})
            document["labels"][label.name] = described
    return tomlkit.dumps(document) + MORE_SETTINGS
