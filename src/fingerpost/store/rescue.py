"""A consistent copy of a database in use, and a new database with what can be read of a damaged one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from fingerpost.core.errors import InputError
from fingerpost.store.engine import connect
from fingerpost.store.tables import metadata

ROWS = 500
"""Rows that are read at once."""
PROBES = 2_000
"""Places at which reading is tried again behind a damaged page."""
PARTS = ("", "-wal", "-shm")
"""The endings of the files of a database."""


def back_up(database: Path, target: Path) -> None:
    """Write a consistent copy of a database, also while other processes write to it.

    Raises:
        InputError: there is no database, or the target exists.
    """
    if not database.is_file():
        raise InputError(f"there is no database {database}; name the folder of a project or of a server")
    if target.exists():
        raise InputError(f"{target} exists; name a new file for the backup")
    unfinished = target.with_name(f".{target.name}.partial")
    try:
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(unfinished)) as copy:
            unfinished.chmod(0o600)
            source.backup(copy)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def repair(database: Path) -> tuple[dict[str, int], Path]:
    """Replace a damaged database by a new one with all rows that can be read; the damaged one is kept.

    Returns:
        The number of rows by table, and where the damaged database is.

    Raises:
        InputError: there is no database, or one that was damaged earlier is still there.
    """
    if not database.is_file():
        raise InputError(f"there is no database {database}; name the folder of a project or of a server")
    damaged, fresh = database.with_name(f"{database.name}.damaged"), database.with_name(f".{database.name}.repaired")
    if damaged.exists():
        raise InputError(f"{damaged} exists from an earlier repair; move it away first")
    for part in PARTS:
        Path(f"{fresh}{part}").unlink(missing_ok=True)
    connect(fresh).dispose()
    counts: dict[str, int] = {}
    with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(fresh)) as new:
        old.text_factory = lambda data: data.decode("utf-8", "replace")
        for table in metadata.sorted_tables:
            if table.name != "ledger":
                counts[table.name] = _copy(old, new, table.name)
        new.execute(
            "UPDATE ledger SET committed_usd = (SELECT coalesce(sum(coalesce(cost_usd, reserved_usd)), 0) FROM calls), "
            "settled = (SELECT coalesce(max(settled), 0) FROM calls)"
        )
        new.commit()
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for part in PARTS:
        if (file := Path(f"{database}{part}")).exists():
            file.replace(f"{damaged}{part}")
    fresh.replace(database)
    return counts, damaged


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> int:
    """Copy the readable rows of a table; returns their number."""
    wanted = [row[1] for row in new.execute(f"PRAGMA table_info({table})")]
    try:
        present = {row[1] for row in old.execute(f"PRAGMA table_info({table})")}
    except sqlite3.DatabaseError:
        return 0
    columns = [name for name in wanted if name in present]
    if not columns:
        return 0
    quoted = ", ".join(f'"{name}"' for name in columns)
    insert = f"INSERT OR IGNORE INTO {table} ({quoted}) VALUES ({', '.join('?' * len(columns))})"
    before = new.total_changes
    for rows in _readable(old, f"SELECT rowid, {quoted} FROM {table}"):
        for row in rows:
            try:
                new.execute(insert, row[1:])
            except sqlite3.DatabaseError:
                continue  # a value that the table refuses, such as a text in place of a number that is required
    return new.total_changes - before


def _readable(old: sqlite3.Connection, select: str) -> Iterator[list[Any]]:
    """Rows from the start up to a damaged page, from the end back to one, and from some places between them."""
    low, whole = yield from _walk(old, f"{select} WHERE rowid > ? ORDER BY rowid LIMIT {ROWS}", -(2**63))
    if whole:
        return
    high, _ = yield from _walk(old, f"{select} WHERE rowid < ? ORDER BY rowid DESC LIMIT {ROWS}", 2**63 - 1)
    low, high = max(low, 0), min(high, 2**31)
    for start in range(low + 1, high, max(1, (high - low) // PROBES)):
        yield from _walk(old, f"{select} WHERE rowid > ? ORDER BY rowid LIMIT 1", start, limit=high)


def _walk(old: sqlite3.Connection, query: str, start: int, limit: int = 2**63 - 1) -> Any:
    """Yields rows from `start` on; returns the last rowid that was read, and whether the table was read to its end."""
    while True:
        rows = []
        try:
            for row in old.execute(query, (start,)):
                rows.append(row)
                start = row[0]
        except (sqlite3.DatabaseError, OverflowError):
            yield rows
            return start, False
        yield rows
        if not rows or start >= limit:
            return start, True
