"""What `fingerpost serve` keeps in its database: files, jobs with their events, batches, keys, and what was asked."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import Table, delete, func, select, update

from fingerpost.core.errors import InputError
from fingerpost.store.engine import connect, writing
from fingerpost.store.ledger import Ledger
from fingerpost.store.tables import batches, files, job_events, jobs, keys, requests

Record: TypeAlias = dict[str, Any]
"""A row by column name."""

DATABASE = "fingerpost.db"
KEY_PREFIX = "sk-fp-"
FORGET = 2_000  # requests are deleted in one transaction
ALIVE = ("validating_files", "queued", "running")
ENDED = ("succeeded", "failed", "cancelled")
BATCH_ENDED = ("completed", "failed", "cancelled", "expired")
FILES, JOBS, EVENTS, BATCHES = files, jobs, job_events, batches


class ServerStore:
    """The server's database. Safe from several threads and processes; each method is one transaction.

    Raises:
        InputError: on opening, if the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._engine = connect(path)
        self.ledger = Ledger(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    # --- rows of any of the tables

    def add(self, table: Table, record: Record) -> Record:
        """Insert a row; returns it."""
        with writing(self._engine) as connection:
            row = connection.execute(table.insert().values(record).returning(*table.c)).one()
        return dict(row._mapping)

    def get(self, table: Table, key: str) -> Record | None:
        """The row with this id."""
        with self._engine.connect() as connection:
            row = connection.execute(select(table).where(table.c.id == key)).first()
        return dict(row._mapping) if row else None

    def page(
        self, table: Table, limit: int, after: str | None = None, newest_first: bool = True, **where: Any
    ) -> tuple[list[Record], bool]:
        """Up to `limit` rows behind the row `after`, and whether more follow. A value None of `where` does not count."""
        query = select(table).order_by(table.c.seq.desc() if newest_first else table.c.seq).limit(limit + 1)
        for column, value in where.items():
            if value is not None:
                query = query.where(table.c[column] == value)
        if after is not None:
            key = table.c.id if "id" in table.c else table.c.seq
            cursor = select(table.c.seq).where(key == after).scalar_subquery()
            query = query.where(table.c.seq < cursor if newest_first else table.c.seq > cursor)
        with self._engine.connect() as connection:
            found = [dict(row._mapping) for row in connection.execute(query)]
        return found[:limit], len(found) > limit

    def change(self, table: Table, key: str, statuses: Collection[str] | None = None, **values: Any) -> Record | None:
        """Update the row with this id, if its status is one of `statuses`; returns it, or None where it is not."""
        query = update(table).where(table.c.id == key)
        if statuses is not None:
            query = query.where(table.c.status.in_(statuses))
        with writing(self._engine) as connection:
            row = connection.execute(query.values(**values).returning(*table.c)).first()
        return dict(row._mapping) if row else None

    def remove(self, table: Table, key: str) -> bool:
        """Delete the row with this id; whether there was one."""
        with writing(self._engine) as connection:
            return bool(connection.execute(delete(table).where(table.c.id == key)).rowcount)

    # --- jobs and batches

    def add_job(self, record: Record, most_waiting: int, events: Sequence[str] = ()) -> Record | None:
        """Take a job, with its first events, unless so many wait already."""
        with writing(self._engine) as connection:
            waiting = select(func.count()).where(jobs.c.status.in_(["validating_files", "queued"]))
            if connection.execute(waiting).scalar_one() >= most_waiting:
                return None
            row = connection.execute(jobs.insert().values(record).returning(*jobs.c)).one()
            for message in events:
                connection.execute(job_events.insert().values(_event(row.id, message, "info", None)))
        return dict(row._mapping)

    def waiting_jobs(self) -> list[Record]:
        """The jobs that can be begun, the oldest first."""
        query = select(jobs).where(jobs.c.status.in_(["validating_files", "queued"]), jobs.c.paused.is_(False))
        return self._all(query.order_by(jobs.c.seq))

    def jobs_with(self, *statuses: str) -> list[Record]:
        """All jobs in one of these states, the oldest first."""
        return self._all(select(jobs).where(jobs.c.status.in_(statuses)).order_by(jobs.c.seq))

    def job_of_model(self, name: str) -> Record | None:
        """The succeeded job that made the model."""
        with self._engine.connect() as connection:
            query = select(jobs).where(jobs.c.model == name, jobs.c.status == "succeeded")
            row = connection.execute(query).first()
        return dict(row._mapping) if row else None

    def open_batches(self) -> list[Record]:
        """The batches that have not ended, the oldest first."""
        return self._all(select(batches).where(batches.c.status.not_in(BATCH_ENDED)).order_by(batches.c.seq))

    def unannounced(self) -> list[tuple[Table, Record]]:
        """Jobs and batches that have ended and whose end has not been told yet."""
        found: list[tuple[Table, Record]] = []
        for table, ended in ((jobs, ENDED), (batches, BATCH_ENDED)):
            query = select(table).where(table.c.status.in_(ended), table.c.announced.is_(False)).order_by(table.c.seq)
            found += [(table, row) for row in self._all(query)]
        return found

    def tell(self, job_id: str, message: str, level: str = "info", data: Record | None = None) -> None:
        """Append an event to a job; with `data`, it is one of metrics."""
        self.add(job_events, _event(job_id, message, level, data))

    def fail(self, job_id: str, code: str, message: str, param: str | None = None) -> None:
        """End a job with the reason, in `error` and in an event."""
        self.tell(job_id, message, "error")
        error = {"code": code, "message": message, "param": param}
        self.change(jobs, job_id, ALIVE, status="failed", finished_at=now(), error=error, estimated_finish=None)

    # --- keys

    def add_key(self, name: str) -> str:
        """A new bearer key. It is kept as its SHA-256, which suffices as it is 32 random bytes: this is the only copy.

        Raises:
            InputError: the name is taken.
        """
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        record = {"name": name, "sha256": hash_key(key), "hint": f"{key[:9]}...{key[-4:]}", "created_at": now()}
        with writing(self._engine) as connection:
            if connection.execute(select(keys.c.id).where(keys.c.name == name)).first():
                raise InputError(f"there is a key '{name}' already; choose another name")
            connection.execute(keys.insert().values(record))
        return key

    def all_keys(self) -> list[Record]:
        """All keys, the revoked ones too, the oldest first."""
        return self._all(select(keys).order_by(keys.c.id))

    def revoke_key(self, name: str) -> None:
        """A running server refuses it within seconds.

        Raises:
            InputError: no such key.
        """
        with writing(self._engine) as connection:
            query = update(keys).where(keys.c.name == name, keys.c.revoked_at.is_(None)).values(revoked_at=now())
            if not connection.execute(query).rowcount:
                raise InputError(f"there is no key '{name}' to revoke; see 'fingerpost keys list'")

    # --- what was asked

    def log(self, rows: Sequence[Record]) -> None:
        """Append requests."""
        with writing(self._engine) as connection:
            connection.execute(requests.insert(), list(rows))

    def logged(self) -> list[Record]:
        """All requests that are kept, the least sure first."""
        return self._all(select(requests).order_by(requests.c.confidence, requests.c.id))

    def forget(self, before: int) -> int:
        """Delete the requests before this time, some at once so that others can write between; returns how many."""
        gone = 0
        old = select(requests.c.id).where(requests.c.at < before).limit(FORGET)
        while True:
            with writing(self._engine) as connection:
                found = int(connection.execute(delete(requests).where(requests.c.id.in_(old))).rowcount)
            gone += found
            if found < FORGET:
                return gone

    def _all(self, query: Any) -> list[Record]:
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]


def _event(job_id: str, message: str, level: str, data: Record | None) -> Record:
    kind = "message" if data is None else "metrics"
    return {"job_id": job_id, "created_at": now(), "level": level, "kind": kind, "message": message, "data": data}


def hash_key(key: str) -> str:
    """Hexadecimal SHA-256 of a bearer key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def new_id(prefix: str) -> str:
    """An id as the wire has them, such as `file-` and 24 characters."""
    return prefix + secrets.token_hex(12)


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
