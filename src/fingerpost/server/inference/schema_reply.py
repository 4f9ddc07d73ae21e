"""A reply that keeps the JSON schema that a request asks for: the label where the schema has labels, and true values elsewhere.

Beside the label there may be constants and defaults, a number for the confidence, a text for the reason, and fields that may be
left out, empty or null. What else is required cannot be filled in by a classifier: such a schema is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from fingerpost.core.text import canonical_name
from fingerpost.core.types import Label
from fingerpost.server.schemas import Json
from fingerpost.task.replies import resolve_label
from fingerpost.task.settings import Task

MAX_DEPTH = 12
"""Nested schemas that are followed; a schema that refers to itself ends there."""
MAX_REMEMBERED = 20_000
"""Characters of a schema that is remembered."""
MARK = "\x00label\x00"
"""Stands for the label until the rest of the reply is known."""
CONFIDENCE_NAMES = ("confidence", "confidencescore", "probability", "score", "certainty")
REASON_NAMES = (
    "reason",
    "reasoning",
    "reasons",
    "explanation",
    "rationale",
    "justification",
    "thought",
    "thoughts",
    "thinking",
)
LABEL_NAMES = ("action", "label", "category", "class", "intent", "destination", "route", "choice", "result", "value")


_remembered: LRUCache[tuple[str, tuple[Label, ...], str], LabelSchema] = LRUCache(maxsize=256)


class UnfillableError(Exception):
    """Why a schema cannot be filled in: the field, and what it asks for."""


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

    def reply(self, value: Any, confidence: float) -> tuple[str, str, str]:
        """The reply as JSON in three parts: the text before the label, the label or list of labels, the text after it.

        Args:
            value: what the reply says for the decided label.
            confidence: from 0 to 1.

        Raises:
            UnfillableError: a required field cannot be filled in.
        """
        filled = _Filling(self, value, confidence).fill(self.schema, ())
        before, after = json.dumps(filled, ensure_ascii=False).split(json.dumps(MARK))
        written = json.dumps(value, ensure_ascii=False)
        errors = Draft202012Validator(self.schema).iter_errors(json.loads(before + written + after))
        if (error := next(errors, None)) is not None:
            raise UnfillableError(f"'{'.'.join(map(str, error.absolute_path)) or 'the reply'}': {error.message[:120]}")
        return before, written, after


def find_label(schema: Json, task: Task) -> LabelSchema:
    """The place of the label in a schema. Short schemas are remembered: checking one takes milliseconds.

    Raises:
        UnfillableError: the schema is no JSON schema, or has no place for a label, or several.
    """
    text = json.dumps(schema)
    if len(text) > MAX_REMEMBERED:
        return _find(schema, task)
    key = text, task.labels, task.answer_field
    if key not in _remembered:
        _remembered[key] = _find(schema, task)
    return _remembered[key]


def _find(schema: Json, task: Task) -> LabelSchema:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise UnfillableError(f"it is no JSON schema: {error.message[:120]}") from None
    found: dict[tuple[str, ...], dict[str, str | int]] = {}
    free: list[tuple[str, ...]] = []
    for path, part in _leaves(schema, schema, (), 0):
        literals = list(_literals(part, schema, 0))
        named: dict[str, str | int] = {}
        for value in literals:
            if (
                isinstance(value, str | int)
                and not isinstance(value, bool)
                and (label := resolve_label(task, value)) is not None
            ):
                named.setdefault(label, value)
        if named:
            found[path] = {**named, **found.get(path, {})}
        elif not literals and path and _allows_text(part) and not _is_named(path[-1], REASON_NAMES):
            free.append(path)
    if len(found) > 1:
        places = ", ".join(f"'{_named(path)}'" for path in found)
        raise UnfillableError(f"several fields have labels as their values: {places}; ask for one label")
    if found:
        ((path, values),) = found.items()
        return LabelSchema(schema, path, values)
    likely = [path for path in free if _is_named(path[-1], (task.answer_field, *LABEL_NAMES))] or free
    if len(likely) != 1:
        raise UnfillableError("no field has labels of the model as its values")
    return LabelSchema(schema, likely[0], None)


class _Filling:
    """Fills in a schema for one answer."""

    def __init__(self, target: LabelSchema, value: Any, confidence: float) -> None:
        self._target, self._value, self._confidence = target, value, confidence

    def fill(self, schema: Any, path: tuple[str, ...], depth: int = 0) -> Any:
        """A value of the schema; at the label's path, the mark."""
        if depth > MAX_DEPTH:
            raise UnfillableError(f"'{_named(path)}' is nested too deeply")
        schema = _resolved(schema, self._target.schema)
        if path == self._target.path:
            return MARK
        for branches in (schema.get("anyOf"), schema.get("oneOf")):
            if isinstance(branches, list):
                return self._branch(schema, branches, path, depth)
        if "const" in schema:
            return schema["const"]
        if "default" in schema:
            return schema["default"]
        if isinstance(schema.get("enum"), list) and len(schema["enum"]) == 1:
            return schema["enum"][0]
        kinds = _types(schema)
        if "object" in kinds or "properties" in schema:
            return self._object(schema, path, depth)
        if "array" in kinds:
            return self._array(schema, path, depth)
        return self._scalar(schema, kinds, path)

    def _branch(self, schema: Json, branches: list[Any], path: tuple[str, ...], depth: int) -> Any:
        """The first branch that can be filled in, and that allows the label if the label is in it."""
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
        nulls = []
        errors = []
        for branch in branches:
            branch = _resolved(branch, self._target.schema)
            if _types(branch) == ["null"]:
                nulls.append(branch)
                continue
            inside = self._target.path[: len(path)] == path
            if inside and not self._allows(branch, path):
                continue
            try:
                return self.fill({**rest, **branch}, path, depth + 1)
            except UnfillableError as error:
                errors.append(error)
        if nulls:
            return None
        raise errors[0] if errors else UnfillableError(f"no alternative of '{_named(path)}' allows the label")

    def _allows(self, branch: Json, path: tuple[str, ...]) -> bool:
        """Whether a branch has the place of the label, and allows this one there."""
        at = [part for place, part in _leaves(branch, self._target.schema, path, 0) if place == self._target.path]
        values = self._value if isinstance(self._value, list) else [self._value]
        return any(
            not (literals := list(_literals(part, self._target.schema, 0)))
            or all(value in literals for value in values)
            for part in at
        )

    def _object(self, schema: Json, path: tuple[str, ...], depth: int) -> Json:
        required = _listed(schema.get("required"))
        filled = {}
        for name, part in (schema.get("properties") or {}).items():
            inside = self._target.path[: len(path) + 1] == (*path, name)
            try:
                filled[name] = self.fill(part, (*path, name), depth + 1)
            except UnfillableError:
                if inside or name in required:
                    raise
        return filled

    def _array(self, schema: Json, path: tuple[str, ...], depth: int) -> Any:
        if self._target.path[: len(path) + 1] == (*path, "[]"):
            if self._target.path == (*path, "[]") and isinstance(self._value, list):
                return MARK  # the value is the whole list
            return [self.fill(schema.get("items") or {}, (*path, "[]"), depth + 1)]
        if schema.get("minItems"):
            raise UnfillableError(f"'{_named(path)}' has to have items, which a classifier cannot give")
        return []

    def _scalar(self, schema: Json, kinds: list[str], path: tuple[str, ...]) -> Any:
        name = path[-1] if path else ""
        if {"number", "integer"} & set(kinds) and _is_named(name, CONFIDENCE_NAMES):
            percent = "number" not in kinds or (schema.get("maximum") or 0) > 1
            number = self._confidence if math.isfinite(self._confidence) else 0.0
            return round(100 * number) if percent else round(number, 4)
        if "string" in kinds and _is_named(name, REASON_NAMES):
            return f"Chosen by a classifier with a confidence of {self._confidence:.2f}."
        if "null" in kinds:
            return None
        raise UnfillableError(f"a classifier cannot fill in '{_named(path)}'")


def _leaves(schema: Any, root: Json, path: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], Json]]:
    """(path, schema) of everything in a schema that is no object and no list."""
    if depth > MAX_DEPTH:
        return
    schema = _resolved(schema, root)
    branches = [branch for key in ("anyOf", "oneOf") for branch in _listed(schema.get(key))]
    resolved = [_resolved(branch, root) for branch in branches]
    if any("properties" in branch or "items" in branch for branch in resolved):
        for branch in resolved:
            yield from _leaves(branch, root, path, depth + 1)
    elif isinstance(schema.get("properties"), dict):
        for name, part in schema["properties"].items():
            yield from _leaves(part, root, (*path, name), depth + 1)
    elif isinstance(schema.get("items"), dict):
        yield from _leaves(schema["items"], root, (*path, "[]"), depth + 1)
    elif path:
        yield path, schema


def _literals(schema: Any, root: Json, depth: int) -> Iterator[Any]:
    """All values that an enum, a constant or alternatives of them allow."""
    if depth > MAX_DEPTH:
        return
    schema = _resolved(schema, root)
    if "const" in schema:
        yield schema["const"]
    yield from _listed(schema.get("enum"))
    for key in ("anyOf", "oneOf"):
        for branch in _listed(schema.get(key)):
            yield from _literals(branch, root, depth + 1)


def _resolved(schema: Any, root: Json) -> Json:
    """The schema that a local `$ref` stands for, with the keywords beside it. Anything else allows everything."""
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
            break
        target: Any = root
        for name in schema["$ref"].removeprefix("#").strip("/").split("/"):
            target = (
                target.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) and name else target
            )
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**target, **beside} if isinstance(target, dict) else beside
    return schema if isinstance(schema, dict) else {}


def _types(schema: Mapping[str, Any]) -> list[str]:
    kinds = schema.get("type")
    return [kinds] if isinstance(kinds, str) else [kind for kind in _listed(kinds) if isinstance(kind, str)]


def _allows_text(schema: Mapping[str, Any]) -> bool:
    kinds = _types(schema)
    branches = [branch for key in ("anyOf", "oneOf") for branch in _listed(schema.get(key)) if isinstance(branch, dict)]
    return "string" in kinds or (not kinds and (not branches or any(_allows_text(branch) for branch in branches)))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_named(name: str, names: tuple[str, ...]) -> bool:
    return canonical_name(name) in {canonical_name(other) for other in names}


def _named(path: tuple[str, ...]) -> str:
    return ".".join(path).replace(".[]", "[]") or "the reply"
