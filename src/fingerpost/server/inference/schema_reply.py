"""A reply that keeps the JSON schema that a request asks for: the label where the schema has labels, and true values elsewhere.

Beside the label there may be constants and defaults, a number for the confidence, a text for the reason, and fields that may be
left out, empty or null. What else is required cannot be filled in by a classifier: such a schema is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cachetools import LRUCache
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from fingerpost.core.text import canonical_name
from fingerpost.core.types import Label
from fingerpost.server.schemas import Json
from fingerpost.task.replies import resolve_label
from fingerpost.task.settings import Task

UNFILLABLE = "unfillable_schema"
"""The code of the error for a schema that a classifier cannot keep."""
MAX_DEPTH = 40
SINGLE = (
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedProperties",
)
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
NAMED = ("properties", "dependentSchemas")
"""The keywords that hold a schema, a list of schemas, and schemas by name."""
MAX_CHARACTERS = 100_000
"""Of a schema as JSON."""
MAX_PARTS = 10_000
"""Of a schema, with all references followed."""
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


SCHEMA_STARTS = 20
"""Braces in a prompt that are tried as the beginning of a schema."""

PROPERTIES = '"properties"'

_remembered: LRUCache[tuple[str, tuple[Label, ...], str], LabelSchema | str] = LRUCache(maxsize=64)
"""By schema and task: the place of the label, or why there is none."""
_written: LRUCache[bytes, Json | None] = LRUCache(maxsize=64)
"""By the hash of a prompt: the schema that is written in it."""
_choices: LRUCache[str, tuple[tuple[str, ...], tuple[str | int, ...]] | str] = LRUCache(maxsize=64)
"""By schema: its one field with a list of values, or why there is none."""


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


def require_kept(schema: Json, reply: str) -> None:
    """Check that a reply keeps a schema that `require_usable` allows.

    Raises:
        UnfillableError: it does not, or the schema refers to what it does not contain.
        ValueError: the reply is not JSON.
    """
    try:
        error = next(Validator(schema, registry=NOTHING_ELSE).iter_errors(json.loads(reply)), None)
    except Unresolvable as missing:
        raise UnfillableError(f"'{missing.ref}' is not in the schema") from None
    if error is not None:
        raise UnfillableError(f"'{'.'.join(map(str, error.absolute_path)) or 'the reply'}': {error.message[:120]}")


def require_usable(schema: Json) -> None:
    """Check that a schema is a JSON schema, and takes bounded work.

    Raises:
        UnfillableError: it is not, or would not.
    """
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise UnfillableError(f"it is no JSON schema: {error.message[:120]}") from None
    except RecursionError:
        raise UnfillableError("it is nested too deeply") from None
    _require_bounded(schema, schema)


def find_label(schema: Json, task: Task) -> LabelSchema:
    """The place of the label in a schema. What was found is remembered, because checking a schema takes milliseconds.

    Raises:
        UnfillableError: the schema is no JSON schema, or has no place for a label, or several.
    """
    text = json.dumps(schema)
    if len(text) > MAX_CHARACTERS:
        raise UnfillableError(f"it has {len(text):,} characters, at most {MAX_CHARACTERS:,} are read")
    key = text, task.labels, task.answer_field
    if key not in _remembered:
        try:
            _remembered[key] = _find(schema, task)
        except UnfillableError as error:
            _remembered[key] = str(error)
    found = _remembered[key]
    if isinstance(found, str):
        raise UnfillableError(found)
    return found


def _find(schema: Json, task: Task) -> LabelSchema:
    require_usable(schema)
    found: dict[tuple[str, ...], dict[str, str | int]] = {}
    free: list[tuple[str, ...]] = []
    for path, part in _leaves(schema, schema, ()):
        literals = list(_literals(part, schema))
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


def find_choice(schema: Json) -> tuple[tuple[str, ...], tuple[str | int, ...]]:
    """The one field of a schema that has a list of values, and these values. What was found is remembered.

    Raises:
        UnfillableError: the schema is no JSON schema, or has no such field, or several, or it is in a list; or it asks for more
            than that, a confidence, a reason and constants.
    """
    key = json.dumps(schema)
    if len(key) > MAX_CHARACTERS:
        raise UnfillableError(f"it has {len(key):,} characters, at most {MAX_CHARACTERS:,} are read")
    if key not in _choices:
        try:
            _choices[key] = _find_choice(schema)
        except UnfillableError as error:
            _choices[key] = str(error)
    found = _choices[key]
    if isinstance(found, str):
        raise UnfillableError(found)
    return found


def choices_in(schema: Json) -> dict[tuple[str, ...], tuple[str | int, ...]]:
    """The fields of a schema that have a list of texts or integers as their values, by path."""
    found: dict[tuple[str, ...], list[str | int]] = {}
    for path, part in _leaves(schema, schema, ()):
        literals = list(_literals(part, schema))
        values = [value for value in literals if isinstance(value, str | int) and not isinstance(value, bool)]
        found.setdefault(path, []).extend(values)
    return {path: tuple(dict.fromkeys(values)) for path, values in found.items() if len(set(values)) > 1}


def _find_choice(schema: Json) -> tuple[tuple[str, ...], tuple[str | int, ...]]:
    require_usable(schema)
    found = choices_in(schema)
    if len(found) != 1 or any("[]" in path for path in found):
        raise UnfillableError(f"{len(found)} fields have a list of values")
    ((path, named),) = found.items()
    more = [place for place, part in _leaves(schema, schema, ()) if place != path and not _is_known(place[-1], part)]
    if more:
        raise UnfillableError(f"'{_named(more[0])}' is asked for as well")
    return path, named


def _is_known(name: str, schema: Json) -> bool:
    """Whether a field has one value only, or is one for the confidence or the reason."""
    if "const" in schema or len(_listed(schema.get("enum"))) == 1:
        return True
    kinds = set(_types(schema))
    numeric = bool(kinds) and kinds <= {"number", "integer"}
    return (numeric and _is_named(name, CONFIDENCE_NAMES)) or (kinds == {"string"} and _is_named(name, REASON_NAMES))


def schema_in(text: str) -> Json | None:
    """The JSON schema of an object that is written in a prompt; None if there is none."""
    if PROPERTIES not in text:
        return None
    key = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    if key not in _written:
        _written[key] = _schema_in(text[:MAX_CHARACTERS])
    return _written[key]


def _schema_in(text: str) -> Json | None:
    decoder = json.JSONDecoder()
    start = -1
    for _ in range(SCHEMA_STARTS):
        start = text.find("{", start + 1)
        if start < 0:
            break
        try:
            found, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(found.get("properties"), dict):
            return dict(found)
    return None


class _Filling:
    """Fills in a schema for one answer."""

    def __init__(
        self, target: LabelSchema, value: Any, confidence: float, others: Mapping[tuple[str, ...], Any]
    ) -> None:
        self._target, self._value, self._confidence, self._others = target, value, confidence, others

    def fill(self, schema: Any, path: tuple[str, ...]) -> Any:
        """A value of the schema; at the label's path, the mark."""
        schema = _resolved(schema, self._target.schema)
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
        kinds = _types(schema)
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
            branch = _resolved(branch, self._target.schema)
            if _types(branch) == ["null"]:
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
        raise errors[0] if errors else UnfillableError(f"no alternative of '{_named(path)}' allows the label")

    def _allows(self, branch: Json, path: tuple[str, ...]) -> bool:
        """Whether a branch has the place of the label, and allows this one there."""
        at = [part for place, part in _leaves(branch, self._target.schema, path) if place == self._target.path]
        values = self._value if isinstance(self._value, list) else [self._value]
        return any(
            not (literals := list(_literals(part, self._target.schema))) or all(value in literals for value in values)
            for part in at
        )

    def _object(self, schema: Json, path: tuple[str, ...]) -> Json:
        required = _listed(schema.get("required"))
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


def _refuse(_validator: Any, _value: Any, _instance: Any, _schema: Any) -> Iterator[ValidationError]:
    yield ValidationError("regular expressions and dynamic references are not supported")


Validator = extend(Draft202012Validator, {"pattern": _refuse, "patternProperties": _refuse, "$dynamicRef": _refuse})
"""Runs no regular expression of a client, which could take for ever."""
NOTHING_ELSE = Registry()
"""No schema but the client's own: nothing is fetched."""


def _require_bounded(schema: Any, root: Json, depth: int = 0, count: int = 0) -> int:
    """Count the parts of a schema with all references followed: a short one may stand for one of any size.

    Raises:
        UnfillableError: it has too many parts, or refers to itself.
    """
    count += 1
    schema = _resolved(schema, root)
    if depth > MAX_DEPTH or count > MAX_PARTS:
        raise UnfillableError("it has too many parts, or refers to itself")
    if "patternProperties" in schema:  # they would be run for other keywords, too
        raise UnfillableError("'patternProperties' is not supported")
    parts = [schema[key] for key in SINGLE if key in schema]
    parts += [part for key in LISTS for part in _listed(schema.get(key))]
    parts += [part for key in NAMED if isinstance(schema.get(key), dict) for part in schema[key].values()]
    for part in parts:
        if isinstance(part, dict):
            count = _require_bounded(part, root, depth + 1, count)
    return count


def _leaves(schema: Any, root: Json, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Json]]:
    """(path, schema) of everything in a schema that is no object and no list."""
    schema = _resolved(schema, root)
    branches = [branch for key in ("anyOf", "oneOf") for branch in _listed(schema.get(key))]
    resolved = [_resolved(branch, root) for branch in branches]
    if any("properties" in branch or "items" in branch for branch in resolved):
        for branch in resolved:
            yield from _leaves(branch, root, path)
    elif isinstance(schema.get("properties"), dict):
        for name, part in schema["properties"].items():
            yield from _leaves(part, root, (*path, name))
    elif isinstance(schema.get("items"), dict):
        yield from _leaves(schema["items"], root, (*path, "[]"))
    elif path:
        yield path, schema


def _literals(schema: Any, root: Json) -> Iterator[Any]:
    """All values that an enum, a constant or alternatives of them allow."""
    schema = _resolved(schema, root)
    if "const" in schema:
        yield schema["const"]
    yield from _listed(schema.get("enum"))
    for key in ("anyOf", "oneOf"):
        for branch in _listed(schema.get(key)):
            yield from _literals(branch, root)


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
