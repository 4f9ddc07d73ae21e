"""Which decision, and which version of it, a request belongs to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fingerpost.server.loop.projects import overlap
from fingerpost.server.loop.recognition import Recognised
from fingerpost.server.schemas import Json
from fingerpost.store.server_rows import DecisionRow

SAME_LABELS = 0.5
"""How much the labels of two requests have to overlap (Jaccard) for the same decision."""


@dataclass(frozen=True, slots=True)
class Sought:
    """What a request says of its decision, as it would be stored. `named`: by a header."""

    name: str
    named: bool
    place: Json
    labels: list[str | int]
    prompt: str
    model: str


def is_version_of(row: DecisionRow, sought: Sought) -> bool:
    """Whether a row is a version of the decision in a request."""
    if row.place != sought.place or not re.fullmatch(rf"{re.escape(sought.name)}(-\d+)?", row.name):
        return False
    return sought.named or overlap(set(row.labels), set(sought.labels)) >= SAME_LABELS


def slug(name: str) -> str:
    """A name that can be a folder's: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "decision"


def stored_place(recognised: Recognised, named: bool) -> Json:
    """Where a reply has its label, as it is stored."""
    place = recognised.place
    stored: Json = {"path": list(place.path), "tool": place.tool, "by_tool": place.by_tool, "named": named}
    if recognised.is_question:
        stored |= {"question": True}
    return stored | {"ordinal": True} if recognised.ordinal else stored
