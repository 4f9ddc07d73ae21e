"""Open and migrate the database: one SQLite file that several processes may use at once.

All queries go through SQLAlchemy. What is specific to SQLite is in this module.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError

from fingerpost.core.errors import InputError
from fingerpost.store.tables import HEAD

LOCK_S = 60.0
"""Seconds that a transaction waits for the lock of another one."""
FULL_BYTES = 200_000
"""With less free space, an input or output error of the database is taken for a full disk."""


def connect(path: Path) -> Engine:
    """An engine for the file, which is created or migrated where needed.

    Raises:
        InputError: the file is not a database, cannot be written, or was written by a newer version.
    """
    if not path.exists():  # to close a file that is there would end the locks that SQLite has on it in this process
        with suppress(OSError):  # the message below says what is wrong
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # it holds people's messages
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": LOCK_S, "check_same_thread": False})
    event.listen(engine, "connect", _prepare)
    try:
        with engine.connect() as connection:
            if _version(connection) != HEAD:
                _migrate(engine)
    except DatabaseError as error:
        engine.dispose()
        raise InputError(f"{path}: {explain(error.orig, path.parent)}") from None
    return engine


def explain(error: object, folder: Path) -> str:
    """What an error of SQLite means, and what to do about it.

    Args:
        folder: where the database is, or probably is.
    """
    found = str(error)
    if "full" in found or ("I/O error" in found and shutil.disk_usage(folder).free < FULL_BYTES):
        return "the disk is full; free some space and run the command again"
    if "locked" in found:
        return "another program has locked the database for a minute; end it and run the command again"
    if "readonly" in found or "unable to open" in found:
        return f"the database cannot be opened for writing ({found}); check the rights of its file and folder"
    return f"the database is damaged ({found}); save what can be read with 'fingerpost repair', or restore a backup"


def disconnect(engine: Engine) -> None:
    """Close all connections. Before that, the write-ahead log is moved into the database file as far as others allow it."""
    if engine.dialect.name == "sqlite":
        with suppress(DatabaseError), engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
    engine.dispose()


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that takes the write lock at once, so that a second writer waits instead of failing half-way."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            _finish(connection, "ROLLBACK")
            raise
        _finish(connection, "COMMIT")


def _finish(connection: Connection, how: str) -> None:
    if connection.engine.dialect.name == "sqlite":
        connection.exec_driver_sql(how)
    elif how == "COMMIT":
        connection.commit()


def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # `writing` begins the transactions, not the driver
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")  # a killed process loses no committed data
    connection.execute("PRAGMA foreign_keys=ON")


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar())


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with writing(engine) as connection:
        version = _version(connection)  # another process may have migrated it in the meantime
        if version is not None and version > HEAD:
            raise InputError(
                f"the database was written by a newer version (format {version}); update with pip install -U fingerpost"
            )
        if version != HEAD:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
