"""Erases a person's message from everything that a project and its server keep, and says what was found where."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fingerpost.core.errors import InputError
from fingerpost.core.text import normalise
from fingerpost.data.files import read_rows
from fingerpost.data.formats import FileFormat, format_of_options
from fingerpost.store.erase import erase_from_database
from fingerpost.store.server import DATABASE, SERVED
from fingerpost.students.folder import DEV_ANSWERS, MANIFEST, TRAIN_ANSWERS, TRAINED_ON, read_manifest, write_manifest
from fingerpost.task.settings import Task

ID = re.compile(r"[0-9a-f]{16}")


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

    Args:
        folder: the project's folder.
        task: the project's task, for its data files, which are only searched.
        target: the id of a question, or the message. Upper and lower case and spaces make no difference.
        containing: erase every message that contains the target, such as an e-mail address.
        served: the server's folder; default is `served` in the project's.

    Raises:
        InputError: the target is empty, nothing is found, or another program uses the database.
    """
    wanted = normalise(target)
    if len(wanted) < 3:
        raise InputError("the message to forget is too short; give at least three characters")
    is_id = bool(ID.fullmatch(target)) and not containing

    def matches(text: str) -> bool:
        return not is_id and (wanted in normalise(text) if containing else normalise(text) == wanted)

    receipt = Receipt(datetime.now(UTC).isoformat(timespec="seconds"))
    ids: set[str] = {target} if is_id else set()
    texts: set[str] = set()
    counts: Counter[str] = Counter()
    served = served or folder / SERVED
    for database in (folder / DATABASE, served / DATABASE):
        if database.is_file():
            counts += erase_from_database(database, matches, ids, texts)

    def holds(text: str) -> bool:
        return matches(text) or text in texts

    for file in sorted((folder / "cache").glob("vectors-*.npz")):
        counts["embeddings"] += _without_vectors(file, ids, receipt)
    for manifest in sorted([*folder.glob(f"models/*/{MANIFEST}"), *served.glob(f"*/*/{MANIFEST}")]):
        _forget_in_model(manifest.parent, ids, receipt)
    for file in sorted(served.glob("files/*")):
        counts["lines of uploaded files"] += _without_lines(file, holds, receipt)
    for report in sorted((folder / "reports").glob("report.*")):
        if any(_in_text(text, report.read_text(encoding="utf-8", errors="replace")) for text in texts):
            report.unlink()
            receipt.changed_files.append(f"{report} (deleted; 'fingerpost evaluate' writes it again)")
    for data in task.data if task is not None else ():
        file = folder / data.file
        if file.is_file() and _data_holds(file, format_of_options(data.quote, data.encoding, data.delimiter), holds):
            receipt.files_still_containing.append(str(file))
    receipt.ids = sorted(ids) if counts["questions"] or receipt.models_to_retrain else []
    receipt.erased = {name: count for name, count in counts.items() if count}
    if not receipt.erased and not receipt.changed_files:
        raise InputError(
            "nothing was found; give the whole message, its id (as in 'review --export'), or part of it with --containing"
        )
    return receipt


def _data_holds(file: Path, form: FileFormat, holds: Callable[[str], bool]) -> bool:
    """Whether a cell of a file of questions has the message; its content is not changed."""
    try:
        return any(
            holds(text) for row in read_rows(file, form) for value in row.values.values() for text in _texts_in(value)
        )
    except InputError:
        return False


def _in_text(text: str, content: str) -> bool:
    """Whether a file holds the text, as it is or as JSON writes it."""
    return any(form in content for form in (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]))


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
    removed = False
    for name in (TRAINED_ON, DEV_ANSWERS, TRAIN_ANSWERS):
        file = folder / name
        if file.is_file():
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if not any(key in line for key in ids)]
            if len(kept) < len(lines):
                manifest = read_manifest(folder)
                file.write_text("".join(kept), encoding="utf-8")
                write_manifest(folder, manifest)
                removed = True
    if removed:
        receipt.models_to_retrain.append(str(folder))


def _without_lines(file: Path, holds: Callable[[str], bool], receipt: Receipt) -> int:
    """Remove the lines of an uploaded JSONL file that have the message; returns their number."""
    lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
    kept = [line for line in lines if not any(map(holds, _strings(line)))]
    if len(kept) < len(lines):
        unfinished = file.with_name(f".new-{file.name}")
        unfinished.write_text("".join(kept), encoding="utf-8", errors="surrogateescape")
        unfinished.replace(file)
        receipt.changed_files.append(str(file))
    return len(lines) - len(kept)


def _strings(line: str) -> Iterator[str]:
    """All strings in a line of JSON; the line itself where it is none."""
    try:
        yield from _texts_in(json.loads(line))
    except (ValueError, RecursionError):
        yield line


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
