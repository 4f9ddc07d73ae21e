"""The reply that a chat request asks for: the allowed labels and the format, from `response_format` or a forced tool."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fingerpost.server.inference.registry import ServedModel
from fingerpost.server.inference.schema_reply import LabelSchema, UnfillableError, find_label
from fingerpost.server.schemas import ApiError, ChatRequest
from fingerpost.task.reply_format import render


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """How a reply states its label.

    Attributes:
        model: the model that answers.
        schema: the JSON schema of the reply, with the place of the label; None uses the model's reply template.
        field: without a schema, the JSON field that holds the label; None uses the model's reply template.
        function: name of the tool that the reply calls; None for a plain reply.
    """

    model: ServedModel
    schema: LabelSchema | None = None
    field: str | None = None
    function: str | None = None

    @property
    def values(self) -> dict[str, str | int] | None:
        """What the reply says for each allowed label; None allows all labels in the model's own words."""
        return self.schema.values if self.schema is not None else None

    @property
    def allowed(self) -> list[str] | None:
        """Names of the allowed labels; None allows all."""
        return None if self.values is None else list(self.values)

    def pieces(self, label: str, confidence: float = 1.0) -> tuple[str, str, str]:
        """The reply for an answer in three parts: the text before it, its label or list of labels, the text after it.

        Raises:
            ApiError: the reply cannot keep the schema.
        """
        template = self.model.reply_template
        value = self._value(label)
        if self.schema is not None:
            try:
                return self.schema.reply(value, confidence)
            except UnfillableError as error:
                raise ApiError(400, f"the schema cannot be kept: {error}", param="response_format") from None
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
        try:
            found = find_label(schema, model.task)
        except UnfillableError as error:
            examples = ", ".join(str(model.value_of(name)) for name in model.task.names[:5])
            raise ApiError(
                400, f"the schema cannot be kept by '{model.name}': {error} (its labels: {examples}, ...)", param=param
            ) from None
        asked = ResponseFormat(model, found, None, function)
        asked.pieces(next(iter(found.values or model.task.names)))  # refused before anything is decided
        return asked
    if kind == "json_object" and not model.reply_template.before.lstrip().startswith("{"):
        return ResponseFormat(model, None, model.task.answer_field)
    return ResponseFormat(model)


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
