"""The database of a project: questions and verdicts (added, never changed), drafts, batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from filelock import FileLock
from sqlalchemy import ColumnElement, Connection, Select, Table, delete, func, select, update

from fingerpost.core.types import Question, Split, Verdict
from fingerpost.core.utils import chunks, locked
from fingerpost.core.verdicts import WITHDRAWN, QuestionVerdicts
from fingerpost.store.engine import connect, disconnect, writing
from fingerpost.store.fallback import FallbackFile, recover_answers
from fingerpost.store.holders import LeaseHolders
from fingerpost.store.ledger import Ledger
from fingerpost.store.rows import import_key, insert_new, now, question_row, to_question, to_verdict, verdict_row
from fingerpost.store.tables import calls, drafts, posted, questions, sketches, verdicts

BATCH = 5_000
STREAMED = 1_000
"""Questions that are read at once with their verdicts."""
NO_SKETCHES: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ProviderBatch:
    """A batch of requests at a provider's batch API.

    Attributes:
        jobs: the key of each request, by the id of its call in the ledger, as text.
        file: the provider's id of the uploaded file.
        batch: the provider's id of the batch.
        state: `new`, `creating` (the file is uploaded), `out` (the provider has the batch), `short` (results are stored, but
            answers are missing), `ended` (the results are stored, or there are none).
    """

    id: int
    step: str
    model: str
    base_url: str | None
    jobs: dict[str, list[Any]]
    file: str | None
    batch: str | None
    state: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A request to write questions.

    Attributes:
        round: the generation round.
        brief: what to write, as JSON.
        task: fingerprint of the task.
        model: the model that writes.
        answered: whether the model has replied.
        raw: its reply.
        outcomes: the number of texts by outcome, once the reply has been filtered.
    """

    id: int
    round: int
    brief: dict[str, Any]
    task: str
    model: str
    answered: bool = False
    raw: str | None = None
    outcomes: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """How far the questions of a project are labelled.

    Attributes:
        by: number of questions with a label, by (split, kind of verdict).
        unlabelled: training and dev questions that nobody was asked about.
        unanswered_test: test questions that the teacher has not answered.
    """

    by: dict[tuple[str, str], int]
    unlabelled: int
    unanswered_test: int


class Store:
    """The database of a project. Several processes may use it at once. Close it, or use it as a context manager.

    Raises:
        InputError: on opening, if the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = connect(path)
        self._holders = LeaseHolders(path)
        self.ledger = Ledger(self._engine, self._holders)
        recover_answers(self.path, self.ledger, self._holders)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database. What this process still leases is free for others."""
        disconnect(self._engine)
        self._holders.close()

    @contextmanager
    def request_session(self) -> Iterator[tuple[Ledger, FallbackFile]]:
        """A ledger whose leases end with the context, and room for paid answers that the database does not take.

        Raises:
            InputError: the disk is full.
        """
        holders = LeaseHolders(self.path)
        try:
            with FallbackFile(self.path, holders.own_id) as fallback:
                yield Ledger(self._engine, holders), fallback
        finally:
            holders.close()

    def exclusive(self, step: str) -> AbstractContextManager[None]:
        """Let no other process run this step on the project while the context is open.

        Raises:
            InputError: another process runs it.
        """
        taken = f"another 'fingerpost {step}' is running on this project; let it finish, or stop it with Ctrl-C"
        return locked(self.path.with_name(f".{step}.lock"), taken)

    def split_lock(self) -> AbstractContextManager[Any]:
        """Let only one process at a time choose the splits of new questions; others wait."""
        return FileLock(self.path.with_name(".questions.lock"))

    # --- questions

    def add_questions(self, new: Iterable[Question], sketches: Mapping[str, bytes] = NO_SKETCHES) -> int:
        """Add the questions whose id is not stored yet; returns their number.

        Args:
            new: the questions.
            sketches: their sketches for near-duplicate search by question id, where known.
        """
        with writing(self._engine) as connection:
            return sum(_insert_questions(connection, batch, sketches) for batch in chunks(new, BATCH))

    def known_ids(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that are stored."""
        return {
            row.id
            for batch in chunks(ids, BATCH)
            for row in self._rows(select(questions.c.id).where(questions.c.id.in_(batch)))
        }

    def questions_by_id(self, ids: Iterable[str]) -> list[Question]:
        """The questions with these ids, in the order they were added."""
        rows = [
            row
            for batch in chunks(ids, BATCH)
            for row in self._rows(select(questions).where(questions.c.id.in_(batch)))
        ]
        return [to_question(row) for row in sorted(rows, key=lambda row: (row.at, row.id))]

    def questions(self, *splits: Split) -> list[Question]:
        """All questions in the order they were added, or those of the given splits."""
        return [to_question(row) for row in self._rows(_in_order(select(questions), splits))]

    def question_ids(self, *splits: Split) -> Iterator[str]:
        """The ids of all questions in the order they were added, or of those of the given splits."""
        return (row.id for row in self._rows(_in_order(select(questions.c.id), splits)))

    def splits_of_groups(self, groups: Iterable[str]) -> dict[str, set[Split]]:
        """The splits of the questions in these groups, by group."""
        found: dict[str, set[Split]] = defaultdict(set)
        query = select(questions.c.group_id, questions.c.split).distinct()
        for part in chunks(groups, BATCH):
            for row in self._rows(query.where(questions.c.group_id.in_(part))):
                found[row.group_id].add(row.split)
        return dict(found)

    def counts(self) -> dict[tuple[str, str], int]:
        """Number of questions by (source, split)."""
        query = select(questions.c.source, questions.c.split, func.count()).group_by(
            questions.c.source, questions.c.split
        )
        return {(source, split): count for source, split, count in self._rows(query)}

    # --- sketches of questions, for near-duplicate search

    def sketches(self) -> Iterator[tuple[str, bytes]]:
        """(question id, sketch) of all questions that have one."""
        for row in self._rows(select(sketches)):
            yield row.question_id, row.sketch

    def ids_without_sketch(self, start: bytes, length: int) -> list[str]:
        """The ids of the questions without a sketch of this length in bytes that starts with these ones.

        Older versions store others, and hand-made questions have none.
        """
        sketch = sketches.c.sketch
        outdated = (func.length(sketch) != length) | (func.substr(sketch, 1, len(start)) != start)
        found = [row.question_id for row in self._rows(select(sketches.c.question_id).where(outdated))]
        with self._engine.connect() as connection:
            counts = [connection.execute(select(func.count()).select_from(table)) for table in (questions, sketches)]
        total, sketched = (count.scalar_one() for count in counts)
        if total == sketched:
            return found
        joined = questions.outerjoin(sketches, questions.c.id == sketches.c.question_id)
        query = select(questions.c.id).select_from(joined).where(sketches.c.question_id.is_(None))
        return found + [row.id for row in self._rows(query)]

    def put_sketches(self, new: Mapping[str, bytes]) -> None:
        """Store sketches by question id; they replace older ones."""
        with writing(self._engine) as connection:
            for batch in chunks(new, BATCH):
                connection.execute(delete(sketches).where(sketches.c.question_id.in_(batch)))
                _insert_sketches(connection, batch, new)

    # --- verdicts

    def add_verdicts(self, new: Iterable[Verdict]) -> int:
        """Add verdicts; returns the number of those that were not imported before."""
        return self._insert(verdicts, (verdict_row(verdict, import_key(verdict)) for verdict in new))

    def verdicts(self) -> dict[str, list[Verdict]]:
        """All verdicts by question id, oldest first."""
        found: dict[str, list[Verdict]] = defaultdict(list)
        for row in self._rows(select(verdicts).order_by(verdicts.c.id)):
            found[row.question_id].append(to_verdict(row))
        return dict(found)

    def verdicts_of(self, ids: Iterable[str]) -> dict[str, list[Verdict]]:
        """The verdicts on these questions by question id, oldest first."""
        found: dict[str, list[Verdict]] = defaultdict(list)
        for part in chunks(ids, BATCH):
            query = select(verdicts).where(verdicts.c.question_id.in_(part)).order_by(verdicts.c.id)
            for row in self._rows(query):
                found[row.question_id].append(to_verdict(row))
        return dict(found)

    def labelled(
        self, labels: Container[str], teacher: str | None, *splits: Split
    ) -> list[tuple[Question, QuestionVerdicts]]:
        """The questions of these splits, or of all, with the verdicts that count; see `stream_labelled`."""
        return list(self.stream_labelled(labels, teacher, *splits))

    def stream_labelled(
        self, labels: Container[str], teacher: str | None, *splits: Split
    ) -> Iterator[tuple[Question, QuestionVerdicts]]:
        """The questions of these splits, or of all, with the verdicts that count, read while they are used.

        Args:
            labels: the task's possible answers.
            teacher: where this model has answered, other teachers do not count.
            splits: without any, questions of all splits are returned.
        """
        rows = self._rows(_in_order(select(questions), splits))
        for part in chunks(map(to_question, rows), STREAMED):
            found = self.verdicts_of(question.id for question in part)
            for question in part:
                yield question, QuestionVerdicts(found.get(question.id, ()), labels, teacher)

    def marked(self, mark: str | None = None) -> list[Verdict]:
        """The verdicts with this mark, or with any mark, oldest first."""
        which = verdicts.c.mark.is_not(None) if mark is None else verdicts.c.mark == mark
        return [to_verdict(row) for row in self._rows(select(verdicts).where(which).order_by(verdicts.c.id))]

    def answered_by_several(self) -> list[str]:
        """The ids of the questions that several humans have answered, also those whose answer was taken back."""
        query = select(verdicts.c.question_id).where(verdicts.c.kind == "human").group_by(verdicts.c.question_id)
        query = query.having(func.count(func.distinct(verdicts.c.by)) > 1)
        return [row.question_id for row in self._rows(query)]

    def answered(
        self, teacher: str, ids: Iterable[str], prompt: str | None = None
    ) -> set[tuple[str, int | None, bool]]:
        """(question id, number of the label order, whether it names a label) of this teacher's answers.

        Args:
            teacher: the model.
            ids: only answers to these questions.
            prompt: only answers to the prompt with this fingerprint.
        """
        query = select(verdicts.c.question_id, verdicts.c.order_no, verdicts.c.label).where(
            verdicts.c.kind == "teacher", verdicts.c.by == teacher
        )
        if prompt is not None:
            query = query.where(verdicts.c.prompt == prompt)
        return {
            (key, order, label is not None)
            for part in chunks(ids, BATCH)
            for key, order, label in self._rows(query.where(verdicts.c.question_id.in_(part)))
        }

    def verdict_counts(self) -> list[tuple[str, str, int, int, int]]:
        """(kind, by, questions, verdicts, verdicts without a label) by author, withdrawn verdicts included."""
        query = select(
            verdicts.c.kind,
            verdicts.c.by,
            func.count(func.distinct(verdicts.c.question_id)),
            func.count(),
            func.count() - func.count(verdicts.c.label),
        ).where(verdicts.c.origin != WITHDRAWN)
        query = query.group_by(verdicts.c.kind, verdicts.c.by)
        rows = self._rows(query.order_by(verdicts.c.kind, verdicts.c.by))
        return [(kind, by, asked, given, unlabelled) for kind, by, asked, given, unlabelled in rows]

    def label_counts(self, teacher: str | None) -> LabelCounts:
        """How many questions have a label of a human and of a teacher, by split.

        Args:
            teacher: the model whose missing answers are counted.
        """
        answered = verdicts.c.kind.in_(
            ("human", "teacher")
        )  # also without a label: 'label' does not ask again by itself
        given = answered & verdicts.c.label.is_not(None)
        query = select(questions.c.split, verdicts.c.kind, func.count(func.distinct(questions.c.id)))
        query = query.join(verdicts, verdicts.c.question_id == questions.c.id).where(given)
        counts = {
            (split, kind): count
            for split, kind, count in self._rows(query.group_by(questions.c.split, verdicts.c.kind))
        }

        def without(*splits: Split, by: ColumnElement[bool]) -> int:
            found = select(verdicts.c.id).where(verdicts.c.question_id == questions.c.id, by).exists()
            missing = select(func.count()).select_from(questions).where(questions.c.split.in_(splits), ~found)
            (row,) = self._rows(missing)
            return int(row[0])

        asked = (verdicts.c.kind == "teacher") & (verdicts.c.by == teacher)
        return LabelCounts(counts, without("train", "dev", by=answered), without("test", by=asked))

    # --- drafts of generated questions

    def plan_drafts(self, new: Iterable[Draft]) -> None:
        """Store drafts before they are requested; the database assigns their ids."""
        rows = [{"round": d.round, "brief": d.brief, "task": d.task, "model": d.model, "answered": False} for d in new]
        with writing(self._engine) as connection:
            connection.execute(drafts.insert(), rows)

    def drafts(self) -> list[Draft]:
        """All drafts, in the order they were planned."""
        return [Draft(**row._mapping) for row in self._rows(select(drafts).order_by(drafts.c.id))]

    def drop_drafts(self, ids: Iterable[int]) -> None:
        """Delete drafts that were never answered; others stay."""
        with writing(self._engine) as connection:
            connection.execute(delete(drafts).where(drafts.c.id.in_(list(ids)), drafts.c.answered.is_(False)))

    def finish_drafts(
        self,
        outcomes: dict[int, dict[str, int]],
        new: Sequence[Question],
        intended: Iterable[Verdict],
        sketches: Mapping[str, bytes] = NO_SKETCHES,
    ) -> None:
        """Store the result of drafts in one transaction.

        Args:
            outcomes: the number of texts by outcome, by draft id.
            new: the questions that are kept.
            intended: the writer's verdicts on them: the labels they were written for.
            sketches: their sketches by question id, where known.
        """
        with writing(self._engine) as connection:
            _insert_questions(connection, new, sketches)
            insert_new(connection, verdicts, [verdict_row(verdict, import_key(verdict)) for verdict in intended])
            for draft_id, counts in outcomes.items():
                connection.execute(update(drafts).where(drafts.c.id == draft_id).values(outcomes=counts))

    # --- batches at a provider's batch API

    def add_batch(self, step: str, model: str, base_url: str | None) -> int:
        """Store a batch before it is submitted; returns its id."""
        row: dict[str, Any] = {
            "step": step,
            "model": model,
            "base_url": base_url,
            "jobs": {},
            "state": "new",
            "at": now(),
        }
        with writing(self._engine) as connection:
            return int(connection.execute(posted.insert().values(row).returning(posted.c.id)).scalar_one())

    def update_batch(self, batch_id: int, **values: Any) -> ProviderBatch:
        """Change columns of a batch; returns the batch."""
        columns = [column for column in posted.c if column.name != "at"]
        with writing(self._engine) as connection:
            row = connection.execute(
                update(posted).where(posted.c.id == batch_id).values(values).returning(*columns)
            ).one()
        return ProviderBatch(**row._mapping)

    def open_batches(self, step: str) -> list[ProviderBatch]:
        """The batches of a step whose results have not been fetched, oldest first."""
        columns = [column for column in posted.c if column.name != "at"]
        query = select(*columns).where(posted.c.step == step, posted.c.state != "ended").order_by(posted.c.id)
        return [ProviderBatch(**row._mapping) for row in self._rows(query)]

    def batch_keys(self, step: str, model: str | None = None) -> list[list[Any]]:
        """The keys of requests in batches that may be at the provider; of all models, or of one."""
        batches = [batch for batch in self.open_batches(step) if batch.state != "new" and model in (None, batch.model)]
        return [key for batch in batches for key in batch.jobs.values()]

    def batch_calls(self, batch_id: int) -> list[int]:
        """The ids of the calls that were reserved for a batch."""
        return [row.id for row in self._rows(select(calls.c.id).where(calls.c.posted == batch_id))]

    # --- helpers

    def _rows(self, query: Select[Any]) -> Iterator[Any]:
        with self._engine.connect() as connection:
            yield from connection.execute(query.execution_options(yield_per=BATCH))

    def _insert(self, table: Table, rows: Iterable[dict[str, Any]]) -> int:
        with writing(self._engine) as connection:
            return sum(insert_new(connection, table, batch) for batch in chunks(rows, BATCH))


def _in_order(query: Select[Any], splits: Sequence[Split]) -> Select[Any]:
    query = query.order_by(questions.c.at, questions.c.id)
    return query.where(questions.c.split.in_(splits)) if splits else query


def _insert_questions(connection: Connection, new: Sequence[Question], sketches: Mapping[str, bytes]) -> int:
    start = now()
    rows = [question_row(question, start + timedelta(microseconds=place)) for place, question in enumerate(new)]
    added = insert_new(connection, questions, rows)
    _insert_sketches(connection, [question.id for question in new], sketches)
    return added


def _insert_sketches(connection: Connection, ids: Sequence[str], found: Mapping[str, bytes]) -> None:
    rows = [{"question_id": key, "sketch": found[key]} for key in ids if key in found]
    insert_new(connection, sketches, rows)
