"""Parses a model's reply into an answer: a label, or in a multi-label task a set of labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fingerpost.core.label_sets import join_labels, split_cell
from fingerpost.core.text import canonical_name, parse_json, strip_code_fence
from fingerpost.task.settings import Task


def parse(task: Task, raw: str | None) -> str | None:
    """The label that a reply names, or None if it names none. Labels within running text are not recognised.

    Accepted replies, with or without a code fence: a JSON object with the answer field (or with a single field), a JSON
    string or number, or the bare label. The label may be its name or code; case, spaces and punctuation are ignored.
    In a multi-label task the value is a list of labels, or one label; see `resolve`.
    """
    if raw is None:
        return None
    text = strip_code_fence(raw)
    try:
        value: Any = parse_json(text)
    except ValueError:
        value = text
    if isinstance(value, dict):
        value = value.get(task.answer_field, next(iter(value.values())) if len(value) == 1 else None)
    return resolve(task, value)


def label_probabilities(task: Task, values: Mapping[str, float] | None) -> dict[str, float] | None:
    """The probabilities of values as those of the labels that they name, which sum to 1; None where there are none."""
    found: dict[str, float] = {}
    for value, probability in (values or {}).items():
        if (label := resolve_label(task, value)) is not None:
            found[label] = found.get(label, 0.0) + probability
    total = sum(found.values())
    return {label: round(probability / total, 6) for label, probability in found.items()} if total > 0 else None


def resolve(task: Task, value: object) -> str | None:
    """The answer that a value states: the name of the label with this name or code, or None.

    In a multi-label task, `value` is a list, or a string in which `|`, `;` or `,` separates the labels; the result is the
    set of labels as one string (`core.label_sets`), or None where one of them is unknown. For an empty list it is the
    fallback, if the task has one.
    """
    if task.multi:
        found = [resolve_label(task, one) for one in _given(value)]
        if None in found or (not found and isinstance(value, str) and not value.strip()):
            return None
        return join_labels(name for name in found if name) if found or task.fallback is None else task.fallback
    return resolve_label(task, value)


def unknown_in(task: Task, value: object) -> str:
    """The first part of a value that is no label of the task; the whole value where there is none."""
    given = _given(value) if task.multi else [value]
    return str(next((one for one in given if resolve_label(task, one) is None), value))


def _given(value: object) -> list[Any]:
    """The parts of a value that states a set of labels."""
    return split_cell(value) if isinstance(value, str) else value if isinstance(value, list) else [value]


def resolve_label(task: Task, value: object) -> str | None:
    """The name of the one label with this name or code, or None."""
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
