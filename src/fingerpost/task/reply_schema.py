"""The JSON schema of replies that are objects with the same fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fingerpost.core.text import parse_json

MAX_VALUES = 100
"""A field with more distinct values is written, not scored."""


ROOM = 4
"""How much longer a text or a list may be than the longest one that was seen. Without a limit, a weak model never ends."""


def schema_of_replies(replies: Sequence[str]) -> dict[str, Any] | None:
    """The JSON schema of replies; None unless all of them are JSON objects with the same fields."""
    objects = []
    for reply in replies:
        try:
            value = parse_json(reply)
        except ValueError:
            return None
        if not isinstance(value, dict):
            return None
        objects.append(value)
    return schema_of(objects)


def canonical_reply(reply: str, schema: Mapping[str, Any]) -> str:
    """A reply that keeps a schema as `json.dumps` writes it, with its fields in the schema's order; others are left as they are."""
    try:
        value = parse_json(reply)
    except ValueError:
        return reply
    return json.dumps(_ordered(value, schema), ensure_ascii=False)


def _ordered(value: Any, schema: Mapping[str, Any]) -> Any:
    properties = schema.get("properties")
    if not isinstance(value, dict) or not properties or set(value) != set(properties):
        return value
    return {name: _ordered(value[name], part) for name, part in properties.items()}


def schema_of(replies: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The JSON schema of replies that are objects with the same fields; None if their fields differ.

    Fields with few values have an `enum`, the others a type.
    """
    if not replies or any(not reply or set(reply) != set(replies[0]) for reply in replies):
        return None
    properties: dict[str, Any] = {}
    for name in replies[0]:
        values = [reply[name] for reply in replies]
        if all(isinstance(value, dict) for value in values):
            inner = schema_of(values)
            if inner is None:
                return None
            properties[name] = inner
        else:
            properties[name] = _leaf_schema(values)
    return {"type": "object", "properties": properties, "required": list(replies[0]), "additionalProperties": False}


def _leaf_schema(values: Sequence[Any]) -> dict[str, Any]:
    """An `enum` where few values are repeated, else the types that occur."""
    if all(value is None or isinstance(value, str | int | float | bool) for value in values):
        texts = sorted({json.dumps(value) for value in values})
        if len(texts) <= min(MAX_VALUES, max(2, len(values) // 4)):
            return {"enum": [json.loads(text) for text in texts]}
    kinds = sorted({_kind(value) for value in values})
    found: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds}
    if "array" in kinds:
        items = [item for value in values if isinstance(value, list) for item in value]
        found["items"] = _leaf_schema(items) if items else {}
        found["maxItems"] = ROOM * max(1, *(len(value) for value in values if isinstance(value, list)))
    if "string" in kinds:
        found["maxLength"] = ROOM * max(8, *(len(value) for value in values if isinstance(value, str)))
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if numbers and "integer" in kinds and "number" not in kinds:
        found["maximum"] = 10 ** (len(str(max(abs(number) for number in numbers))) + 1) - 1
        found["minimum"] = 0 if min(numbers) >= 0 else -found["maximum"]
    return found


def _kind(value: Any) -> str:
    for kind, types in (
        ("boolean", bool),
        ("integer", int),
        ("number", float),
        ("string", str),
        ("array", list),
        ("object", dict),
    ):
        if isinstance(value, types):  # a bool is an int, too, so that the order matters
            return kind
    return "null"
