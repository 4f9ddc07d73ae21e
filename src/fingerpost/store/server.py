"""The database of `fingerpost serve`: files, fine-tuning jobs and their events, batches, API keys, the request log."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, Unpack

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, Table, and_, delete, func, or_, select, update

from fingerpost.core.errors import InputError
from fingerpost.store import tables
from fingerpost.store.engine import connect, disconnect, writing
from fingerpost.store.holders import LeaseHolders
from fingerpost.store.ledger import Ledger
from fingerpost.store.rows import insert_new
from fingerpost.store.server_rows import (
    BatchChanges,
    BatchRow,
    DecisionChanges,
    DecisionCounts,
    DecisionRow,
    EventLevel,
    EventRow,
    FileRow,
    JobChanges,
    JobError,
    JobRow,
    Json,
    KeyRow,
    LoggedTeacherReply,
    Mode,
    RepeatedPrompt,
    RequestLogEntry,
    ResponseRow,
    log_entry_values,
    to_batch,
    to_decision,
    to_event,
    to_file,
    to_job,
    to_key,
    to_log_entry,
    to_response,
)

DATABASE = "fingerpost.db"
SERVED = "served"
"""The folder of a project's server, inside the project."""
KEY_PREFIX = "sk-fp-"
DELETE_CHUNK = 2_000  # log entries deleted in one transaction
LOG_CHUNK = 1_000  # log entries read at once
JOB_WAITING = ("validating_files", "queued")
JOB_ACTIVE = (*JOB_WAITING, "running")
JOB_ENDED = ("succeeded", "failed", "cancelled")
BATCH_ENDED = ("completed", "failed", "cancelled", "expired")

RowT = TypeVar("RowT")


class _TypedTable(Generic[RowT]):
    """Reads and writes one table as dataclasses. Each method is one transaction."""

    def __init__(self, engine: Engine, table: Table, read: Callable[[RowMapping], RowT]) -> None:
        self._engine, self._table, self._read = engine, table, read
        self._columns = table.c
        self._cursor = table.c.id if "seq" in table.c and "id" in table.c else table.primary_key.columns[0]
        self._order = table.primary_key.columns[0]

    def insert(self, values: Mapping[str, Any]) -> RowT:
        with writing(self._engine) as connection:
            return self.insert_in(connection, values)

    def insert_in(self, connection: Connection, values: Mapping[str, Any]) -> RowT:
        """Insert within an open transaction."""
        query = self._table.insert().values(_plain(values)).returning(*self._columns)
        return self._read(connection.execute(query).one()._mapping)

    def get(self, row_id: str) -> RowT | None:
        return next(iter(self.select(self._columns.id == row_id)), None)

    def select(self, *conditions: ColumnElement[bool]) -> list[RowT]:
        """All rows that meet the conditions, oldest first."""
        query = select(self._table).where(*conditions).order_by(self._order)
        with self._engine.connect() as connection:
            return [self._read(row) for row in connection.execute(query).mappings()]

    def page(
        self,
        limit: int,
        after: str | int | None,
        newest_first: bool = True,
        conditions: Sequence[ColumnElement[bool]] = (),
        **equal: object,
    ) -> tuple[list[RowT], bool]:
        """Up to `limit` rows that follow the row `after`, and whether more follow. Ignores `equal` values of None."""
        order = self._order
        query = select(self._table).order_by(order.desc() if newest_first else order).limit(limit + 1)
        query = query.where(
            *conditions, *(self._columns[name] == value for name, value in equal.items() if value is not None)
        )
        if after is not None:
            start = select(order).where(self._cursor == after).scalar_subquery()
            query = query.where(order < start if newest_first else order > start)
        with self._engine.connect() as connection:
            rows = [self._read(row) for row in connection.execute(query).mappings()]
        return rows[:limit], len(rows) > limit

    def update(self, row_id: str | int, statuses: Collection[str] | None, values: Mapping[str, Any]) -> RowT | None:
        """Update a row if its status is one of `statuses`; returns the new row, or None where nothing was updated."""
        query = update(self._table).where(self._columns.id == row_id)
        if statuses is not None:
            query = query.where(self._columns.status.in_(statuses))
        with writing(self._engine) as connection:
            row = connection.execute(query.values(**_plain(values)).returning(*self._columns)).first()
        return None if row is None else self._read(row._mapping)

    def delete(self, row_id: str) -> None:
        with writing(self._engine) as connection:
            connection.execute(delete(self._table).where(self._columns.id == row_id))


class ServerStore:
    """The server's database. Safe to use from several threads and processes; each method is one transaction.

    Raises:
        InputError: on opening, if the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._engine = connect(path)
        self._holders = LeaseHolders(path)
        self.ledger = Ledger(self._engine, self._holders)
        self._files = _TypedTable(self._engine, tables.files, to_file)
        self._jobs = _TypedTable(self._engine, tables.jobs, to_job)
        self._events = _TypedTable(self._engine, tables.job_events, to_event)
        self._batches = _TypedTable(self._engine, tables.batches, to_batch)
        self._responses = _TypedTable(self._engine, tables.responses, to_response)
        self._decisions = _TypedTable(self._engine, tables.decisions, to_decision)
        self._keys = _TypedTable(self._engine, tables.keys, to_key)

    def close(self) -> None:
        disconnect(self._engine)
        self._holders.close()

    # --- files

    def add_file(self, file: FileRow) -> FileRow:
        return self._files.insert(_values(file))

    def get_file(self, file_id: str) -> FileRow | None:
        return self._files.get(file_id)

    def all_files(self) -> list[FileRow]:
        """All files, oldest first."""
        return self._files.select()

    def files_page(
        self, limit: int, after: str | None = None, newest_first: bool = True, purpose: str | None = None
    ) -> tuple[list[FileRow], bool]:
        """Up to `limit` files that follow the file with the id `after`, and whether more follow."""
        return self._files.page(limit, after, newest_first, purpose=purpose)

    def delete_file(self, file_id: str) -> None:
        self._files.delete(file_id)

    # --- fine-tuning jobs

    def add_job(self, job: JobRow, max_waiting: int, events: Sequence[str] = ()) -> JobRow | None:
        """Add a job with its first events; None where `max_waiting` jobs are waiting already."""
        with writing(self._engine) as connection:
            waiting = select(func.count()).where(tables.jobs.c.status.in_(JOB_WAITING))
            if connection.execute(waiting).scalar_one() >= max_waiting:
                return None
            added = self._jobs.insert_in(connection, _values(job))
            for message in events:
                self._events.insert_in(connection, _event_values(job.id, message, "info", None))
        return added

    def get_job(self, job_id: str) -> JobRow | None:
        return self._jobs.get(job_id)

    def change_job(
        self, job_id: str, statuses: Collection[str] | None = None, **changes: Unpack[JobChanges]
    ) -> JobRow | None:
        """Change a job if its status is one of `statuses`; returns the new row, or None where nothing was changed."""
        return self._jobs.update(job_id, statuses, changes)

    def fail_job(self, job_id: str, code: str, message: str, param: str | None = None) -> None:
        """End an active job with an error, and add the message as an event."""
        self.add_event(job_id, message, "error")
        error = JobError(code, message, param)
        self.change_job(job_id, JOB_ACTIVE, status="failed", finished_at=now(), error=error, estimated_finish=None)

    def jobs_page(
        self, limit: int, after: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> tuple[list[JobRow], bool]:
        """Up to `limit` jobs that follow the job with the id `after`, newest first, and whether more follow.

        Args:
            metadata: only jobs with all of these entries; with `{}`, only jobs without metadata.
        """
        if metadata is None:
            return self._jobs.page(limit, after)
        stored = tables.jobs.c.request["metadata"]
        conditions = [stored[key].as_string() == value for key, value in metadata.items()]
        return self._jobs.page(limit, after, conditions=conditions or [stored.as_string().is_(None)])

    def startable_jobs(self) -> list[JobRow]:
        """The jobs that wait and are not paused, oldest first."""
        return self._jobs.select(tables.jobs.c.status.in_(JOB_WAITING), tables.jobs.c.paused.is_(False))

    def jobs_by_status(self, *statuses: str) -> list[JobRow]:
        """All jobs in one of these states, oldest first."""
        return self._jobs.select(tables.jobs.c.status.in_(statuses))

    def job_of_model(self, model: str) -> JobRow | None:
        """The succeeded job that trained the model."""
        return next(iter(self._jobs.select(tables.jobs.c.model == model, tables.jobs.c.status == "succeeded")), None)

    def add_event(self, job_id: str, message: str, level: EventLevel = "info", data: Json | None = None) -> None:
        """Append an event to a job. An event with `data` is one of training metrics."""
        self._events.insert(_event_values(job_id, message, level, data))

    def has_event(self, job_id: str, number: int) -> bool:
        """Whether a job has the event with this number."""
        events = tables.job_events.c
        return bool(self._events.select(events.seq == number, events.job_id == job_id))

    def events_page(
        self, job_id: str, limit: int, after: int | None = None, kind: str | None = None
    ) -> tuple[list[EventRow], bool]:
        """Up to `limit` events of a job that follow the event number `after`, newest first, and whether more follow."""
        return self._events.page(limit, after, job_id=job_id, kind=kind)

    # --- batches

    def add_batch(self, batch: BatchRow) -> BatchRow:
        return self._batches.insert(_values(batch))

    def get_batch(self, batch_id: str) -> BatchRow | None:
        return self._batches.get(batch_id)

    def change_batch(
        self, batch_id: str, statuses: Collection[str] | None = None, **changes: Unpack[BatchChanges]
    ) -> BatchRow | None:
        """Change a batch if its status is one of `statuses`; returns the new row, or None where nothing was changed."""
        return self._batches.update(batch_id, statuses, changes)

    def batches_page(self, limit: int, after: str | None = None) -> tuple[list[BatchRow], bool]:
        """Up to `limit` batches that follow the batch with the id `after`, newest first, and whether more follow."""
        return self._batches.page(limit, after)

    def open_batches(self) -> list[BatchRow]:
        """The batches that have not ended, oldest first."""
        return self._batches.select(tables.batches.c.status.not_in(BATCH_ENDED))

    # --- webhook

    def unannounced(self) -> list[JobRow | BatchRow | DecisionRow]:
        """Ended jobs and batches, and alarms, that the webhook was not told about, oldest first of each kind."""
        jobs, batches = tables.jobs.c, tables.batches.c
        return [
            *self._jobs.select(jobs.status.in_(JOB_ENDED), jobs.announced.is_(False)),
            *self._batches.select(batches.status.in_(BATCH_ENDED), batches.announced.is_(False)),
            *self._decisions.select(
                or_(tables.decisions.c.announced.is_(False), tables.decisions.c.upstream_announced.is_(False))
            ),
        ]

    def mark_announced(self, row: JobRow | BatchRow | DecisionRow) -> None:
        """Remember that the webhook was told."""
        if isinstance(row, DecisionRow):
            if row.upstream_announced:
                self.change_decision(row.id, announced=True)
            else:
                self.change_decision(row.id, upstream_announced=True)
        elif isinstance(row, JobRow):
            self.change_job(row.id, announced=True)
        else:
            self.change_batch(row.id, announced=True)

    # --- API keys

    def add_key(self, name: str) -> str:
        """Create a bearer key and return it. Only its SHA-256 is stored, which is safe for 32 random bytes.

        Raises:
            InputError: the name is taken.
        """
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        row = KeyRow(name, hash_key(key), f"{key[:9]}...{key[-4:]}", now())
        with writing(self._engine) as connection:
            if connection.execute(select(tables.keys.c.id).where(tables.keys.c.name == name)).first():
                raise InputError(f"a key named '{name}' exists already; choose another name")
            self._keys.insert_in(connection, _values(row))
        return key

    def all_keys(self) -> list[KeyRow]:
        """All keys including revoked ones, oldest first."""
        return self._keys.select()

    def revoke_key(self, name: str) -> None:
        """Revoke a key. A running server refuses it within seconds.

        Raises:
            InputError: no such key, or it is revoked already.
        """
        keys = tables.keys
        with writing(self._engine) as connection:
            query = update(keys).where(keys.c.name == name, keys.c.revoked_at.is_(None)).values(revoked_at=now())
            if not connection.execute(query).rowcount:
                raise InputError(f"there is no active key named '{name}'; list the keys with 'fingerpost keys list'")

    # --- responses

    def add_response(self, row: ResponseRow) -> None:
        self._responses.insert(_values(row))

    def get_response(self, response_id: str) -> ResponseRow | None:
        return self._responses.get(response_id)

    def delete_response(self, response_id: str) -> None:
        self._responses.delete(response_id)

    # --- decisions

    def add_decision(
        self, name: str, version: int, mode: Mode, place: Json, labels: list[str | int], prompt: str, model: str
    ) -> DecisionRow:
        """Add a decision, or a version of one."""
        return self._decisions.insert(
            {
                "name": name, "version": version, "created_at": now(), "mode": mode, "share": 1.0, "place": place,
                "labels": labels, "prompt": prompt, "model": model, "imported": 0, "training": {}, "monitor": {},
            }
        )  # fmt: skip

    def decisions(self) -> list[DecisionRow]:
        """All versions of all decisions, oldest first."""
        return self._decisions.select()

    def change_decision(self, decision_id: int, **changes: Unpack[DecisionChanges]) -> DecisionRow | None:
        """Change a decision; returns the new row, or None where there is none."""
        return self._decisions.update(decision_id, None, changes)

    def change_mode(self, decision_id: int, expected: Mode, **changes: Unpack[DecisionChanges]) -> DecisionRow | None:
        """Change a decision if it is in this mode; returns the new row, or None where nothing was changed."""
        decisions = tables.decisions
        query = update(decisions).where(decisions.c.id == decision_id, decisions.c.mode == expected)
        with writing(self._engine) as connection:
            row = connection.execute(query.values(**changes).returning(*decisions.c)).first()
        return None if row is None else to_decision(row._mapping)

    def get_panel(self, decision_id: int) -> Json | None:
        """The fixed panel of a decision, if it has one."""
        panels = tables.panels.c
        with self._engine.connect() as connection:
            return connection.execute(select(panels.panel).where(panels.decision == decision_id)).scalar()

    def put_panel(self, decision_id: int, panel: Json) -> None:
        """Store the fixed panel of a decision."""
        panels = tables.panels
        with writing(self._engine) as connection:
            known = connection.execute(
                update(panels).where(panels.c.decision == decision_id).values(panel=panel)
            ).rowcount
            if not known:
                connection.execute(panels.insert().values(decision=decision_id, panel=panel))

    def add_repeated_prompt(
        self, key: str, model: str, prompt: str, replies: int, labels: list[str], most: int
    ) -> None:
        """Add a prompt whose replies repeat, unless it is known or there are `most` already.

        Args:
            key: identifies the prompt: 64 hexadecimal digits.
        """
        table = tables.repeated_prompts
        row = {"key": key, "at": now(), "model": model, "prompt": prompt, "replies": replies, "labels": labels}
        with writing(self._engine) as connection:
            if connection.execute(select(func.count()).select_from(table)).scalar_one() < most:
                insert_new(connection, table, [row])

    def repeated_prompts(self) -> list[RepeatedPrompt]:
        """The prompts whose replies repeat, oldest first."""
        table = tables.repeated_prompts
        with self._engine.connect() as connection:
            rows = connection.execute(select(table).order_by(table.c.id)).all()
        return [RepeatedPrompt(row.at, row.model, row.prompt, row.replies, row.labels) for row in rows]

    def count_answers(self, decision_id: int, after: int) -> int:
        """The upstream answers of a decision that are logged with a higher id than `after`, also those without a label."""
        requests = tables.requests.c
        query = select(func.count()).where(
            requests.decision == decision_id, requests.id > after, requests.by != "student"
        )
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def decision_log(self, decision_id: int, after: int = 0) -> Iterator[tuple[int, RequestLogEntry]]:
        """The logged requests of a decision with a higher id than `after`, oldest first, with their ids; read while used."""
        requests = tables.requests
        query = (
            select(requests).where(requests.c.decision == decision_id, requests.c.id > after).order_by(requests.c.id)
        )
        with self._engine.connect() as connection:
            for row in connection.execute(query.execution_options(yield_per=LOG_CHUNK)).mappings():
                yield row["id"], to_log_entry(row)

    def decision_counts(self, decision_id: int) -> DecisionCounts:
        """How many requests of a decision are logged, and by whom they were answered."""
        requests = tables.requests.c
        by_student = requests.by == "student"
        labelled = and_(~by_student, requests.label.is_not(None))
        compared = and_(labelled, requests.student.is_not(None))
        cost = requests.teacher["usage"]["cost_usd"].as_float()
        query = select(
            func.count(),
            func.count().filter(by_student),
            func.count().filter(labelled),
            func.count().filter(compared),
            func.count().filter(and_(compared, requests.student == requests.label)),
            func.avg(requests.latency_s).filter(~by_student),
            func.avg(requests.latency_s).filter(by_student),
            func.avg(cost).filter(~by_student),
        ).where(requests.decision == decision_id)
        with self._engine.connect() as connection:
            return DecisionCounts(*connection.execute(query).one())

    def set_teacher_reply(self, request_id: str, decision_id: int, reply: LoggedTeacherReply) -> None:
        """Add the teacher's reply to a logged request of a decision that the student answered."""
        requests = tables.requests
        chosen = and_(requests.c.request_id == request_id, requests.c.decision == decision_id)
        query = update(requests).where(chosen).values(teacher=asdict(reply))
        with writing(self._engine) as connection:
            connection.execute(query)

    def delete_decision_log(self, decision_id: int, most: int) -> int:
        """Delete the oldest logged requests of a decision beyond `most`; returns how many."""
        requests = tables.requests
        kept = select(requests.c.id).where(requests.c.decision == decision_id).order_by(requests.c.id.desc())
        first = kept.offset(most).limit(1).scalar_subquery()
        with writing(self._engine) as connection:
            return int(
                connection.execute(
                    delete(requests).where(requests.c.decision == decision_id, requests.c.id <= first)
                ).rowcount
            )

    # --- request log

    def add_log_entries(self, entries: Sequence[RequestLogEntry]) -> None:
        with writing(self._engine) as connection:
            connection.execute(tables.requests.insert(), [log_entry_values(entry) for entry in entries])

    def log_entries(self) -> Iterator[RequestLogEntry]:
        """The whole request log, least confident first, read while it is used."""
        requests = tables.requests
        query = select(requests).order_by(requests.c.confidence, requests.c.id)
        with self._engine.connect() as connection:
            for row in connection.execute(query.execution_options(yield_per=LOG_CHUNK)).mappings():
                yield to_log_entry(row)

    def delete_log_entries(self, before: int) -> int:
        """Delete log entries and stored responses from before this time; returns how many. Other writers can write in between."""
        requests, responses = tables.requests, tables.responses
        return self._delete_old(requests, requests.c.at, before) + self._delete_old(
            responses, responses.c.created_at, before
        )

    def _delete_old(self, table: Table, at: ColumnElement[int], before: int) -> int:
        deleted = 0
        old = select(table.c.id).where(at < before).limit(DELETE_CHUNK)
        while True:
            with writing(self._engine) as connection:
                count = int(connection.execute(delete(table).where(table.c.id.in_(old))).rowcount)
            deleted += count
            if count < DELETE_CHUNK:
                return deleted


def _values(row: Any) -> Json:
    """A row to insert. Fields of None are left out, so that the database stores NULL."""
    return {name: value for name, value in asdict(row).items() if value is not None}


def _plain(values: Mapping[str, Any]) -> Json:
    """The values with dataclasses as JSON objects."""
    return {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in values.items()
    }


def _event_values(job_id: str, message: str, level: EventLevel, data: Json | None) -> Json:
    kind = "message" if data is None else "metrics"
    return {"job_id": job_id, "created_at": now(), "level": level, "kind": kind, "message": message, "data": data}


def hash_key(key: str) -> str:
    """Hexadecimal SHA-256 of a bearer key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def new_id(prefix: str) -> str:
    """A new id: the prefix, such as `file-`, and 24 random hexadecimal digits."""
    return prefix + secrets.token_hex(12)


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
