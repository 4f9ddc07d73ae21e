"""LangChain on both wires: structured outputs by each method, a stream, a forced tool, and an agent with a tool and a schema."""

import json
import sys
from enum import Enum

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

Action = Enum("Action", {name: name for name in json.load(open("labels.json"))})


class Route(BaseModel):
    """Where a message goes."""

    action: Action


@tool
def route(action: Action) -> str:
    """Send the message to where it is handled."""
    return f"sent to {action.value}"


model = ChatOpenAI(model="student", temperature=0)
found = model.with_structured_output(Route).invoke(sys.argv[1])
assert model.with_structured_output(Route, method="function_calling").invoke(sys.argv[1]) == found
in_prompt = f"Reply with JSON that keeps this schema: {json.dumps(Route.model_json_schema())}"
json_mode = model.with_structured_output(Route, method="json_mode")
assert json_mode.invoke([("system", in_prompt), ("user", sys.argv[1])]) == found
assert list(model.with_structured_output(Route).stream(sys.argv[1]))[-1] == found
responses = ChatOpenAI(model="student", use_responses_api=True)
assert responses.with_structured_output(Route).invoke(sys.argv[1]) == found
for llm in (model, responses):
    called = llm.bind_tools([route], tool_choice="route").invoke(sys.argv[1])
    (call,) = called.tool_calls
    assert call["name"] == "route" and call["args"] == {"action": found.action.value}, call
    end = llm.bind_tools([route]).invoke([HumanMessage(sys.argv[1]), called, route.invoke(call)])
    assert end.text and not end.tool_calls, end
    agent = create_agent(llm, tools=[route], response_format=Route)
    assert agent.invoke({"messages": [{"role": "user", "content": sys.argv[1]}]}).get("structured_response") == found
print("ANSWER", found.action.value)
