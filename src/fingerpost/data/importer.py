"""Import files and server logs: rows become questions, and their labels become verdicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from fingerpost.core.text import question_id
from fingerpost.core.types import Split, Usage, Verdict
from fingerpost.core.utils import count, finite
from fingerpost.data.rows import Columns, LabelledRow, Rejected, read_labelled_rows
from fingerpost.data.splits import NewQuestion, assign_in_store, first_split
from fingerpost.store.project import Store
from fingerpost.store.server_rows import RequestLogEntry
from fingerpost.task.replies import resolve
from fingerpost.task.settings import Task

LOG = "log"
"""Origin of a teacher's verdicts from a server's log."""


@dataclass(slots=True)
class ImportResult:
    """What an import did.

    Attributes:
        rows: rows read.
        new: questions added.
        verdicts: verdicts added.
        excluded: new questions that are in no split.
        rejected: rows that could not be used.
    """

    rows: int = 0
    new: int = 0
    verdicts: int = 0
    excluded: int = 0
    rejected: list[Rejected] = field(default_factory=list)


def import_file(store: Store, task: Task, path: Path, columns: Columns = Columns()) -> ImportResult:
    """Import a file; what is stored already does not change.

    Rows that cannot be used are listed in the result.

    Raises:
        InputError: the file or a named column cannot be used.
    """
    result = ImportResult()
    rows: list[LabelledRow] = []
    for row in read_labelled_rows(path, columns, task):
        result.rows += 1
        if isinstance(row, Rejected):
            result.rejected.append(row)
        elif not columns.only or row.split in columns.only:
            rows.append(row)
    ids = [question_id(row.messages) for row in rows]
    known = store.known_ids(set(ids))
    requested: dict[str, set[Split | None]] = defaultdict(set)
    for key, row in zip(ids, rows, strict=True):
        requested[key].add(row.split)
    new: dict[str, NewQuestion] = {}
    for key, row in zip(ids, rows, strict=True):
        if key not in known and key not in new:
            new[key] = NewQuestion(key, row.messages, row.source, first_split(requested[key]))
    _add(store, task, list(new.values()), result)
    result.verdicts = store.add_verdicts(_verdicts(rows, ids, columns))
    return result


def import_log(
    store: Store, task: Task, logged: Sequence[RequestLogEntry], source: str, limit: int | None = None
) -> ImportResult:
    """Import the requests that a server has logged; the teacher's answers to them become verdicts.

    Requests to models of other tasks, whose answers are not labels of this task, are skipped.

    Args:
        store: the project.
        task: the project's task.
        logged: the requests, in the order to import them.
        source: the source of the new questions.
        limit: the maximum number of new questions. With a limit, all of them become training questions, because a
            selection of uncertain requests is not a fair test set.
    """
    logged = [record for record in logged if resolve(task, record.label) is not None]
    result = ImportResult(rows=len(logged))
    conversations = [record.messages for record in logged]
    ids = [question_id(messages) for messages in conversations]
    known = store.known_ids(set(ids))
    new: dict[str, NewQuestion] = {}
    verdicts: list[Verdict] = []
    for record, messages, key in zip(logged, conversations, ids, strict=True):
        if key not in known and key not in new:
            if limit is not None and len(new) >= limit:
                continue
            new[key] = NewQuestion(key, messages, source, None if limit is None else "train")
        if (answer := record.teacher) is not None:
            verdicts.append(
                Verdict(
                    key,
                    "teacher",
                    answer.model,
                    resolve(task, answer.label),
                    LOG,
                    raw=answer.raw,
                    logprob=answer.logprob,
                    usage=answer.usage,
                    at=datetime.fromtimestamp(record.at, UTC),
                )
            )
    _add(store, task, list(new.values()), result)
    result.verdicts = store.add_verdicts(verdicts)
    return result


def _add(store: Store, task: Task, new: Sequence[NewQuestion], result: ImportResult) -> None:
    questions, sketches = assign_in_store(store, new, task.split)
    result.new = store.add_questions(questions, sketches)
    result.excluded = sum(question.split == "excluded" for question in questions)


def _verdicts(rows: Sequence[LabelledRow], ids: Sequence[str], columns: Columns) -> Iterable[Verdict]:
    for row, key in zip(rows, ids, strict=True):
        if columns.teacher and (row.label or row.raw):
            yield teacher_verdict(row, key, columns.teacher)
        elif row.label and not columns.teacher:
            yield Verdict(key, "human", columns.person, row.label)


def teacher_verdict(row: LabelledRow, key: str, teacher: str) -> Verdict:
    """A row as a teacher's verdict, with the log-probability, tokens, cost and latency from columns of these names.

    Args:
        row: its label is the teacher's.
        key: the question's id.
        teacher: the teacher's name.
    """
    values = row.values

    def number(name: str) -> float | None:
        value = values.get(name)
        try:
            return finite(float(value) if isinstance(value, str) else value)
        except ValueError:
            return None

    latency = number("latency_s")
    if latency is None and (milliseconds := number("latency_ms")) is not None:
        latency = milliseconds / 1000
    tokens = [count(number(name)) for name in ("prompt_tokens", "cached_tokens", "completion_tokens")]
    usage = Usage(tokens[0], tokens[1], tokens[2], number("cost_usd"), latency)
    verdict = Verdict(key, "teacher", teacher, row.label, raw=row.raw, logprob=number("logprob"))
    return replace(verdict, order=count(number("label_order")), usage=usage)
