"""LiteLLM: a pydantic model as response format, streamed too, a tool, and the Responses wire."""

import json
import sys
from enum import Enum

import litellm
from pydantic import BaseModel

litellm.suppress_debug_info = True  # its threads print hints, even into the line of the answer
labels = json.load(open("labels.json"))
Action = Enum("Action", {name: name for name in labels})


class Route(BaseModel):
    action: Action


messages = [{"role": "user", "content": sys.argv[1]}]
given = {"model": "openai/student", "response_format": Route}
answer = litellm.completion(messages=messages, **given)
found = Route.model_validate_json(answer.choices[0].message.content).action.value
assert answer.usage.total_tokens > 0
chunks = list(litellm.completion(messages=messages, stream=True, **given))
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
assert streamed == answer.choices[0].message.content, streamed
assert litellm.stream_chunk_builder(chunks, messages=messages).choices[0].finish_reason == "stop"
parameters = {"type": "object", "properties": {"action": {"type": "string", "enum": labels}}, "required": ["action"]}
tool = {"type": "function", "function": {"name": "route", "description": "Route it.", "parameters": parameters}}
called = litellm.completion("openai/student", messages, tools=[tool], tool_choice="auto").choices[0].message
(call,) = called.tool_calls
assert json.loads(call.function.arguments) == {"action": found}, call
result = {"role": "tool", "tool_call_id": call.id, "content": "sent"}
end = litellm.completion("openai/student", [*messages, called, result], tools=[tool]).choices[0].message
assert end.content and not end.tool_calls, end
response = litellm.responses(sys.argv[1], "openai/student", text_format=Route)
assert Route.model_validate_json(response.output[0].content[0].text).action.value == found, response
print("ANSWER", found)
