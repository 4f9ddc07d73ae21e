"""A reply that keeps the JSON schema that a request asks for: the label where the schema has labels, and true values elsewhere.

Beside the label there may be constants and defaults, a number for the confidence, a text for the reason, and fields that may be
left out, empty or null. What else is required cannot be filled in by a classifier: such a schema is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cachetools import LRUCache

from fingerpost.server.inference.json_schema import (
    CONFIDENCE_NAMES,
    REASON_NAMES,
    UnfillableError,
    allows_text,
    dotted,
    is_named,
    leaves,
    listed,
    literals,
    remembered,
    require_kept,
    require_usable,
    resolved,
    types_of,
)
from fingerpost.server.schemas import Json
from fingerpost.task.replies import resolve_label
from fingerpost.task.settings import Task

UNFILLABLE = "unfillable_schema"
"""The code of the error for a schema that a classifier cannot keep."""
MARK = "\x00label\x00"
"""Stands for the label until the rest of the reply is known."""
LABEL_NAMES = ("action", "label", "category", "class", "intent", "destination", "route", "choice", "result", "value")


_remembered: LRUCache[Any, Any] = LRUCache(maxsize=64)
"""By schema and task: the place of the label, or why there is none."""


@dataclass(frozen=True, slots=True)
class LabelSchema:
    """A schema with one place for the label.

    Attributes:
        schema: the whole schema.
        path: the names of the fields down to the label; `[]` stands for the item of a list.
        values: what the reply says for each label that the schema allows; None allows all, in the model's own words.
    """

    schema: Json
    path: tuple[str, ...]
    values: dict[str, str | int] | None

    def reply(
        self, value: Any, confidence: float, others: Mapping[tuple[str, ...], Any] = MappingProxyType({})
    ) -> tuple[str, str, str]:
        """The reply as JSON in three parts: the text before the label, the label or list of labels, the text after it.

        Args:
            value: what the reply says for the decided label.
            confidence: from 0 to 1.
            others: what it says in other fields that have a list of values, by their path.

        Raises:
            UnfillableError: a required field cannot be filled in.
        """
        filled = _Filling(self, value, confidence, others).fill(self.schema, ())
        before, after = json.dumps(filled, ensure_ascii=False).split(json.dumps(MARK))
        written = json.dumps(value, ensure_ascii=False)
        require_kept(self.schema, before + written + after)
        return before, written, after


def find_label(schema: Json, task: Task) -> LabelSchema:
    """The place of the label in a schema. What was found is remembered, because checking a schema takes milliseconds.

    Raises:
        UnfillableError: the schema is no JSON schema, or has no place for a label, or several.
    """
    return remembered(_remembered, schema, (task.labels, task.answer_field), lambda: _find(schema, task))


def _find(schema: Json, task: Task) -> LabelSchema:
    require_usable(schema)
    found: dict[tuple[str, ...], dict[str, str | int]] = {}
    free: list[tuple[str, ...]] = []
    for path, part in leaves(schema, schema, ()):
        allowed = list(literals(part, schema))
        named: dict[str, str | int] = {}
        for value in allowed:
            if (
                isinstance(value, str | int)
                and not isinstance(value, bool)
                and (label := resolve_label(task, value)) is not None
            ):
                named.setdefault(label, value)
        if named:
            found[path] = {**named, **found.get(path, {})}
        elif not allowed and path and allows_text(part) and not is_named(path[-1], REASON_NAMES):
            free.append(path)
    if len(found) > 1:
        places = ", ".join(f"'{dotted(path)}'" for path in found)
        raise UnfillableError(f"several fields have labels as their values: {places}; ask for one label")
    if found:
        ((path, values),) = found.items()
        return LabelSchema(schema, path, values)
    likely = [path for path in free if is_named(path[-1], (task.answer_field, *LABEL_NAMES))] or free
    if len(likely) != 1:
        raise UnfillableError("no field has labels of the model as its values")
    return LabelSchema(schema, likely[0], None)


class _Filling:
    """Fills in a schema for one answer."""

    def __init__(
        self, target: LabelSchema, value: Any, confidence: float, others: Mapping[tuple[str, ...], Any]
    ) -> None:
        self._target, self._value, self._confidence, self._others = target, value, confidence, others

    def fill(self, schema: Any, path: tuple[str, ...]) -> Any:
        """A value of the schema; at the label's path, the mark."""
        schema = resolved(schema, self._target.schema)
        if path == self._target.path:
            return MARK
        if path in self._others:
            return self._others[path]
        for branches in (schema.get("anyOf"), schema.get("oneOf")):
            if isinstance(branches, list):
                return self._branch(schema, branches, path)
        if "const" in schema:
            return schema["const"]
        if "default" in schema:
            return schema["default"]
        if isinstance(schema.get("enum"), list) and len(schema["enum"]) == 1:
            return schema["enum"][0]
        kinds = types_of(schema)
        if "object" in kinds or "properties" in schema:
            return self._object(schema, path)
        if "array" in kinds:
            return self._array(schema, path)
        return self._scalar(schema, kinds, path)

    def _branch(self, schema: Json, branches: list[Any], path: tuple[str, ...]) -> Any:
        """The first branch that can be filled in, and that allows the label if the label is in it."""
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
        nulls = []
        errors = []
        for branch in branches:
            branch = resolved(branch, self._target.schema)
            if types_of(branch) == ["null"]:
                nulls.append(branch)
                continue
            inside = self._target.path[: len(path)] == path
            if inside and not self._allows(branch, path):
                continue
            try:
                return self.fill({**rest, **branch}, path)
            except UnfillableError as error:
                errors.append(error)
        if nulls:
            return None
        raise errors[0] if errors else UnfillableError(f"no alternative of '{dotted(path)}' allows the label")

    def _allows(self, branch: Json, path: tuple[str, ...]) -> bool:
        """Whether a branch has the place of the label, and allows this one there."""
        at = [part for place, part in leaves(branch, self._target.schema, path) if place == self._target.path]
        values = self._value if isinstance(self._value, list) else [self._value]
        return any(
            not (allowed := list(literals(part, self._target.schema))) or all(value in allowed for value in values)
            for part in at
        )

    def _object(self, schema: Json, path: tuple[str, ...]) -> Json:
        required = listed(schema.get("required"))
        filled = {}
        for name, part in (schema.get("properties") or {}).items():
            inside = self._target.path[: len(path) + 1] == (*path, name)
            try:
                filled[name] = self.fill(part, (*path, name))
            except UnfillableError:
                if inside or name in required:
                    raise
        return filled

    def _array(self, schema: Json, path: tuple[str, ...]) -> Any:
        if self._target.path[: len(path) + 1] == (*path, "[]"):
            if self._target.path == (*path, "[]") and isinstance(self._value, list):
                return MARK  # the value is the whole list
            return [self.fill(schema.get("items") or {}, (*path, "[]"))]
        if schema.get("minItems"):
            raise UnfillableError(f"'{dotted(path)}' has to have items, which a classifier cannot give")
        return []

    def _scalar(self, schema: Json, kinds: list[str], path: tuple[str, ...]) -> Any:
        name = path[-1] if path else ""
        if {"number", "integer"} & set(kinds) and is_named(name, CONFIDENCE_NAMES):
            percent = "number" not in kinds or (schema.get("maximum") or 0) > 1
            number = self._confidence if math.isfinite(self._confidence) else 0.0
            return round(100 * number) if percent else round(number, 4)
        if "string" in kinds and is_named(name, REASON_NAMES):
            return f"Chosen by a classifier with a confidence of {self._confidence:.2f}."
        if "null" in kinds:
            return None
        raise UnfillableError(f"a classifier cannot fill in '{dotted(path)}'")
