"""Parses a model's reply into a label."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from fingerpost.core.text import canonical_name, strip_code_fence
from fingerpost.task.settings import Task


def parse(task: Task, raw: str | None) -> str | None:
    """The label that a reply names, or None if it names none. Labels within running text are not recognised.

    Accepted replies, with or without a code fence: a JSON object with the answer field (or with a single field), a JSON
    string or number, or the bare label. The label may be its name or code; case, spaces and punctuation are ignored.
    """
    if raw is None:
        return None
    text = strip_code_fence(raw)
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = text
    if isinstance(value, dict):
        value = value.get(task.answer_field, next(iter(value.values())) if len(value) == 1 else None)
    return resolve(task, value)


def resolve(task: Task, value: object) -> str | None:
    """The name of the label with this name or code, or None."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    exact, canonical = _label_index(task)
    return exact.get(str(value).strip()) or canonical.get(canonical_name(str(value)))


@lru_cache(maxsize=32)
def _label_index(task: Task) -> tuple[dict[str, str], dict[str, str]]:
    """Label names by exact name or code, and by canonical name."""
    exact = {str(label.code): label.name for label in task.labels if label.code is not None}
    exact |= {label.name: label.name for label in task.labels}
    canonical: dict[str, str] = {}
    for name in task.names:
        key = canonical_name(name)
        canonical[key] = "" if key in canonical else name  # ambiguous spellings match no label
    return exact, {key: name for key, name in canonical.items() if key and name}
