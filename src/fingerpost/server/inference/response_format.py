"""What a chat request wants of the reply: the labels that `response_format` or a forced tool allow, and the form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fingerpost.server.inference.registry import Served
from fingerpost.server.schemas import ChatRequest, Json, WireError
from fingerpost.task.replies import resolve
from fingerpost.task.reply_format import render


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a chat request wants of the reply: the form, and which labels, by what stands for them in it."""

    served: Served
    answers: dict[str, str | int] | None = None
    field: str | None = None
    function: str | None = None

    @property
    def allowed(self) -> list[str] | None:
        return None if self.answers is None else list(self.answers)

    def pieces(self, label: str) -> tuple[str, str, str]:
        """The reply that names the label: before it, itself, behind it."""
        served = self.served
        value = self.served.answer(label) if self.answers is None else self.answers[label]
        if self.field is not None:
            before, after = json.dumps({self.field: "\x00"}, ensure_ascii=False).split(json.dumps("\x00"))
            return before, json.dumps(value, ensure_ascii=False), after
        whole = render(served.form, value)
        end = len(whole) - len(served.form.after)
        return served.form.before, whole[len(served.form.before) : end], served.form.after


def wanted_of(request: ChatRequest, served: Served) -> Wanted:
    """What `response_format` or a forced tool say of the reply.

    Raises:
        WireError: none of the values that are allowed is a label of the model.
    """
    function = None
    given = request.response_format or {}
    kind = given.get("type")
    found: Any = None
    where = "response_format"
    if kind == "json_schema" and isinstance(given.get("json_schema"), dict):
        found = given["json_schema"].get("schema")
    elif isinstance(request.tool_choice, dict) or request.tool_choice == "required":
        function, found = _function(request)
        where = "tools"
    if isinstance(found, dict):
        field, values = _enum(found)
        if values is None and function is not None and field is None:
            raise WireError(400, "a classifier calls a tool only with one parameter, its label", param="tools")
        if values is not None:
            answers: dict[str, str | int] = {}
            for value in values:
                name = resolve(served.task, value)
                if name is not None:
                    answers.setdefault(name, value)
            if not answers:
                some = ", ".join(str(served.answer(name)) for name in served.task.names[:5])
                raise WireError(
                    400, f"none of the values in the enum is a label of '{served.name}' ({some}, ...)", param=where
                )
            return Wanted(served, answers, field, function)
        if field is not None:
            return Wanted(served, None, field, function)
    if kind == "json_object" and not (served.form.before.lstrip().startswith("{")):
        return Wanted(served, None, served.task.answer_field)
    return Wanted(served)


def _function(request: ChatRequest) -> tuple[str | None, Any]:
    """The tool that the request demands: its name and the schema of its parameters."""
    extra = request.model_extra or {}
    given = extra.get("tools")
    tools = (
        [t["function"] for t in given if isinstance(t, dict) and isinstance(t.get("function"), dict)]
        if isinstance(given, list)
        else []
    )
    choice = request.tool_choice.get("function") if isinstance(request.tool_choice, dict) else None
    name = choice.get("name") if isinstance(choice, dict) else None
    for tool in tools:
        if isinstance(tool.get("name"), str) and (name is None or tool["name"] == name):
            return tool["name"], tool.get("parameters")
    return None, None


def _enum(given: Json) -> tuple[str | None, list[Any] | None]:
    """The one field of an object's schema, and the values that it may take; None where it may take any."""
    properties = given.get("properties")
    if not isinstance(properties, dict) or len(properties) != 1:
        return None, None
    ((field, inner),) = properties.items()
    for _ in range(4):  # a reference, or a choice with null
        if isinstance(inner, dict) and isinstance(inner.get("$ref"), str):
            known = given.get("$defs") or given.get("definitions") or {}
            inner = known.get(inner["$ref"].rsplit("/", 1)[-1]) if isinstance(known, dict) else None
        elif isinstance(inner, dict) and isinstance(inner.get("anyOf"), list):
            inner = next(
                (each for each in inner["anyOf"] if isinstance(each, dict) and each.get("type") != "null"), None
            )
    if not isinstance(inner, dict):
        return field, None
    values = inner.get("enum")
    if values is None and "const" in inner:
        values = [inner["const"]]
    return field, values if isinstance(values, list) else None
