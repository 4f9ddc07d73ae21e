"""Tools: the one with the labels is called, once; where each label has a tool, the label's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from serving import Serving, chat_lines, finished, messages_of, upload

LABELS = {"type": "string", "enum": ["billing", "delivery", "other"]}
ROUTE = {"name": "route", "parameters": {"type": "object", "properties": {"queue": LABELS}, "required": ["queue"]}}
SEARCH = {
    "name": "search",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
}
QUESTION = {"role": "user", "content": "my invoice is wrong"}


@pytest.fixture(scope="module")
def client(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with Serving(tmp_path_factory.mktemp("tools") / "served", f"student={student}") as server:
        yield server.client()


def tools(*functions: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "function", "function": function} for function in functions]


def ask(client: openai.OpenAI, messages: list[dict[str, Any]], **options: Any) -> Any:
    return client.chat.completions.create(model="student", messages=messages, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("choice", ["required", "auto", None])
def test_the_tool_with_the_labels_is_called_once_and_then_a_text_comes(
    client: openai.OpenAI, choice: str | None
) -> None:
    options: dict[str, Any] = {"tools": tools(SEARCH, ROUTE)} | ({"tool_choice": choice} if choice else {})
    first = ask(client, [QUESTION], **options).choices[0]
    (call,) = first.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("route", {"queue": "billing"})
    assert first.finish_reason == "tool_calls"
    history = [QUESTION, first.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "done"}]
    second = ask(client, history, **options).choices[0]
    assert second.message.tool_calls is None and json.loads(second.message.content) == {"action": "billing"}


def test_an_agent_that_must_call_a_tool_each_turn_gets_its_last_one(client: openai.OpenAI) -> None:
    final = {**ROUTE, "name": "final_result"}
    offered: dict[str, Any] = {"tools": tools(ROUTE, final), "tool_choice": "required"}
    messages: list[dict[str, Any]] = [QUESTION]
    for name in ("route", "final_result"):
        message = ask(client, messages, **offered).choices[0].message
        (call,) = message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == (name, {"queue": "billing"})
        messages += [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "done"}]
    assert ask(client, messages, **offered).choices[0].message.content


def test_a_handoff_is_no_result_of_the_tools_that_are_offered_then(client: openai.OpenAI) -> None:
    handoff = {"id": "call_1", "type": "function", "function": {"name": "transfer_to_billing", "arguments": "{}"}}
    messages = [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [handoff]},
        {"role": "tool", "tool_call_id": "call_1", "content": "transferred"},
    ]
    (call,) = ask(client, messages, tools=tools(ROUTE)).choices[0].message.tool_calls
    assert call.function.name == "route"
    assert ask(client, [QUESTION, messages[2]], tools=tools(ROUTE)).choices[0].message.content, (
        "whose result is unknown"
    )


def test_a_forced_tool_is_called_whatever_the_format_of_texts(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": ROUTE["parameters"]}}
    for choice in ("required", {"type": "function", "function": {"name": "route"}}):
        message = (
            ask(client, [QUESTION], tools=tools(ROUTE), tool_choice=choice, response_format=form).choices[0].message
        )
        assert message.tool_calls[0].function.name == "route"


def test_none_calls_no_tool(client: openai.OpenAI) -> None:
    assert ask(client, [QUESTION], tools=tools(ROUTE), tool_choice="none").choices[0].message.content


def test_where_each_label_has_a_tool_its_own_is_called(client: openai.OpenAI) -> None:
    handoffs = [
        {"name": f"transfer_to_{label}", "parameters": {"type": "object", "properties": {}}}
        for label in ("other", "billing")
    ]
    (call,) = ask(client, [QUESTION], tools=tools(SEARCH, *handoffs), tool_choice="auto").choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("transfer_to_billing", "{}")
    stream = client.chat.completions.create(
        model="student",
        messages=[QUESTION],
        tools=tools(*handoffs),
        stream=True,  # type: ignore[arg-type, call-overload]
    )
    parts = [choice.delta.tool_calls[0] for chunk in stream for choice in chunk.choices if choice.delta.tool_calls]
    assert parts[0].function.name == "transfer_to_billing"
    assert "".join(part.function.arguments or "" for part in parts) == "{}"


def test_tools_without_labels_are_left_alone_or_refused(client: openai.OpenAI) -> None:
    assert ask(client, [QUESTION], tools=tools(SEARCH)).choices[0].message.tool_calls is None
    with pytest.raises(openai.BadRequestError, match="no tool has a parameter with labels"):
        ask(client, [QUESTION], tools=tools(SEARCH, {**SEARCH, "name": "other_search"}), tool_choice="required")


def test_a_schema_that_asks_for_more_than_the_label(client: openai.OpenAI) -> None:
    properties = {"reason": {"type": "string"}, "queue": LABELS, "confidence": {"type": "number"}}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    answer = json.loads(ask(client, [QUESTION], response_format=form).choices[0].message.content)
    assert answer["queue"] == "billing" and 0 < answer["confidence"] <= 1 and "classifier" in answer["reason"]
    schema["properties"]["days"] = {"type": "integer"}  # type: ignore[index]
    schema["required"] = [*properties, "days"]
    with pytest.raises(openai.BadRequestError, match="'days'"):
        ask(client, [QUESTION], response_format=form)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("argument", marks=pytest.mark.slow),
        pytest.param("name", marks=pytest.mark.slow),
        pytest.param("function_call", marks=pytest.mark.slow),
    ],
)
def test_a_training_file_of_tool_calls_is_learnt_and_answered_as_calls(server: Serving, tuned: str, kind: str) -> None:
    assert tuned
    lines = []
    for line in chat_lines(times=2).splitlines():
        turns = json.loads(line)["messages"]
        label = json.loads(turns[-1]["content"])["action"]
        name, arguments = (f"transfer_to_{label}", "{}") if kind == "name" else ("route", json.dumps({"queue": label}))
        function = {"name": name, "arguments": arguments}
        call = {"tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
        turns[-1] = {
            "role": "assistant",
            "content": None,
            **({"function_call": function} if kind == "function_call" else call),
        }
        lines.append(json.dumps({"messages": turns}))
    with server.client() as client:
        file = upload(client, "\n".join(lines))
        job = finished(client, client.fine_tuning.jobs.create(model="x", training_file=file).id)
        assert job.status == "succeeded", messages_of(client, job.id)
        offered = (
            [{"name": f"transfer_to_{label}", "parameters": {}} for label in LABELS["enum"]]
            if kind == "name"
            else [ROUTE]
        )
        asked: Any = {"model": job.fine_tuned_model, "messages": [QUESTION], "tools": tools(*offered)}
        (call,) = client.chat.completions.create(**asked, tool_choice="required").choices[0].message.tool_calls
        expected = ("transfer_to_billing", "{}") if kind == "name" else ("route", '{"queue": "billing"}')
        assert (call.function.name, call.function.arguments) == expected
        text = client.chat.completions.create(**{**asked, "tools": openai.omit}).choices[0].message.content
        assert "billing" in text


@pytest.mark.slow
def test_two_fields_that_vary_get_two_students(server: Serving, tuned: str) -> None:
    assert tuned
    urgent = {"billing": "low", "delivery": "high", "other": "low"}
    lines = []
    for line in chat_lines(times=2).splitlines():
        turns = json.loads(line)["messages"]
        label = json.loads(turns[-1]["content"])["action"]
        turns[-1]["content"] = json.dumps({"route": {"queue": label}, "urgency": urgent[label], "source": "mail"})
        lines.append(json.dumps({"messages": turns}))
    with server.client() as client:
        file = upload(client, "\n".join(lines))
        job = finished(client, client.fine_tuning.jobs.create(model="x", training_file=file).id)
        assert job.status == "succeeded", messages_of(client, job.id)
        assert any("2 fields" in message for message in messages_of(client, job.id))
        model = job.fine_tuned_model
        plain = client.chat.completions.create(model=model, messages=[QUESTION]).choices[0].message.content  # type: ignore[arg-type]
        assert json.loads(plain) == {"route": {"queue": "billing"}, "urgency": "low", "source": "mail"}
        properties = {"level": {"enum": ["high", "low"]}, "queue": LABELS, "confidence": {"type": "number"}}
        schema = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
        where = {"role": "user", "content": "where is my parcel?"}
        options: dict[str, Any] = {"model": model, "messages": [where], "response_format": form}
        answer = json.loads(client.chat.completions.create(**options).choices[0].message.content)
        assert (answer["level"], answer["queue"]) == ("high", "delivery")
        properties["colour"] = {"enum": ["red", "blue"]}  # no student has these
        schema["required"] = list(properties)
        with pytest.raises(openai.BadRequestError, match="colour"):
            client.chat.completions.create(**options)
        client.models.delete(str(model))
    assert not list((server.folder / "models").glob(f"{job.id}*"))
