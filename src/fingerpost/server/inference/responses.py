"""The Responses wire: requests and their history as chat requests, chat completions as response objects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fingerpost.server.inference.answers import ChatAnswer
from fingerpost.server.inference.chat import ChatService
from fingerpost.server.schemas import ApiError, ChatRequest, Json, ResponsesRequest
from fingerpost.store.server import ServerStore, new_id, now
from fingerpost.store.server_rows import ResponseRow
from fingerpost.task.prompt import chat

PREFIX = "resp_"
MAX_HISTORY = 500
"""Earlier responses that one request can build on."""
TEXT_PARTS = ("input_text", "output_text", "text")
LOGPROBS = "message.output_text.logprobs"


@dataclass(frozen=True, slots=True)
class ResponsesAnswer:
    """A response object, its text in tokens, and headers that say how it was found."""

    response: Json
    pieces: list[str]
    headers: dict[str, str]


class ResponsesService:
    """Answers requests of the Responses wire, and keeps what clients want to find again.

    Args:
        redact: applied to all texts before they are stored.
        keeps: whether anything is stored.
    """

    def __init__(self, chat: ChatService, store: ServerStore, redact: Callable[[str], str] | None, keeps: bool) -> None:
        self._chat, self._store, self._redact, self._keeps = chat, store, redact, keeps

    async def create(self, request: ResponsesRequest, key: str | None) -> ResponsesAnswer:
        """The answer to a request.

        Raises:
            ApiError: as for `ChatService.chat`; or an item refers to what is not stored.
        """
        for name in ("background", "conversation", "prompt"):
            if (request.model_extra or {}).get(name):
                raise ApiError(400, f"'{name}' is not supported; send the whole input instead", param=name)
        given = input_items(request)
        earlier = await asyncio.to_thread(self._history, request.previous_response_id)
        items = await asyncio.to_thread(self._resolved, [*earlier, *given])
        body = chat_body(request, items)
        try:
            asked = ChatRequest(**body)
        except ValidationError as error:
            raise ApiError(400, f"input: {error.errors()[0]['msg'].removeprefix('Value error, ')}", param="input") from None  # fmt: skip
        return await self.finish(request, given, await self._chat.chat(asked, body, key))

    async def finish(self, request: ResponsesRequest, given: list[Json], answer: ChatAnswer) -> ResponsesAnswer:
        """The response that states an answer; stored, if that is asked for.

        Args:
            given: the items of the request.
        """
        stored = self._keeps and request.store is not False
        response = response_object(request, answer, stored)
        if stored:
            row = ResponseRow(response["id"], response["created_at"], given, response, request.previous_response_id)
            await asyncio.to_thread(self._store.add_response, self._redacted(row))
        return ResponsesAnswer(response, answer.pieces, answer.headers)

    def get(self, response_id: str, param: str | None = None) -> ResponseRow:
        """A stored response.

        Raises:
            ApiError: there is none; 400 where the request field `param` names it, else 404.
        """
        row = self._store.get_response(response_id)
        if row is None:
            raise ApiError(
                400 if param else 404,
                f"there is no stored response '{response_id}'; send the earlier turns in 'input' instead",
                code="response_not_found", param=param,
            )  # fmt: skip
        return row

    def delete(self, response_id: str) -> None:
        """Delete a stored response.

        Raises:
            ApiError: there is none.
        """
        self.get(response_id)
        self._store.delete_response(response_id)

    def _history(self, response_id: str | None) -> list[Json]:
        """The items of all responses that a request builds on, oldest first."""
        if response_id is None:
            return []
        items, before = self.history(response_id)
        if before is not None:
            self.get(before, "previous_response_id")
        return items

    def history(self, response_id: str) -> tuple[list[Json], str | None]:
        """The items of a response and of those that it builds on, oldest first; and the id of the first that is not stored."""
        turns: list[list[Json]] = []
        before: str | None = response_id
        while before is not None and len(turns) < MAX_HISTORY and (row := self._store.get_response(before)) is not None:
            turns.append([*row.input, *row.response["output"]])
            before = row.previous
        return [item for turn in reversed(turns) for item in turn], before

    def _resolved(self, items: list[Json]) -> list[Json]:
        """The items, with those that are named by their id alone."""
        found = []
        for item in items:
            if item.get("type") == "item_reference" or ("id" in item and len(item) == 1):
                item_id = str(item.get("id"))
                row = self.get(PREFIX + item_id.partition("_")[2], "input")
                item = next((one for one in row.response["output"] if one["id"] == item_id), {})
            found.append(item)
        return found

    def _redacted(self, row: ResponseRow) -> ResponseRow:
        redact = self._redact
        if redact is None:
            return row

        def cleaned(value: Any) -> Any:
            if isinstance(value, dict):
                return {
                    key: redact(child) if key in ("text", "content", "output", "instructions") and isinstance(child, str)
                    else cleaned(child)
                    for key, child in value.items()
                }  # fmt: skip
            return [cleaned(child) for child in value] if isinstance(value, list) else value

        return ResponseRow(row.id, row.created_at, cleaned(row.input), cleaned(row.response), row.previous)


def input_items(request: ResponsesRequest) -> list[Json]:
    """The input as a list of items, each with an id."""
    given = [{"role": "user", "content": request.input}] if isinstance(request.input, str) else request.input or []
    return [{"type": "message", "id": new_id("msg_"), **item} if "role" in item else item for item in given]


def chat_body(request: ResponsesRequest, items: list[Json]) -> Json:
    """The chat request with the same content."""
    turns: list[Json] = []
    if request.instructions:
        turns += chat(request.instructions, ())
    for item in items:
        turns += chat_turns(item)
    body: Json = {"model": request.model, "messages": turns}
    form = (request.text or {}).get("format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        named = {key: form[key] for key in ("name", "schema", "strict") if key in form}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    elif isinstance(form, dict) and form.get("type") == "json_object":
        body["response_format"] = {"type": "json_object"}
    functions = [tool for tool in request.tools or [] if tool.get("type") == "function"]
    if functions:
        body["tools"] = [
            {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
            for tool in functions
        ]
    choice = request.tool_choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        body["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = {tool.get("name") for tool in choice.get("tools") or [] if isinstance(tool, dict)}
        body["tools"] = [tool for tool in body.get("tools", []) if tool["function"].get("name") in allowed]
        body["tool_choice"] = choice.get("mode", "auto")
    elif isinstance(choice, str):
        body["tool_choice"] = choice
    if LOGPROBS in (request.include or []):
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    for theirs, ours in (("temperature", "temperature"), ("top_p", "top_p"), ("max_output_tokens", "max_tokens")):
        value = (request.model_extra or {}).get(theirs)
        if value is not None:
            body[ours] = value
    return body


def chat_turns(item: Json) -> Iterator[Json]:
    """The chat messages for an item; none for reasoning and the like."""
    kind = item.get("type") or "message"
    if kind == "message" and item.get("role"):
        content = item.get("content")
        if isinstance(content, list):
            content = [
                {"type": "text", "text": part["text"]} if part.get("type") in TEXT_PARTS and "text" in part else part
                for part in content
                if isinstance(part, dict)
            ]
        yield {"role": item["role"], "content": content}
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        yield {"role": "assistant", "content": None, "tool_calls": [call]}
    elif kind == "function_call_output":
        output = item.get("output")
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": text}


def response_object(request: ResponsesRequest, answer: ChatAnswer, stored: bool) -> Json:
    """The API's response object. The ids of its items are its own id with another prefix, so that they can be found."""
    (choice, *_), usage = answer.completion["choices"], answer.completion["usage"]
    response_id = new_id(PREFIX)
    number = response_id.removeprefix(PREFIX)
    message = choice["message"]
    output: list[Json] = [
        {
            "id": f"fc_{number}", "type": "function_call", "status": "completed", "call_id": call["id"],
            "name": call["function"]["name"], "arguments": call["function"]["arguments"],
        } for call in message.get("tool_calls") or []
    ]  # fmt: skip
    if not output:
        tokens = (choice["logprobs"] or {}).get("content") or []
        part = {"type": "output_text", "text": message["content"] or "", "annotations": [], "logprobs": tokens}
        output = [
            {"id": f"msg_{number}", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
        ]
    extra = request.model_extra or {}
    return {
        "id": response_id,
        "object": "response",
        "created_at": now(),
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": extra.get("max_output_tokens"),
        "metadata": request.metadata or {},
        "model": request.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": stored,
        "temperature": extra.get("temperature", 1.0),
        "text": request.text or {"format": {"type": "text"}},
        "tool_choice": request.tool_choice or "auto",
        "tools": request.tools or [],
        "top_p": extra.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {
                "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
                "cache_write_tokens": 0,
            },
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
        "user": None,
    }


def response_events(response: Json, pieces: list[str]) -> list[str]:
    """A response as server-sent events, in the order in which the API sends them.

    Args:
        pieces: the text in tokens.
    """
    events: list[str] = []

    def add(kind: str, **fields: Any) -> None:
        body = {"type": kind, "sequence_number": len(events), **fields}
        events.append(f"event: {kind}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n")

    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    add("response.created", response=begun)
    add("response.in_progress", response=begun)
    for number, item in enumerate(response["output"]):
        place: Json = {"item_id": item["id"], "output_index": number}
        empty: Json = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
        add("response.output_item.added", output_index=number, item={**item, "status": "in_progress", **empty})
        if item["type"] == "function_call":
            add("response.function_call_arguments.delta", **place, delta=item["arguments"])
            add(
                "response.function_call_arguments.done", **place, name=item["name"], arguments=item["arguments"]
            )  # fmt: skip
        else:
            place["content_index"] = 0
            (part,) = item["content"]
            tokens = part["logprobs"]
            add("response.content_part.added", **place, part={**part, "text": "", "logprobs": []})
            for index, piece in enumerate(pieces):
                add("response.output_text.delta", **place, delta=piece, logprobs=tokens[index : index + 1])
            add("response.output_text.done", **place, text=part["text"], logprobs=tokens)
            add("response.content_part.done", **place, part=part)
        add("response.output_item.done", output_index=number, item=item)
    add("response.completed", response=response)
    return events
