"""Import files and server logs: rows become questions, and their labels become verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from fingerpost.core.text import question_id
from fingerpost.core.types import Conversation, Progress, ProgressCallback, Split, Usage, Verdict, no_progress
from fingerpost.core.utils import chunks, count, finite
from fingerpost.data.rows import Columns, LabelledRow, Rejected, read_labelled_rows, requested_split
from fingerpost.data.splits import NewQuestion, assign_large
from fingerpost.data.spool import QuestionSpool
from fingerpost.store.project import Store
from fingerpost.store.server_rows import RequestLogEntry
from fingerpost.task.replies import label_probabilities, resolve
from fingerpost.task.settings import Task

STEP = "import"
LOG = "log"
"""Origin of a teacher's verdicts from a server's log."""
BATCH, WRITTEN = 5_000, 1_000
"""Rows that are read at once, and rows that are written in one transaction."""


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


def import_file(
    store: Store,
    task: Task,
    path: Path,
    columns: Columns = Columns(),
    on_progress: ProgressCallback = no_progress,
) -> ImportResult:
    """Import a file; what is stored already does not change.

    Rows that cannot be used are listed in the result.

    Args:
        on_progress: receives the number of rows that are read, and then stored.

    Raises:
        InputError: the file or a named column cannot be used.
    """
    result = ImportResult()
    with QuestionSpool(store.path.parent) as spool:
        _fill(spool, store, _usable(read_labelled_rows(path, columns, task), columns, result, on_progress))
        on_progress(Progress(STEP, "comparing the questions with each other"))
        _add(store, task, spool, result, on_progress)
    return result


def _usable(
    rows: Iterable[LabelledRow | Rejected], columns: Columns, result: ImportResult, on_progress: ProgressCallback
) -> Iterator[tuple[NewQuestion, Verdict | None]]:
    """The rows to import as questions and verdicts; all rows are counted in the result."""
    for row in rows:
        result.rows += 1
        if result.rows % WRITTEN == 0:
            on_progress(Progress(STEP, done=result.rows))
        if isinstance(row, Rejected):
            if not columns.only or requested_split(row.values) in (None, *columns.only):
                result.rejected.append(row)
        elif not columns.only or row.split in columns.only:
            key = question_id(row.messages)
            yield NewQuestion(key, row.messages, row.source, row.split), _verdict(row, key, columns)


def import_log(
    store: Store, task: Task, logged: Iterable[RequestLogEntry], source: str, limit: int | None = None
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
    result = ImportResult()
    with QuestionSpool(store.path.parent) as spool:
        rows = _logged(task, logged, source, None if limit is None else "train", result)
        _fill(spool, store, rows, limit)
        _add(store, task, spool, result)
    return result


def import_messages(store: Store, task: Task, conversations: Iterable[Conversation], source: str) -> ImportResult:
    """Import conversations without labels as training questions."""
    result = ImportResult()
    with QuestionSpool(store.path.parent) as spool:
        rows = ((NewQuestion(question_id(one), one, source, "train"), None) for one in conversations)
        _fill(spool, store, rows)
        _add(store, task, spool, result)
    return result


def _logged(
    task: Task, logged: Iterable[RequestLogEntry], source: str, split: Split | None, result: ImportResult
) -> Iterator[tuple[NewQuestion, Verdict | None]]:
    """The requests of this task as questions, and the teacher's answers; the requests are counted in the result."""
    for record in logged:
        if resolve(task, record.label) is None:
            continue
        result.rows += 1
        key, verdict = question_id(record.messages), None
        if (answer := record.teacher) is not None:
            verdict = Verdict(
                key,
                "teacher",
                answer.model,
                resolve(task, answer.label),
                LOG,
                raw=answer.raw,
                logprob=answer.logprob,
                usage=answer.usage,
                at=datetime.fromtimestamp(record.at, UTC),
                probabilities=label_probabilities(task, answer.probabilities),
            )
        yield NewQuestion(key, record.messages, source, split), verdict


def _fill(
    spool: QuestionSpool,
    store: Store,
    rows: Iterable[tuple[NewQuestion, Verdict | None]],
    limit: int | None = None,
) -> None:
    """Read all rows into the spool. With a limit, rows of further new questions are left out."""
    added: set[str] = set()
    for part in chunks(rows, BATCH):
        known = store.known_ids({question.id for question, _ in part})
        if limit is not None:
            kept = []
            for question, verdict in part:
                if question.id not in known and question.id not in added:
                    if len(added) >= limit:
                        continue
                    added.add(question.id)
                kept.append((question, verdict))
            part = kept
        spool.extend(part, known)


def _add(
    store: Store, task: Task, spool: QuestionSpool, result: ImportResult, on_progress: ProgressCallback = no_progress
) -> None:
    """Store what is in the spool, and count it in the result."""
    with store.split_lock():
        sketches = spool.sketches
        written = 0
        placed = assign_large(store, spool, spool.requests, sketches, spool.shingles, task.split)
        for part in chunks(zip(placed, sketches, strict=True), WRITTEN):
            questions = [question for question, _ in part]
            result.excluded += sum(question.split == "excluded" for question in questions)
            result.new += store.add_questions(questions, {question.id: row.tobytes() for question, row in part})
            written += len(part)
            on_progress(Progress(STEP, done=written, total=len(sketches)))
    for verdicts in chunks(spool.verdicts(), WRITTEN):
        result.verdicts += store.add_verdicts(verdicts)


def _verdict(row: LabelledRow, key: str, columns: Columns) -> Verdict | None:
    if columns.teacher:
        return teacher_verdict(row, key, columns.teacher) if row.label or row.raw else None
    return Verdict(key, "human", columns.person, row.label) if row.label else None


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
