"""instructor's client: a literal as response model in each of its modes for OpenAI, and partial objects from a stream."""

import json
import sys
from typing import Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel


class Route(BaseModel):
    action: Literal[tuple(json.load(open("labels.json")))]


messages = [{"role": "user", "content": sys.argv[1]}]
found = instructor.from_provider("openai/student").create(response_model=Route, messages=messages)
for mode in ("TOOLS", "TOOLS_STRICT", "JSON", "MD_JSON", "JSON_SCHEMA", "RESPONSES_TOOLS"):
    client = instructor.from_openai(OpenAI(), mode=instructor.Mode[mode])
    route = client.create(model="student", response_model=Route, messages=messages)
    assert route.action == found.action, (mode, route)
    *_, last = client.create_partial(model="student", response_model=Route, messages=messages)
    assert last.action == found.action, (mode, last)
print("ANSWER", found.action)
