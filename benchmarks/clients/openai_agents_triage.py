"""The Agents SDK, on both wires: an output type, streamed too; a tool; and a triage agent that hands off to one with a tool."""

import asyncio
import json
import sys
from enum import Enum

from agents import Agent, Runner, function_tool, set_default_openai_api, set_tracing_disabled
from pydantic import BaseModel

set_tracing_disabled(True)
Action = Enum("Action", {name: name for name in json.load(open("labels.json"))})
calls = []


class Route(BaseModel):
    action: Action


@function_tool
def route(action: Action) -> str:
    """Send the message to where it is handled."""
    calls.append(action)
    return "sent"


async def main() -> None:
    for wire in ("responses", "chat_completions"):
        set_default_openai_api(wire)
        router = Agent(name="router", instructions="Route the message.", model="student", output_type=Route)
        found = (await Runner.run(router, sys.argv[1])).final_output.action
        streamed = Runner.run_streamed(router, sys.argv[1])
        kinds = {event.type async for event in streamed.stream_events()}
        assert streamed.final_output.action == found and "raw_response_event" in kinds, kinds
        calls.clear()
        end = await Runner.run(Agent(name="clerk", model="student", tools=[route]), sys.argv[1])
        assert calls == [found] and end.final_output, (calls, end)
        agents = [Agent(name=name, model="student", tools=[route]) for name in ("get_payslip", "book_room")]
        triage = Agent(name="triage", instructions="Hand off the message.", model="student", handoffs=agents)
        handed = await Runner.run(triage, sys.argv[1])
        assert handed.last_agent.name == found.value and handed.final_output, handed
        assert calls == [found, found], calls
        print(wire, handed.final_output)
    print("ANSWER", handed.last_agent.name)


asyncio.run(main())
