"""What answers on a schema keeps that schema: no reply with status 200 violates it, whatever the schema is."""

from __future__ import annotations

import json
from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from fingerpost.server.inference.json_schema import UnfillableError
from fingerpost.server.inference.schema_reply import find_label
from fingerpost.task.loader import task_of_labels

TASK = task_of_labels("shop", ["billing", "delivery", "other"])


def reply(schema: dict[str, Any], label: str = "delivery", confidence: float = 0.93) -> Any:
    found = find_label(schema, TASK)
    value: Any = label if found.values is None else found.values[label]
    return json.loads("".join(found.reply(value, confidence)))


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


ENUM = {"type": "string", "enum": ["billing", "delivery", "other"]}
ZOD_UNION = {"anyOf": [{"type": "string", "const": name} for name in ("billing", "delivery", "other")]}


class Deliver(BaseModel):
    action: Literal["delivery"]
    urgent: bool = False


class Pay(BaseModel):
    action: Literal["billing", "other"]
    note: str | None = None


class Decision(BaseModel):
    result: Deliver | Pay = Field(discriminator="action")


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (obj(action=ENUM), {"action": "delivery"}),
        (obj(action=ZOD_UNION), {"action": "delivery"}),
        (obj(action={"oneOf": ZOD_UNION["anyOf"]}), {"action": "delivery"}),
        (obj(action={"anyOf": [ENUM, {"type": "null"}]}), {"action": "delivery"}),
        (obj(action=ENUM, confidence={"type": "number", "minimum": 0, "maximum": 1}), {"action": "delivery", "confidence": 0.93}),
        (obj(action=ENUM, confidence={"type": "integer", "minimum": 0, "maximum": 100}), {"action": "delivery", "confidence": 93}),
        (obj(reason={"type": "string"}, action=ENUM),
         {"reason": "Chosen by a classifier with a confidence of 0.93.", "action": "delivery"}),
        (obj(version={"const": 2}, kind={"type": "string", "default": "route"}, action=ENUM),
         {"version": 2, "kind": "route", "action": "delivery"}),
        (obj(answer=obj(action=ENUM, tags={"type": "array", "items": {"type": "string"}})),
         {"answer": {"action": "delivery", "tags": []}}),
        (obj(note={"type": ["string", "null"]}, label={"type": "string"}), {"note": None, "label": "delivery"}),
        (Decision.model_json_schema(), {"result": {"action": "delivery", "urgent": False}}),
        ({"type": "object", "properties": {"action": ENUM, "comment": {"type": "string"}}, "required": ["action"]}, {"action": "delivery"}),
        ({"$defs": {"A": ENUM}, **obj(action={"$ref": "#/$defs/A"})}, {"action": "delivery"}),
    ],
)  # fmt: skip
def test_a_reply(schema: dict[str, Any], expected: Any) -> None:
    assert reply(schema) == expected
    jsonschema.validate(reply(schema), schema)


def test_every_branch_of_a_union_counts() -> None:
    found = find_label(obj(action=ZOD_UNION), TASK)
    assert found.values is not None and list(found.values) == TASK.names
    narrow = find_label(obj(action={"anyOf": [{"const": "billing"}, {"enum": ["other"]}]}), TASK)
    assert narrow.values is not None and list(narrow.values) == ["billing", "other"]


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        (obj(action=ENUM, days={"type": "integer"}), "'days'"),
        (obj(action=ENUM, who=obj(name={"type": "string"})), "'who.name'"),
        (obj(action=ENUM, tags={"type": "array", "items": {"type": "string"}, "minItems": 1}), "'tags'"),
        (obj(first=ENUM, second=ENUM), "several fields have labels as their values: 'first', 'second'"),
        (obj(action={"type": "string", "enum": ["refund", "exchange"]}), "no field has labels"),
        (obj(action=ENUM, urgent={"type": "boolean"}), "'urgent'"),
        (obj(reason={"type": "string", "maxLength": 5}, action=ENUM), "too long"),
        ({"type": "wrong"}, "no JSON schema"),
        ({"type": "object"}, "no field has labels"),
    ],
)
def test_what_cannot_be_filled_in_is_named(schema: dict[str, Any], part: str) -> None:
    with pytest.raises(UnfillableError, match=part.replace("(", r"\(")):
        reply(schema)


def doubling(levels: int) -> dict[str, Any]:
    """A short schema that stands for 2 ** levels parts."""
    defs: dict[str, Any] = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    defs[f"d{levels}"] = {"type": "string", "minLength": 10_000}
    return {"$defs": defs, **obj(action=ENUM, reason={"$ref": "#/$defs/d0"})}


WIDE = {"$defs": {"w": {"type": "object", "properties": {f"p{n}": {"$ref": "#/$defs/w"} for n in range(10)}}},
        **obj(action=ENUM, more={"$ref": "#/$defs/w"})}  # fmt: skip


@pytest.mark.parametrize(
    "schema",
    [
        obj(action=ENUM, reason={"type": "string", "pattern": r"^(\w+\s?)*$"}),
        {**obj(action=ENUM), "patternProperties": {"^(a+)+$": {}}},
        doubling(40),
        WIDE,
        obj(action={"$ref": "http://127.0.0.1:9/never-fetched"}),
        obj(action={**ENUM, "allOf": [{"$ref": "http://127.0.0.1:9/never-fetched"}]}),
        {**obj(action=ENUM), "allOf": [{"$ref": "#"}]},
        obj(action={"type": "string", "enum": ["billing", "x" * 60_000, "y" * 60_000]}),
    ],
    ids=["pattern", "pattern-properties", "doubling", "wide", "remote", "remote-beside", "itself", "large"],
)
def test_a_hostile_schema_is_refused_at_once(schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """No catastrophic regular expression is run, nothing is fetched, and a short schema makes no endless work."""
    monkeypatch.setattr("urllib.request.urlopen", lambda *_: pytest.fail("the server fetched a schema"))
    with pytest.raises(UnfillableError):
        reply(schema)


LEAVES = st.sampled_from(
    [ENUM, ZOD_UNION, {"type": "string"}, {"type": "number"}, {"type": "boolean"}, {"type": "null"}, {"const": 3},
     {"type": ["string", "null"]}, {"type": "integer", "default": 4}, {"enum": ["delivery", "spam"]}, {"anyOf": [ENUM, {"type": "null"}]},
     {"type": "string", "pattern": "^[a-z]+$"}, {"type": "number", "minimum": 0.95}, {}, {"not": {}}]
)  # fmt: skip
NAMES = st.sampled_from(["action", "label", "confidence", "reason", "note", "id", "score", "nested"])


def _containers(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.dictionaries(NAMES, parts, max_size=4).flatmap(
        lambda properties: st.sets(st.sampled_from(sorted(properties)) if properties else st.nothing()).map(
            lambda required: {"type": "object", "properties": properties, "required": sorted(required)}
        )
    )
    lists = parts.map(lambda part: {"type": "array", "items": part})
    unions = st.lists(parts, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches})
    return objects | lists | unions


@settings(max_examples=150, deadline=None)
@given(st.recursive(LEAVES, _containers, max_leaves=8), st.sampled_from(TASK.names), st.floats(0, 1))
def test_no_reply_violates_its_schema(schema: dict[str, Any], label: str, confidence: float) -> None:
    try:
        found = find_label(schema, TASK)
        if found.values is not None and label not in found.values:
            return
        answer = reply(schema, label, confidence)
    except UnfillableError:
        return
    jsonschema.Draft202012Validator(schema).validate(answer)
    assert json.dumps(label) in json.dumps(answer), "the label is in the reply"
