"""A client's JSON schema: is it usable, which values do its fields have, does a reply keep it?

Nothing of it is run or fetched, and all work is bounded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from cachetools import LRUCache
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from fingerpost.core.text import canonical_name
from fingerpost.server.schemas import Json

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
SCHEMA_STARTS = 20
"""Braces in a prompt that are tried as the beginning of a schema."""

Found = TypeVar("Found")
PROPERTIES = '"properties"'

_written: LRUCache[bytes, Json | None] = LRUCache(maxsize=64)
"""By the hash of a prompt: the schema that is written in it."""
_choices: LRUCache[Any, Any] = LRUCache(maxsize=64)
"""By schema: its one field with a list of values, or why there is none."""


class UnfillableError(Exception):
    """Why a schema cannot be filled in: the field, and what it asks for."""


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


def find_choice(schema: Json) -> tuple[tuple[str, ...], tuple[str | int, ...]]:
    """The one field of a schema that has a list of values, and these values. What was found is remembered.

    Raises:
        UnfillableError: the schema is no JSON schema, or has no such field, or several, or it is in a list; or it asks for more
            than that, a confidence, a reason and constants.
    """
    return remembered(_choices, schema, (), lambda: _find_choice(schema))


def remembered(cache: LRUCache[Any, Any], schema: Json, also: tuple[Any, ...], find: Callable[[], Found]) -> Found:
    """What was found in a schema, or why nothing was, because to check one takes milliseconds.

    Args:
        also: what the result depends on besides.

    Raises:
        UnfillableError: as `find`; or the schema is too long.
    """
    text = json.dumps(schema)
    if len(text) > MAX_CHARACTERS:
        raise UnfillableError(f"it has {len(text):,} characters, at most {MAX_CHARACTERS:,} are read")
    key = text, *also
    if key not in cache:
        try:
            cache[key] = find()
        except UnfillableError as error:
            cache[key] = error
    found: Found | UnfillableError = cache[key]
    if isinstance(found, UnfillableError):
        raise UnfillableError(str(found))
    return found


def choices_in(schema: Json) -> dict[tuple[str, ...], tuple[str | int, ...]]:
    """The fields of a schema that have a list of texts or integers as their values, by path."""
    found: dict[tuple[str, ...], list[str | int]] = {}
    for path, part in leaves(schema, schema, ()):
        listed_values = literals(part, schema)
        values = [value for value in listed_values if isinstance(value, str | int) and not isinstance(value, bool)]
        found.setdefault(path, []).extend(values)
    return {path: tuple(dict.fromkeys(values)) for path, values in found.items() if len(set(values)) > 1}


def _find_choice(schema: Json) -> tuple[tuple[str, ...], tuple[str | int, ...]]:
    require_usable(schema)
    found = choices_in(schema)
    if len(found) != 1 or any("[]" in path for path in found):
        raise UnfillableError(f"{len(found)} fields have a list of values")
    ((path, named),) = found.items()
    more = [place for place, part in leaves(schema, schema, ()) if place != path and not _is_known(place[-1], part)]
    if more:
        raise UnfillableError(f"'{dotted(more[0])}' is asked for as well")
    return path, named


def _is_known(name: str, schema: Json) -> bool:
    """Whether a field has one value only, or is one for the confidence or the reason."""
    if "const" in schema or len(listed(schema.get("enum"))) == 1:
        return True
    kinds = set(types_of(schema))
    numeric = bool(kinds) and kinds <= {"number", "integer"}
    return (numeric and is_named(name, CONFIDENCE_NAMES)) or (kinds == {"string"} and is_named(name, REASON_NAMES))


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
    schema = resolved(schema, root)
    if depth > MAX_DEPTH or count > MAX_PARTS:
        raise UnfillableError("it has too many parts, or refers to itself")
    if "patternProperties" in schema:  # they would be run for other keywords, too
        raise UnfillableError("'patternProperties' is not supported")
    parts = [schema[key] for key in SINGLE if key in schema]
    parts += [part for key in LISTS for part in listed(schema.get(key))]
    parts += [part for key in NAMED if isinstance(schema.get(key), dict) for part in schema[key].values()]
    for part in parts:
        if isinstance(part, dict):
            count = _require_bounded(part, root, depth + 1, count)
    return count


def leaves(schema: Any, root: Json, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Json]]:
    """(path, schema) of everything in a schema that is no object and no list."""
    schema = resolved(schema, root)
    branches = [branch for key in ("anyOf", "oneOf") for branch in listed(schema.get(key))]
    alternatives = [resolved(branch, root) for branch in branches]
    if any("properties" in branch or "items" in branch for branch in alternatives):
        for branch in alternatives:
            yield from leaves(branch, root, path)
    elif isinstance(schema.get("properties"), dict):
        for name, part in schema["properties"].items():
            yield from leaves(part, root, (*path, name))
    elif isinstance(schema.get("items"), dict):
        yield from leaves(schema["items"], root, (*path, "[]"))
    elif path:
        yield path, schema


def literals(schema: Any, root: Json) -> Iterator[Any]:
    """All values that an enum, a constant or alternatives of them allow."""
    schema = resolved(schema, root)
    if "const" in schema:
        yield schema["const"]
    yield from listed(schema.get("enum"))
    for key in ("anyOf", "oneOf"):
        for branch in listed(schema.get(key)):
            yield from literals(branch, root)


def resolved(schema: Any, root: Json) -> Json:
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


def types_of(schema: Mapping[str, Any]) -> list[str]:
    kinds = schema.get("type")
    return [kinds] if isinstance(kinds, str) else [kind for kind in listed(kinds) if isinstance(kind, str)]


def allows_text(schema: Mapping[str, Any]) -> bool:
    kinds = types_of(schema)
    branches = [branch for key in ("anyOf", "oneOf") for branch in listed(schema.get(key)) if isinstance(branch, dict)]
    return "string" in kinds or (not kinds and (not branches or any(allows_text(branch) for branch in branches)))


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def is_named(name: str, names: tuple[str, ...]) -> bool:
    return canonical_name(name) in {canonical_name(other) for other in names}


def dotted(path: tuple[str, ...]) -> str:
    return ".".join(path).replace(".[]", "[]") or "the reply"
