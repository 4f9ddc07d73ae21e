"""The reply that a chat request asks for: the allowed labels and the format, from `response_format` or a forced tool."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from fingerpost.server.inference.json_schema import UnfillableError, choices_in, schema_in
from fingerpost.server.inference.registry import ServedModel
from fingerpost.server.inference.schema_reply import UNFILLABLE, LabelSchema, find_label
from fingerpost.server.inference.tools import ToolCall, must_call, requested_tool
from fingerpost.server.schemas import ApiError, ChatRequest, Json, turn_text
from fingerpost.task.replies import resolve_label
from fingerpost.task.reply_format import render


@dataclass(frozen=True, slots=True)
class FieldStudent:
    """The student of a further field, and what the reply says for each label that the field allows."""

    model: ServedModel
    values: dict[str, str | int]


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """How a reply states its label.

    Attributes:
        model: the model that answers.
        schema: the JSON schema of the reply, with the place of the label; None uses the model's reply template.
        answer_field: without a schema, the JSON field that holds the label; None uses the model's reply template.
        tool: the tool that the reply calls; None for a plain reply.
        others: further fields with a list of values, by path: the student that answers each, and the value of each of its labels.
    """

    model: ServedModel
    schema: LabelSchema | None = None
    answer_field: str | None = None
    tool: ToolCall | None = None
    others: Mapping[tuple[str, ...], FieldStudent] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, str | int] | None:
        """What the reply says for each allowed label; None allows all labels in the model's own words."""
        return self.schema.values if self.schema is not None else None

    @property
    def allowed(self) -> list[str] | None:
        """Names of the allowed labels; None allows all."""
        if self.tool is not None and self.tool.by_label:
            return list(self.tool.by_label)
        return None if self.values is None else list(self.values)

    def pieces(
        self, label: str, confidence: float = 1.0, others: Mapping[tuple[str, ...], str] = MappingProxyType({})
    ) -> tuple[str, str, str]:
        """The reply for an answer in three parts: the text before it, its label or list of labels, the text after it.

        Args:
            others: the labels of the further fields; the first label where none is given.

        Raises:
            ApiError: the reply cannot keep the schema.
        """
        template = self.model.reply_template
        if self.tool is not None and self.tool.by_label:
            return "", "{}", ""
        value = self._value(label)
        if self.schema is not None:
            try:
                stated = {
                    path: student.values[others.get(path, next(iter(student.values)))]
                    for path, student in self.others.items()
                }
                return self.schema.reply(value, confidence, stated)
            except UnfillableError as error:
                raise ApiError(
                    400, f"the schema cannot be kept: {error}", code=UNFILLABLE, param="response_format"
                ) from None
        if self.answer_field is not None:
            before, after = json.dumps({self.answer_field: "\x00"}, ensure_ascii=False).split(json.dumps("\x00"))
            return before, json.dumps(value, ensure_ascii=False), after
        reply = render(template, value)
        end = len(reply) - len(template.after)
        return template.before, reply[len(template.before) : end], template.after

    def label_text(self, label: str) -> str:
        """How a reply states this label, without the rest of the reply."""
        if self.schema is not None or self.answer_field is not None:
            return json.dumps(self._value(label), ensure_ascii=False)
        return self.pieces(label)[1]

    def _value(self, answer: str) -> str | int | list[str | int]:
        if self.values is None:
            return self.model.reply_value(answer)
        values = [self.values[label] for label in self.model.task.labels_in(answer)]
        return values if self.model.task.multi else values[0]


def requested_format(request: ChatRequest, model: ServedModel, students: Sequence[ServedModel] = ()) -> ResponseFormat:
    """The format that `response_format` or a forced tool asks for.

    Args:
        students: the other models, which may answer further fields of a schema.

    Raises:
        ApiError: the schema cannot be kept, or the tool cannot be called with a label.
    """
    kind = (request.response_format or {}).get("type")
    schema = requested_schema(request)
    students = (*model.companions, *students)
    forced = requested_tool(request, model.task) if must_call(request) else None  # a format is that of a text
    if schema is not None and forced is None:
        return _checked(_with_schema(model, _label_schema(schema, model), None, students), "response_format")
    if (tool := forced or requested_tool(request, model.task)) is not None:
        return _checked(_with_schema(model, tool.schema, tool, students), "tools")
    if model.reply_schema is not None:
        return _with_schema(model, _label_schema(model.reply_schema, model), None, students)
    if kind == "json_object" and not model.reply_template.before.lstrip().startswith("{"):
        return ResponseFormat(model, None, model.task.answer_field)
    return ResponseFormat(model)


def requested_schema(request: ChatRequest) -> Json | None:
    """The JSON schema that a reply has to keep: of `response_format`, or written in the prompt of a `json_object`."""
    requested = request.response_format or {}
    schema = None
    if requested.get("type") == "json_schema" and isinstance(requested.get("json_schema"), dict):
        schema = requested["json_schema"].get("schema")
    elif requested.get("type") == "json_object":
        prompts = (turn_text(turn) for turn in request.messages if turn.role in ("system", "developer", "user"))
        schema = next((found for prompt in prompts if (found := schema_in(prompt)) is not None), None)
    return schema if isinstance(schema, dict) else None


def _label_schema(schema: Json, model: ServedModel) -> LabelSchema:
    try:
        return find_label(schema, model.task)
    except UnfillableError as error:
        examples = ", ".join(str(model.value_of(name)) for name in model.task.names[:5])
        raise ApiError(
            400,
            f"the schema cannot be kept by '{model.name}': {error} (its labels: {examples}, ...)",
            code=UNFILLABLE,
            param="response_format",
        ) from None


def _with_schema(
    model: ServedModel, schema: LabelSchema | None, tool: ToolCall | None, students: Sequence[ServedModel]
) -> ResponseFormat:
    """The format with the students of the further fields that have a list of values. A student answers one field."""
    if schema is None:
        return ResponseFormat(model, None, tool=tool)
    free = [student for student in students if student.folder != model.folder and not student.task.multi]
    others: dict[tuple[str, ...], FieldStudent] = {}
    for path, values in choices_in(schema.schema).items():
        if path == schema.path or "[]" in path:
            continue
        for student in free:
            named = {label: value for value in values if (label := resolve_label(student.task, value)) is not None}
            if len(named) == len(values):
                others[path] = FieldStudent(student, named)
                free.remove(student)
                break
    return ResponseFormat(model, schema, tool=tool, others=others)


def _checked(asked: ResponseFormat, param: str) -> ResponseFormat:
    """The format, refused before anything is decided if a reply cannot keep it."""
    try:
        asked.pieces(next(iter(asked.allowed or asked.model.task.names)))
    except ApiError as error:
        raise ApiError(400, error.message, code=UNFILLABLE, param=param) from None
    return asked
