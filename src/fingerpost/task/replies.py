"""The label that a reply names."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from fingerpost.core.text import canonical_name, strip_code_fence
from fingerpost.task.settings import Task


def parse(task: Task, raw: str | None) -> str | None:
    """The label that a reply names, or None. Nothing is guessed from prose.

    Taken are: a JSON object with the answer field (or with one field only), a JSON string or number, or the
    bare label; in a code fence or not; the name or the code, whatever the case and punctuation.
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
    """The name of the label that a name or a code stands for, or None."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    exact, folded = _names(task)
    return exact.get(str(value).strip()) or folded.get(canonical_name(str(value)))


@lru_cache(maxsize=32)
def _names(task: Task) -> tuple[dict[str, str], dict[str, str]]:
    exact = {str(label.code): label.name for label in task.labels if label.code is not None}
    exact |= {label.name: label.name for label in task.labels}
    folded: dict[str, str] = {}
    for name in task.names:
        key = canonical_name(name)
        folded[key] = "" if key in folded else name  # two names that fold alike: neither is recognised so
    return exact, {key: name for key, name in folded.items() if key and name}
