"""Erases a person's message from what a project and its server keep, and says what was found where."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fingerpost.core.errors import InputError
from fingerpost.core.text import content_text, normalise, question_id
from fingerpost.core.types import Conversation, Message
from fingerpost.data.files import read_rows
from fingerpost.data.formats import FileFormat, format_of_options
from fingerpost.store.erase import erase_from_database, find_questions
from fingerpost.store.server import DATABASE, SERVED
from fingerpost.students.folder import DEV_ANSWERS, MANIFEST, TRAIN_ANSWERS, TRAINED_ON, read_manifest, write_manifest
from fingerpost.task.settings import Task

ID = re.compile(r"(?:q-)?([0-9a-f]{16})")
LEFT_BEHIND = ("*.damaged*", "*.unstored-*")
"""Files beside a database that may hold messages: what `repair` keeps, and answers that could not be stored."""


@dataclass(slots=True)
class Receipt:
    """What was erased.

    Attributes:
        erased_at: ISO 8601 time.
        ids: ids of the erased questions; each is a hash of the message.
        erased: number of erased records by what they were, such as `labels`.
        changed_files: files that were rewritten or deleted.
        models_to_retrain: models that were trained on the message.
        files_still_containing: files that hold the message and are not the project's own to change.
    """

    erased_at: str
    ids: list[str] = field(default_factory=list)
    erased: dict[str, int] = field(default_factory=dict)
    changed_files: list[str] = field(default_factory=list)
    models_to_retrain: list[str] = field(default_factory=list)
    files_still_containing: list[str] = field(default_factory=list)


def forget(
    folder: Path, task: Task | None, target: str, *, containing: bool = False, served: Path | None = None
) -> Receipt:
    """Erase a message from the project's database, its embeddings, models' lists and reports, and the server's log and files.

    After an error, it can be called again: the project's database is changed last.

    Args:
        folder: the project's folder.
        task: the project's task, for its data files, which are only searched.
        target: the id of a question, or the message. Upper and lower case and spaces make no difference.
        containing: erase every message that contains the target, such as an e-mail address.
        served: the server's folder; default is `served` in the project's.

    Raises:
        InputError: the target is too short, nothing is found, or another program uses the database.
    """
    wanted = normalise(target)
    if len(wanted) < 3:
        raise InputError("the message to forget is too short; give at least three characters")
    named = None if containing else ID.fullmatch(target.strip())
    ids = {named[1]} if named else {question_id((Message("user", target),))}

    def matches(text: str) -> bool:
        return named is None and (wanted in normalise(text) if containing else normalise(text) == wanted)

    def is_wanted(turns: Conversation) -> bool:
        return any(matches(turn.content) for turn in turns) or (bool(turns) and question_id(turns) in ids)

    receipt = Receipt(datetime.now(UTC).isoformat(timespec="seconds"))
    served = served or folder / SERVED
    decisions = sorted(file.parent for file in served.glob(f"decisions/*/{DATABASE}"))
    databases = [file for place in (served, *decisions, folder) if (file := place / DATABASE).is_file()]
    found: dict[str, Conversation] = {}
    for database in databases:
        found |= find_questions(database, is_wanted)
    ids |= found.keys()
    counts: Counter[str] = Counter()
    for file in [file for place in (folder, *decisions) for file in sorted((place / "cache").glob("vectors-*.npz"))]:
        counts["embeddings"] += _without_vectors(file, ids, receipt)
    models = [path for place in (folder, *decisions) for path in place.glob(f"models/*/{MANIFEST}")]
    for manifest in sorted([*models, *served.glob(f"models/*/{MANIFEST}")]):
        _forget_in_model(manifest.parent, ids, receipt)
    for file in sorted(served.glob("files/*")):
        counts["lines of uploaded files"] += _without_lines(file, is_wanted, matches, receipt)
    reports = [file for place in (folder, *decisions) for file in sorted((place / "reports").glob("report.*"))]
    for report in reports if found else ():
        report.unlink()  # it shows messages, shortened and escaped
        receipt.changed_files.append(f"{report} (deleted; 'fingerpost evaluate' writes it again)")
    for database in databases:
        counts += erase_from_database(database, found, matches)
    receipt.files_still_containing = [str(file) for file in _elsewhere(folder, served, task, is_wanted, found)]
    receipt.ids = sorted(found)
    receipt.erased = {name: count for name, count in counts.items() if count}
    if not receipt.erased and not receipt.changed_files and not receipt.models_to_retrain:
        raise InputError(
            "nothing was found; give the whole message, its id (as in 'review --export'), or part of it with --containing"
        )
    return receipt


def _elsewhere(
    folder: Path,
    served: Path,
    task: Task | None,
    is_wanted: Callable[[Conversation], bool],
    found: Mapping[str, Conversation],
) -> Iterator[Path]:
    """Files that hold the message and are not changed: the task's data, a recording, and what repairs left behind."""
    for data in task.data if task is not None else ():
        file = folder / data.file
        if file.is_file() and _data_holds(
            file, format_of_options(data.quote, data.encoding, data.delimiter), is_wanted
        ):
            yield file
    recorded = task.teacher.recorded if task is not None and task.teacher is not None else None
    others = [folder / recorded] if recorded else []
    others += [file for place in (folder, served) for pattern in LEFT_BEHIND for file in place.glob(pattern)]
    texts = [form for turns in found.values() for form in _written_forms(turns[-1].content)]
    for file in others:
        if file.is_file() and any(text in file.read_bytes() for text in texts):
            yield file


def _written_forms(text: str) -> list[bytes]:
    """A text as it stands in a file: as it is, and as JSON writes it."""
    return [form.encode() for form in (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1])]


def _data_holds(file: Path, form: FileFormat, is_wanted: Callable[[Conversation], bool]) -> bool:
    """Whether a row of a file of questions has the message; its content is not changed."""
    try:
        rows = (row.values for row in read_rows(file, form))
        return any(is_wanted((Message("user", text),)) for values in rows for text in _texts_in(values))
    except InputError:
        return False


def _without_vectors(file: Path, ids: set[str], receipt: Receipt) -> int:
    with np.load(file, allow_pickle=False) as archive:
        known, vectors = archive["ids"], archive["vectors"]
    keep = ~np.isin(known, sorted(ids))
    if keep.all():
        return 0
    unfinished = file.with_name(f".{file.name}")
    with unfinished.open("wb") as stream:
        np.savez(stream, ids=known[keep], vectors=vectors[keep])
    unfinished.replace(file)
    receipt.changed_files.append(str(file))
    return int((~keep).sum())


def _forget_in_model(folder: Path, ids: set[str], receipt: Receipt) -> None:
    """Remove the ids from a model's lists of training and dev rows."""
    changed: dict[Path, str] = {}
    for name in (TRAINED_ON, DEV_ANSWERS, TRAIN_ANSWERS):
        file = folder / name
        if file.is_file():
            lines = file.read_text(encoding="utf-8").split("\n")
            kept = [line for line in lines if not any(key in line for key in ids)]
            if len(kept) < len(lines):
                changed[file] = "\n".join(kept)
    if not changed:
        return
    manifest = read_manifest(folder)
    for file, content in changed.items():
        file.write_text(content, encoding="utf-8")
    write_manifest(folder, manifest)
    receipt.models_to_retrain.append(str(folder))


def _without_lines(
    file: Path, is_wanted: Callable[[Conversation], bool], matches: Callable[[str], bool], receipt: Receipt
) -> int:
    """Remove the lines of an uploaded JSONL file that have the message; returns their number."""
    lines = file.read_bytes().split(b"\n")
    kept = [line for line in lines if not _line_holds(line, is_wanted, matches)]
    if len(kept) < len(lines):
        unfinished = file.with_name(f".new-{file.name}")
        unfinished.write_bytes(b"\n".join(kept))
        unfinished.replace(file)
        receipt.changed_files.append(str(file))
    return len(lines) - len(kept)


def _line_holds(line: bytes, is_wanted: Callable[[Conversation], bool], matches: Callable[[str], bool]) -> bool:
    """Whether a line has the message, as a text or as a conversation up to the user's last message."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return matches(line.decode("utf-8", "replace"))
    if any(matches(text) for text in _texts_in(value)):
        return True
    body = value.get("body", value) if isinstance(value, dict) else {}
    messages = body.get("messages") if isinstance(body, dict) else None
    turns = tuple(
        Message(turn["role"], content_text(turn.get("content")))
        for turn in (messages if isinstance(messages, list) else [])
        if isinstance(turn, dict) and turn.get("role") in ("user", "assistant")
    )
    if turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    return is_wanted(turns)


def _texts_in(value: Any) -> Iterator[str]:
    """All strings in a value of JSON."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, dict):
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)
