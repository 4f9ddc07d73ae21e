"""Finds the decision in a request: the labels that a reply may name, and where it names one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from fingerpost.core.text import parse_json, strip_code_fence
from fingerpost.server.inference.json_schema import UnfillableError, find_choice
from fingerpost.server.inference.response_format import requested_schema
from fingerpost.server.inference.responses import chat_body, input_items
from fingerpost.server.inference.tools import offered_functions, parameters_of
from fingerpost.server.schemas import ChatRequest, Json, ResponsesRequest, turn_text

Wire: TypeAlias = Literal["chat", "responses"]
CHAT = "/v1/chat/completions"
WIRES: dict[str, Wire] = {CHAT: "chat", "/v1/responses": "responses"}
"""The wires whose requests may be decisions, by path."""
ELSEWHERE = ("background", "conversation", "prompt")
"""Parameters of the Responses API with which a part of the request is kept by the upstream endpoint alone."""
RESULTS = ("tool", "function")
"""The roles of messages after which a model goes on with what it has begun."""
GENERAL = {"", "response", "answer", "output", "result", "schema", "reply", "final_result", "json", "extract", "data"}
"""Names of schemas and tools that say nothing about what is decided."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reply names its label.

    Attributes:
        path: the names of the JSON fields down to it; empty for the whole reply.
        tool: the tool whose arguments these are.
        by_tool: the tool's name is the label.
    """

    path: tuple[str, ...] = ()
    tool: str | None = None
    by_tool: bool = False

    def value_in(self, reply: ObservedReply) -> str | int | None:
        """The value that a reply has at this place; None if it has none. A reply in plain text has its whole text."""
        if self.by_tool:
            return reply.tool
        if not self.path:
            return None if reply.tool is not None else reply.text
        if reply.tool != self.tool:
            return None
        try:
            found: Any = parse_json(strip_code_fence(reply.text or ""))
        except ValueError:
            return None
        for name in self.path:
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, str | int) and not isinstance(found, bool) else None


@dataclass(frozen=True, slots=True)
class ObservedReply:
    """What an upstream endpoint replied.

    Attributes:
        text: the text, or the arguments of the tool call.
        tool: the name of the called tool.
        usage: the usage object as it came.
        probabilities: by value, where the reply states them.
    """

    text: str | None
    tool: str | None = None
    usage: Json = field(default_factory=dict)
    probabilities: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Recognised:
    """A request with a decision in it.

    Attributes:
        request: the request as a chat request.
        name: the decision's name, where a header gives it; else None.
        hint: a name for it, from the schema, the tool or the field.
        labels: the values that a reply may have; empty where only a header says that there is a decision.
        system: the system prompt.
        responses: the request of the Responses wire, if it came on that one.
        is_question: it is a typed question.
        ordinal: the labels are the levels of a scale, the lowest first.
        path, body: of the request as it came.
    """

    request: ChatRequest
    name: str | None
    hint: str
    labels: tuple[str | int, ...]
    place: Place
    system: str
    responses: ResponsesRequest | None = None
    is_question: bool = False
    ordinal: bool = False
    path: str = ""
    body: Json = field(default_factory=dict)


def recognise(wire: Wire, body: Json, name: str | None, earlier: Sequence[Json] = ()) -> Recognised | None:
    """The decision in the body of a request; None if there is none that can be told.

    Args:
        name: what the request's header calls the decision.
        earlier: the items of the stored responses that it builds on.
    """
    responses = None
    try:
        if wire == "responses":
            responses = ResponsesRequest(**body)
            request = ChatRequest(**chat_body(responses, [*earlier, *input_items(responses)]))
        else:
            request = ChatRequest(**body)
    except (ValidationError, TypeError):
        return None
    extra = (responses.model_extra if responses is not None else None) or {}
    if (request.n or 1) > 1 or any(extra.get(key) for key in ELSEWHERE) or request.messages[-1].role in RESULTS:
        return None
    system = "\n".join(turn_text(turn) for turn in request.messages if turn.role in ("system", "developer"))
    found = _choice_in(request)
    if found is None:
        if name is None:
            return None
        found = "", Place(), ()
    hint, place, labels = found
    path = next(path for path, known in WIRES.items() if known == wire)
    return Recognised(request, name, hint, labels, place, system, responses, path=path, body=body)


def plain_request(body: Json) -> ChatRequest | None:
    """A chat request that asks for one reply in text, without a schema or tools; None if it is another one."""
    try:
        request = ChatRequest(**body)
        plain = not offered_functions(request)[0] and requested_schema(request) is None
    except (ValidationError, TypeError, AttributeError, UnfillableError):
        return None
    return request if plain and (request.n or 1) == 1 and request.messages[-1].role == "user" else None


def _choice_in(request: ChatRequest) -> tuple[str, Place, tuple[str | int, ...]] | None:
    """A name, the place and the values of the one choice that a request's schema or forced tool leaves."""
    try:
        schema = requested_schema(request)
        functions, choice, legacy = offered_functions(request)
        if schema is not None:
            if functions and choice != "none":  # the model may call one of them instead
                return None
            path, values = find_choice(schema)
            given = (request.response_format or {}).get("json_schema") or {}
            return _hint(str(given.get("name") or schema.get("title") or ""), path), Place(path), values
        if legacy or not functions:
            return None
        forced = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
        if forced is None and choice != "required":
            return None
        if forced is None and len(functions) > 1:
            if any(parameters_of(function).get("required") for function in functions):
                return None
            return "tools", Place(by_tool=True), tuple(function["name"] for function in functions)
        function = next(one for one in functions if forced in (None, one["name"]))
        path, values = find_choice(parameters_of(function))
        return _hint(function["name"], path), Place(path, function["name"]), values
    except (UnfillableError, StopIteration, AttributeError):
        return None


def _hint(name: str, path: tuple[str, ...]) -> str:
    return path[-1] if name.lower() in GENERAL else name


def read_reply(wire: Wire, content_type: str, body: bytes) -> ObservedReply | None:
    """The reply in a response of an upstream endpoint, plain or streamed; None if it cannot be read."""
    try:
        if "event-stream" in content_type:
            return _streamed(wire, body)
        value = parse_json(body)
        return _chat_reply(value) if wire == "chat" else _responses_reply(value)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None


def _chat_reply(value: Any) -> ObservedReply:
    message, usage = value["choices"][0]["message"], value.get("usage")
    calls = message.get("tool_calls")
    if calls:
        return _reply(calls[0]["function"]["arguments"], calls[0]["function"]["name"], usage)
    return _reply(message.get("content"), None, usage)


def _reply(text: Any, tool: Any, usage: Any) -> ObservedReply:
    """The reply, whatever the types of its parts."""
    if isinstance(text, list):
        text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
    elif text is not None and not isinstance(text, str):
        text = json.dumps(text, ensure_ascii=False)
    return ObservedReply(text, None if tool is None else str(tool), usage if isinstance(usage, dict) else {})


def _responses_reply(value: Any) -> ObservedReply:
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    counted = {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
    }
    for item in value["output"]:
        if item["type"] == "function_call":
            return _reply(item["arguments"], item["name"], counted)
    texts = [part["text"] for item in value["output"] for part in item.get("content") or [] if "text" in part]
    return ObservedReply("".join(texts), None, counted)


def _streamed(wire: Wire, body: bytes) -> ObservedReply:
    text, arguments, tool = "", "", None
    usage: Json = {}
    for line in body.decode("utf-8", "replace").splitlines():
        if not line.startswith("data:") or line[5:].strip() == "[DONE]":
            continue
        event = json.loads(line[5:])
        if wire == "responses":
            if event.get("type") == "response.completed":
                return _responses_reply(event["response"])
            continue
        usage = event.get("usage") or usage
        for choice in event.get("choices") or []:
            delta = choice.get("delta") or {}
            text += delta.get("content") or ""
            for call in delta.get("tool_calls") or []:
                if not call.get("index"):
                    tool = (call.get("function") or {}).get("name") or tool
                    arguments += (call.get("function") or {}).get("arguments") or ""
    return _reply(arguments if tool else text, tool, usage)
