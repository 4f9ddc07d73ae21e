"""Haystack's chat generators, on both wires: a JSON schema, streamed too, and a tool with its result."""

import json
import sys

from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool

action = {"type": "string", "enum": json.load(open("labels.json"))}
schema = {"type": "object", "properties": {"action": action}, "required": ["action"], "additionalProperties": False}
named = {"name": "route", "strict": True, "schema": schema}
messages = [ChatMessage.from_user(sys.argv[1])]
tool = Tool("route", "Send the message to where it is handled.", schema, lambda action: f"sent to {action}")
for generator, asked in (
    (OpenAIChatGenerator, {"response_format": {"type": "json_schema", "json_schema": named}}),
    (OpenAIResponsesChatGenerator, {"text": {"format": {"type": "json_schema", **named}}}),
):
    (reply,) = generator(model="student", generation_kwargs=asked).run(messages)["replies"]
    found = json.loads(reply.text)["action"]
    chunks = []
    streaming = generator(model="student", generation_kwargs=asked, streaming_callback=chunks.append)
    (reply,) = streaming.run(messages)["replies"]
    assert json.loads(reply.text)["action"] == found and "".join(chunk.content for chunk in chunks) == reply.text
    clerk = generator(model="student", tools=[tool])
    (called,) = clerk.run(messages)["replies"]
    (call,) = called.tool_calls
    assert call.arguments == {"action": found}, call
    (end,) = clerk.run([*messages, called, ChatMessage.from_tool("sent", origin=call)])["replies"]
    assert end.text and not end.tool_calls, end
print("ANSWER", found)
