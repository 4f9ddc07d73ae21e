"""Import: files of questions, with labels or without, become questions and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fingerpost.core.text import question_id
from fingerpost.core.types import Question, Usage, Verdict
from fingerpost.data.rows import Columns, Item, Rejected, read_items
from fingerpost.data.splits import FIRST, New, place
from fingerpost.store.project import Store
from fingerpost.store.server_rows import RequestLogEntry
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


def import_log(
    store: Store, task: Task, entries: Sequence[RequestLogEntry], source: str, limit: int | None = None
) -> Imported:
    """Import a server's request log in the given order. The teacher's replies become verdicts.

    Requests to models of other tasks, whose labels this task does not have, are left out. `limit` is the largest number
    of new questions; with it, all of them go to the training split, because a selection of uncertain requests is no
    fair test.
    """
    entries = [entry for entry in entries if resolve(task, entry.label) is not None]
    result = Imported(rows=len(entries))
    stored = store.questions()
    known = {question.id for question in stored}
    new: dict[str, New] = {}
    verdicts: list[Verdict] = []
    for entry in entries:
        key = question_id(entry.messages)
        if key not in known and key not in new:
            if limit is not None and len(new) >= limit:
                continue
            new[key] = New(key, entry.messages, source, None if limit is None else "train")
        if (reply := entry.teacher) is not None:
            verdicts.append(
                Verdict(
                    key,
                    "teacher",
                    reply.model,
                    resolve(task, reply.label),
                    LOG,
                    raw=reply.raw,
                    logprob=reply.logprob,
                    usage=reply.usage,
                    at=datetime.fromtimestamp(entry.at, UTC),
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
