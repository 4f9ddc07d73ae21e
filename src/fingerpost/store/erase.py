"""Erases messages from a database, so that their bytes are gone from its file, too."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import OperationalError

from fingerpost.core.errors import InputError
from fingerpost.core.utils import chunks
from fingerpost.store.engine import connect, disconnect, explain, writing
from fingerpost.store.tables import drafts, questions, requests, sketches, verdicts

BATCH = 500
ERASED = "[erased]"
GUARD = "verdicts_are_never_removed"
"""The trigger that keeps every other command from removing a verdict."""


def erase_from_database(path: Path, matches: Callable[[str], bool], ids: set[str], texts: set[str]) -> Counter[str]:
    """Erase questions, verdicts, logged requests and drafts, and compact the file.

    Args:
        matches: whether a message is to be erased.
        ids: questions to erase, too; the ids of all erased ones are added.
        texts: the erased messages are added.

    Returns:
        The number of erased rows by table.

    Raises:
        InputError: another program uses the database for longer than a minute.
    """
    engine = connect(path)
    try:
        with engine.connect() as connection:
            for row in connection.execute(select(questions.c.id, questions.c.messages)):
                contents = [content for _, content in _turns(row.messages)]
                if row.id in ids or any(map(matches, contents)):
                    ids.add(row.id)
                    texts.update(content for content in contents if matches(content))
                    texts.add(contents[-1])
            logged = [
                row.id
                for row in connection.execute(select(requests.c.id, requests.c.messages))
                if any(matches(content) or content in texts for _, content in _turns(row.messages))
            ]
            written = list(connection.execute(select(drafts.c.id, drafts.c.brief, drafts.c.raw)))
        counts: Counter[str] = Counter()
        with writing(engine) as connection:
            connection.exec_driver_sql("PRAGMA secure_delete=ON")
            guard = connection.exec_driver_sql(f"SELECT sql FROM sqlite_master WHERE name = '{GUARD}'").scalar()
            if guard:
                connection.exec_driver_sql(f"DROP TRIGGER {GUARD}")
            for part in chunks(sorted(ids), BATCH):
                for name, table, column in (
                    ("labels", verdicts, verdicts.c.question_id),
                    ("sketches", sketches, sketches.c.question_id),
                    ("questions", questions, questions.c.id),
                ):
                    counts[name] += connection.execute(delete(table).where(column.in_(part))).rowcount
            for numbers in chunks(logged, BATCH):
                counts["logged requests"] += connection.execute(
                    delete(requests).where(requests.c.id.in_(numbers))
                ).rowcount
            for draft in written:
                brief, raw = _without(draft.brief, texts), _without(draft.raw, texts)
                if (brief, raw) != (draft.brief, draft.raw):
                    connection.execute(update(drafts).where(drafts.c.id == draft.id).values(brief=brief, raw=raw))
                    counts["requests for questions"] += 1
            if guard:
                connection.exec_driver_sql(str(guard))
        with engine.connect() as connection:
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return counts
    except OperationalError as error:
        raise InputError(f"{path}: {explain(error.orig, path.parent)}") from None
    finally:
        disconnect(engine)


def _turns(messages: Any) -> list[tuple[str, str]]:
    """(role, content) of stored messages."""
    return [
        (str(turn[0]), str(turn[1])) if isinstance(turn, list) else (turn["role"], turn["content"]) for turn in messages
    ]


def _without(value: Any, texts: set[str]) -> Any:
    """A stored value with the texts replaced, wherever they stand in it."""
    if value is None or not texts:
        return value
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    for text in texts:
        for form in (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]):
            written = written.replace(form, ERASED)
    return written if isinstance(value, str) else json.loads(written)
