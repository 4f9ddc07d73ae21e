"""Import: files of questions, with labels or without, become questions and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fingerpost.core.text import question_id
from fingerpost.core.types import Message, Question, Usage, Verdict
from fingerpost.data.rows import Columns, Item, Rejected, read_items
from fingerpost.data.splits import FIRST, New, place
from fingerpost.store.project import Store
from fingerpost.store.server import Record
from fingerpost.task.replies import resolve
from fingerpost.task.settings import Task

LOG = "log"
"""The origin of a teacher's answers to requests that were served."""


@dataclass(slots=True)
class Imported:
    """What an import did."""

    rows: int = 0
    new: int = 0
    verdicts: int = 0
    excluded: int = 0
    rejected: list[Rejected] = field(default_factory=list)


def import_file(store: Store, task: Task, path: Path, columns: Columns = Columns()) -> Imported:
    """Read a file into the store; what is there already stays as it is.

    Raises:
        InputError: the file or a named column cannot be used. Rows that cannot are listed in the result.
    """
    result = Imported()
    items: list[Item] = []
    for found in read_items(path, columns, task):
        result.rows += 1
        if isinstance(found, Rejected):
            result.rejected.append(found)
        elif not columns.only or found.split in columns.only:
            items.append(found)
    ids = [question_id(item.messages) for item in items]
    stored = store.questions()
    known = {question.id for question in stored}
    new: dict[str, New] = {}
    for key, item in zip(ids, items, strict=True):
        if key not in known:
            wishes = {item.split, new[key].wanted if key in new else None}
            first = new.get(key) or New(key, item.messages, item.source, None)
            new[key] = replace(first, wanted=next((side for side in FIRST if side in wishes), None))
    _keep(store, task, list(new.values()), stored, result)
    result.verdicts = store.add_verdicts(_verdicts(items, ids, columns))
    return result


def import_log(store: Store, task: Task, logged: Sequence[Record], source: str, limit: int | None = None) -> Imported:
    """Bring what a server was asked into the project, in the order given; the teacher's answers come as verdicts.

    What was asked of models of other tasks, whose answers are no labels of this one, is left out.
    With `limit`, so many new questions at most, all of them for training: a choice of the unsure ones is no fair test.
    """
    logged = [row for row in logged if resolve(task, row["label"]) is not None]
    result = Imported(rows=len(logged))
    stored = store.questions()
    known = {question.id for question in stored}
    new: dict[str, New] = {}
    verdicts: list[Verdict] = []
    for row in logged:
        messages = tuple(Message(role, content) for role, content in row["messages"])
        key = question_id(messages)
        if key not in known and key not in new:
            if limit is not None and len(new) >= limit:
                continue
            new[key] = New(key, messages, source, None if limit is None else "train")
        if (said := row["teacher"]) is not None:
            label, usage = resolve(task, said["label"]), Usage(*said["usage"])
            at = datetime.fromtimestamp(row["at"], UTC)
            verdicts.append(
                Verdict(
                    key,
                    "teacher",
                    said["model"],
                    label,
                    LOG,
                    raw=said["raw"],
                    logprob=said["logprob"],
                    usage=usage,
                    at=at,
                )
            )
    _keep(store, task, list(new.values()), stored, result)
    result.verdicts = store.add_verdicts(verdicts)
    return result


def _keep(store: Store, task: Task, new: list[New], stored: list[Question], result: Imported) -> None:
    placed = place(new, stored, task.split)
    result.new = store.add_questions(placed)
    result.excluded = sum(question.split == "excluded" for question in placed)


def _verdicts(items: Sequence[Item], ids: Sequence[str], columns: Columns) -> Iterable[Verdict]:
    for item, key in zip(items, ids, strict=True):
        if columns.teacher and (item.label or item.raw):
            yield teacher_verdict(item, key, columns.teacher)
        elif item.label and not columns.teacher:
            yield Verdict(key, "human", columns.person, item.label)


def teacher_verdict(item: Item, key: str, teacher: str) -> Verdict:
    """With the log-probability, tokens, cost and latency that the row has under their usual names."""
    values = item.values

    def number(name: str, kind: Callable[[Any], Any] = int) -> Any:
        try:
            return kind(values[name])
        except (KeyError, TypeError, ValueError):
            return None

    latency = number("latency_s", float)
    if latency is None and (milliseconds := number("latency_ms", float)) is not None:
        latency = milliseconds / 1000
    usage = Usage(
        number("prompt_tokens"),
        number("cached_tokens"),
        number("completion_tokens"),
        number("cost_usd", float),
        latency,
    )
    verdict = Verdict(key, "teacher", teacher, item.label, raw=item.raw, logprob=number("logprob", float))
    return replace(verdict, order=number("label_order"), usage=usage)
