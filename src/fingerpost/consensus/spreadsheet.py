"""The review queue as a CSV file, for colleagues with a spreadsheet, and their labels back into the project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fingerpost.consensus.review import ReviewQueue
from fingerpost.consensus.session import ReviewSession, UniformSample
from fingerpost.core.errors import InputError
from fingerpost.core.text import shorten
from fingerpost.core.types import Verdict
from fingerpost.core.verdicts import active
from fingerpost.data.files import read_rows
from fingerpost.data.formats import DEFAULT_FORMAT, FileFormat
from fingerpost.data.rows import Rejected
from fingerpost.data.writers import writing
from fingerpost.store.project import Store
from fingerpost.task.replies import resolve

COLUMNS = ("id", "text", "suggestion", "confidence", "label", "note")
"""`label` and `note` are filled in by people; the others are there for them to read."""
ID_PREFIX = "q-"
"""Before an id, because a spreadsheet takes ids such as 1234567890e12345 for numbers."""
NO_LABEL = "-"
"""What people write where no label fits."""


@dataclass(slots=True)
class SpreadsheetImport:
    """What came back from a spreadsheet.

    Attributes:
        answers: new labels.
        known: labels that the same reviewer had given before.
        blank: rows without a label.
        rejected: rows that cannot be used.
    """

    answers: int = 0
    known: int = 0
    blank: int = 0
    rejected: list[Rejected] = field(default_factory=list)


def export_queue(session: ReviewQueue | UniformSample, path: Path, limit: int) -> int:
    """Write the next questions of a session to a CSV file; returns their number.

    Cells that a spreadsheet would run as formulas get an apostrophe.
    """
    rows: list[dict[str, Any]] = []
    while len(rows) < limit and (card := session.next()) is not None:
        if isinstance(session, ReviewQueue):
            session.skip(card.question)
        label, probability = card.suggestions[0] if card.suggestions else ("", None)
        text = "\n".join(f"{turn.role}: {turn.content}" for turn in card.question.messages[:-1])
        text += ("\n" if text else "") + card.question.messages[-1].content
        confidence = "" if probability is None else round(probability, 3)
        rows.append(
            dict(zip(COLUMNS, (f"{ID_PREFIX}{card.question.id}", text, label, confidence, "", ""), strict=True))
        )
    with writing(path, safe_csv=True, encoding="utf-8-sig") as writer:
        writer.write(rows)
    return len(rows)


def import_labels(
    session: ReviewSession, store: Store, path: Path, form: FileFormat = DEFAULT_FORMAT
) -> SpreadsheetImport:
    """Store the labels of a filled-in spreadsheet as the reviewer's decisions. Importing it again changes nothing.

    Raises:
        InputError: the file cannot be read, or has no columns `id` and `label`.
    """
    done = SpreadsheetImport()
    verdicts = store.verdicts()
    for row in read_rows(path, form):
        if row.error:
            done.rejected.append(Rejected(row.line, row.error))
            continue
        values = {name.strip().lower(): value for name, value in row.values.items()}
        if not {"id", "label"} <= values.keys():
            raise InputError(f"{path} has no columns id and label; fill in a file of 'fingerpost review --export'")
        given = str(values["label"] or "").strip()
        if not given:
            done.blank += 1
            continue
        label = None if given == NO_LABEL else resolve(session.task, given)
        (question,) = store.questions_by_id([str(values["id"]).removeprefix(ID_PREFIX)]) or (None,)
        if question is None:
            done.rejected.append(Rejected(row.line, f"the project has no question '{shorten(str(values['id']), 20)}'"))
        elif label is None and given != NO_LABEL:
            reason = f"unknown label '{shorten(given, 40)}'; write one of the task's, or {NO_LABEL} where none fits"
            done.rejected.append(Rejected(row.line, reason))
        elif _already_labelled(session.by, label, active(verdicts.get(question.id, []))):
            done.known += 1
        else:
            session.answer(question, label, str(values.get("note") or "").strip() or None)
            done.answers += 1
    return done


def _already_labelled(by: str, label: str | None, given: Sequence[Verdict]) -> bool:
    """Whether this label is the reviewer's latest one."""
    own = [verdict for verdict in given if verdict.kind == "human" and verdict.by == by]
    return bool(own) and own[-1].label == label
