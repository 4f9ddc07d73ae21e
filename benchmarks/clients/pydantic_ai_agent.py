"""Pydantic AI: an enum as output in each output mode, on both wires; a tool, with a text or the enum after it."""

import json
import sys
from enum import Enum

from pydantic_ai import Agent, NativeOutput, PromptedOutput
from pydantic_ai.models.openai import OpenAIChatModel

Action = Enum("Action", {name: name for name in json.load(open("labels.json"))})
calls = []


def route(action: Action) -> str:
    """Send the message to where it is handled."""
    calls.append(action)
    return "sent"


found = Agent("openai:student", output_type=Action).run_sync(sys.argv[1]).output
for model in ("openai:student", OpenAIChatModel("student")):
    for output in (Action, PromptedOutput(Action), NativeOutput(Action)):
        assert Agent(model, output_type=output).run_sync(sys.argv[1]).output == found, (model, output)
    calls.clear()
    text = Agent(model, tools=[route]).run_sync(sys.argv[1]).output
    assert text and calls == [found], (model, text, calls)
    assert Agent(model, output_type=Action, tools=[route]).run_sync(sys.argv[1]).output == found, model
print("ANSWER", found.value)
