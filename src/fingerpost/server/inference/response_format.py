"""The reply that a chat request asks for: the allowed labels and the format, from `response_format` or a forced tool."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fingerpost.server.inference.registry import ServedModel
from fingerpost.server.schemas import ApiError, ChatRequest, Json
from fingerpost.task.replies import resolve_label
from fingerpost.task.reply_format import render

MAX_REFERENCES = 4  # nested `$ref` and `anyOf` that are followed


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """How a reply states its label.

    Attributes:
        model: the model that answers.
        values: what the reply says for each allowed label; None allows all labels in the model's own words.
        field: the JSON field that holds the label; None uses the model's reply template.
        function: name of the tool that the reply calls; None for a plain reply.
    """

    model: ServedModel
    values: dict[str, str | int] | None = None
    field: str | None = None
    function: str | None = None

    @property
    def allowed(self) -> list[str] | None:
        """Names of the allowed labels; None allows all."""
        return None if self.values is None else list(self.values)

    def pieces(self, label: str) -> tuple[str, str, str]:
        """The reply for an answer in three parts: the text before it, its label or list of labels, the text after it."""
        template = self.model.reply_template
        value = self._value(label)
        if self.field is not None:
            before, after = json.dumps({self.field: "\x00"}, ensure_ascii=False).split(json.dumps("\x00"))
            return before, json.dumps(value, ensure_ascii=False), after
        reply = render(template, value)
        end = len(reply) - len(template.after)
        return template.before, reply[len(template.before) : end], template.after

    def _value(self, answer: str) -> str | int | list[str | int]:
        if self.values is None:
            return self.model.reply_value(answer)
        values = [self.values[label] for label in self.model.task.labels_in(answer)]
        return values if self.model.task.multi else values[0]


def requested_format(request: ChatRequest, model: ServedModel) -> ResponseFormat:
    """The format that `response_format` or a forced tool asks for.

    Raises:
        ApiError: none of the allowed values is a label of the model, or the tool cannot be called with a label.
    """
    function = None
    requested = request.response_format or {}
    kind = requested.get("type")
    schema: Any = None
    param = "response_format"
    if kind == "json_schema" and isinstance(requested.get("json_schema"), dict):
        schema = requested["json_schema"].get("schema")
    elif isinstance(request.tool_choice, dict) or request.tool_choice == "required":
        function, schema = _forced_tool(request)
        param = "tools"
    if isinstance(schema, dict):
        field, enum = _field_and_enum(schema)
        if enum is None and function is not None and field is None:
            raise ApiError(
                400, "a classifier can call only a tool with exactly one parameter, the label", param="tools"
            )
        if enum is not None:
            return ResponseFormat(model, _values_by_label(enum, model, param), field, function)
        if field is not None:
            return ResponseFormat(model, None, field, function)
    if kind == "json_object" and not model.reply_template.before.lstrip().startswith("{"):
        return ResponseFormat(model, None, model.task.answer_field)
    return ResponseFormat(model)


def _values_by_label(enum: list[Any], model: ServedModel, param: str) -> dict[str, str | int]:
    """The first enum value that stands for each label of the model."""
    values: dict[str, str | int] = {}
    for value in enum:
        label = resolve_label(model.task, value)
        if label is not None:
            values.setdefault(label, value)
    if not values:
        examples = ", ".join(str(model.value_of(name)) for name in model.task.names[:5])
        raise ApiError(
            400, f"the enum contains no label of '{model.name}'; use its labels ({examples}, ...)", param=param
        )
    return values


def _forced_tool(request: ChatRequest) -> tuple[str | None, Any]:
    """The tool that the reply must call: its name, and the JSON schema of its parameters."""
    extra = request.model_extra or {}
    given = extra.get("tools")
    tools = (
        [tool["function"] for tool in given if isinstance(tool, dict) and isinstance(tool.get("function"), dict)]
        if isinstance(given, list)
        else []
    )
    choice = request.tool_choice.get("function") if isinstance(request.tool_choice, dict) else None
    name = choice.get("name") if isinstance(choice, dict) else None
    for tool in tools:
        if isinstance(tool.get("name"), str) and (name is None or tool["name"] == name):
            return tool["name"], tool.get("parameters")
    return None, None


def _field_and_enum(schema: Json) -> tuple[str | None, list[Any] | None]:
    """The only field of an object schema, and its allowed values; None where there is none, or any value is allowed."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or len(properties) != 1:
        return None, None
    ((field, inner),) = properties.items()
    for _ in range(MAX_REFERENCES):
        if isinstance(inner, dict) and isinstance(inner.get("items"), dict):
            inner = inner["items"]
        elif isinstance(inner, dict) and isinstance(inner.get("$ref"), str):
            definitions = schema.get("$defs") or schema.get("definitions") or {}
            inner = definitions.get(inner["$ref"].rsplit("/", 1)[-1]) if isinstance(definitions, dict) else None
        elif isinstance(inner, dict) and isinstance(inner.get("anyOf"), list):
            choices = (choice for choice in inner["anyOf"] if isinstance(choice, dict))
            inner = next((choice for choice in choices if choice.get("type") != "null"), None)
    if not isinstance(inner, dict):
        return field, None
    values = inner.get("enum")
    if values is None and "const" in inner:
        values = [inner["const"]]
    return field, values if isinstance(values, list) else None
