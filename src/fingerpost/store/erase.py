"""Finds and erases messages in a database, so that their bytes are gone from its file, too."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, delete, select, update
from sqlalchemy.exc import OperationalError

from fingerpost.core.errors import InputError
from fingerpost.core.text import normalise, question_id
from fingerpost.core.types import Conversation, Message
from fingerpost.core.utils import chunks
from fingerpost.store.engine import connect, disconnect, explain, writing
from fingerpost.store.tables import (
    drafts,
    panels,
    questions,
    repeated_prompts,
    requests,
    responses,
    sketches,
    verdicts,
)

BATCH = 500
WAIT_MS = 5_000
"""How long to wait for other programs before the file is compacted."""
ERASED = "[erased]"
GUARD = "verdicts_are_never_removed"
"""The trigger that keeps every other command from removing a verdict."""


def find_questions(path: Path, wanted: Callable[[Conversation], bool]) -> dict[str, Conversation]:
    """The questions of a database that are to be erased, by id; of logged requests, too.

    Args:
        wanted: whether a conversation is to be erased.
    """
    engine = connect(path)
    try:
        with engine.connect() as connection:
            stored = connection.execute(select(questions.c.messages)).scalars()
            logged = connection.execute(select(requests.c.messages)).scalars()
            found = [turns for part in (stored, logged) for messages in part if wanted(turns := conversation(messages))]
        return {question_id(turns): turns for turns in found}
    finally:
        disconnect(engine)


def erase_from_database(path: Path, found: Mapping[str, Conversation], wanted: Callable[[str], bool]) -> Counter[str]:
    """Erase questions with their labels, logged requests and drafts, and compact the file.

    Args:
        found: the questions, by id.
        wanted: whether a text of a draft, such as an example of style, is to be erased.

    Returns:
        The number of erased rows by what they were.

    Raises:
        InputError: another program has the database open, so that bytes stay in its files until that program ends.
    """
    engine = connect(path)
    try:
        counts = _erase_rows(engine, found, wanted)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={WAIT_MS}")
            connection.exec_driver_sql("VACUUM")
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
        if busy:
            raise InputError(
                f"{path} is open in another program, such as a server, so that old bytes are still in its files; end that "
                "program and run the command again"
            )
        return counts
    except OperationalError as error:
        raise InputError(f"{path}: {explain(error.orig, path.parent)}") from None
    finally:
        disconnect(engine)


def conversation(messages: Any) -> Conversation:
    """Stored messages as a conversation."""
    return tuple(
        Message(str(turn[0]), str(turn[1])) if isinstance(turn, list) else Message(turn["role"], turn["content"])
        for turn in messages
    )


def _erase_rows(engine: Engine, found: Mapping[str, Conversation], wanted: Callable[[str], bool]) -> Counter[str]:
    with engine.connect() as connection:
        rows = connection.execute(select(requests.c.id, requests.c.messages))
        logged = [row.id for row in rows if question_id(conversation(row.messages)) in found]
        written = list(connection.execute(select(drafts.c.id, drafts.c.brief, drafts.c.raw)))
    texts = {normalise(turns[-1].content) for turns in found.values()}
    with engine.connect() as connection:
        kept = connection.execute(select(responses.c.id, responses.c.input, responses.c.response))
        answered = [
            row.id for row in kept if any(_without(part, texts, wanted) != part for part in (row.input, row.response))
        ]
    with engine.connect() as connection:
        prompts = connection.execute(select(repeated_prompts.c.id, repeated_prompts.c.prompt)).all()
        kept_panels = connection.execute(select(panels.c.decision, panels.c.panel)).all()
    shown = [row.id for row in prompts if _without(row.prompt, texts, wanted) != row.prompt]
    counts: Counter[str] = Counter()
    with writing(engine) as connection:
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
        guard = connection.exec_driver_sql(f"SELECT sql FROM sqlite_master WHERE name = '{GUARD}'").scalar()
        if guard:
            connection.exec_driver_sql(f"DROP TRIGGER {GUARD}")
        for part in chunks(sorted(found), BATCH):
            for name, table, column in (
                ("labels", verdicts, verdicts.c.question_id),
                ("sketches", sketches, sketches.c.question_id),
                ("questions", questions, questions.c.id),
            ):
                counts[name] += connection.execute(delete(table).where(column.in_(part))).rowcount
        for numbers in chunks(logged, BATCH):
            removed = connection.execute(delete(requests).where(requests.c.id.in_(numbers)))
            counts["logged requests"] += removed.rowcount
        for ids in chunks(answered, BATCH):
            removed = connection.execute(delete(responses).where(responses.c.id.in_(ids)))
            counts["stored responses"] += removed.rowcount
        removed = connection.execute(delete(repeated_prompts).where(repeated_prompts.c.id.in_(shown)))
        counts["repeated prompts"] += removed.rowcount
        for row in kept_panels:
            panel = _panel_without(row.panel, texts, wanted)
            if gone := len(row.panel["requests"]) - len(panel["requests"]):
                connection.execute(update(panels).where(panels.c.decision == row.decision).values(panel=panel))
                counts["panel requests"] += gone
        for draft in written:
            brief, raw = _without(draft.brief, texts, wanted), _reply_without(draft.raw, texts, wanted)
            if (brief, raw) != (draft.brief, draft.raw):
                connection.execute(update(drafts).where(drafts.c.id == draft.id).values(brief=brief, raw=raw))
                counts["requests for questions"] += 1
        if guard:
            connection.exec_driver_sql(str(guard))
    return counts


def _panel_without(panel: dict[str, Any], texts: set[str], wanted: Callable[[str], bool]) -> dict[str, Any]:
    """The panel of a decision without the requests that hold one of the texts."""
    requests = panel["requests"]
    kept = [i for i, request in enumerate(requests) if _without(request["body"], texts, wanted) == request["body"]]
    repeated = panel["repeated"] and [panel["repeated"][i] for i in kept]
    return {**panel, "requests": [requests[i] for i in kept], "repeated": repeated}


def _without(value: Any, texts: set[str], wanted: Callable[[str], bool]) -> Any:
    """A value of JSON in which the texts are replaced. Other texts, and the names of fields, stay."""
    if isinstance(value, str):
        return ERASED if normalise(value) in texts or wanted(value) else value
    if isinstance(value, dict):
        if normalise(json.dumps(value, ensure_ascii=False)) in texts:  # a `state`, as a student reads it
            return ERASED
        return {key: _without(part, texts, wanted) for key, part in value.items()}
    return [_without(part, texts, wanted) for part in value] if isinstance(value, list) else value


def _reply_without(raw: str | None, texts: set[str], wanted: Callable[[str], bool]) -> str | None:
    """A model's reply without the texts; all of it is replaced where it is no JSON and holds one."""
    if raw is None:
        return None
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        held = normalise(raw)
        return ERASED if wanted(raw) or any(text in held for text in texts) else raw
    changed = _without(value, texts, wanted)
    return raw if changed == value else json.dumps(changed, ensure_ascii=False)
