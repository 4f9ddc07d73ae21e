"""The commented task.toml that `fingerpost init` writes, and changes to an existing one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomlkit

from fingerpost.task.prompt import PLACE


def render_task(
    name: str,
    labels: Mapping[str, str],
    *,
    instructions: str = "",
    fallback: str | None = None,
    model: str = "gpt-4.1-mini",
    base_url: str | None = None,
    data: Iterable[str] = (),
    prompt: str | None = None,
) -> str:
    """A commented task.toml: `labels` maps each name to its description."""
    rows = "\n".join(f"{_key(label)} = {_quote(text)}" for label, text in labels.items())
    files = "\n".join(f'\n[[data]]\nfile = {_quote(file)}\nsource = "user"' for file in data)
    instructions = instructions or f"You route messages for {name}. Decide where the last message belongs."
    own_prompt = f"prompt = {_quote(prompt)}" if prompt else '# prompt = "prompt.txt"'
    last = f"fallback = {_quote(fallback)}" if fallback else '# fallback = "other"'
    url = f"base_url = {_quote(base_url)}" if base_url else '# base_url = "http://localhost:8080/v1"'
    return f"""\
# What is to be decided. `fingerpost status` says what to do next.
name = {_quote(name)}

# What the teacher is told before the list of labels.
instructions = {_quote(instructions)}
# You have a prompt already? Put it into a file, with {PLACE} where the list of labels belongs.
{own_prompt}

# The reply is JSON with this one field: {{"action": "..."}}
answer_field = "action"
# The label for whatever fits nowhere else.
{last}

# name = "what belongs there", a line a label. Your application uses codes of its own?
# name = {{ description = "what belongs there", code = 7 }}
[labels]
{rows}

[teacher]
model = {_quote(model)}
# Any endpoint that speaks OpenAI's chat format; without this line, OpenAI's own.
{url}
# The environment variable that holds the API key.
key_env = "OPENAI_API_KEY"
# Or a model file on this machine, run for you (pip install 'fingerpost[local-teacher]'):
# gguf = "models/teacher.gguf"
concurrency = 8
# Limits of your account.
# requests_per_minute = 500
# tokens_per_minute = 200000
# How many label orders the questions are spread over.
orders = 4
# US dollars per million tokens, where the model is not a well-known one:
# prices = {{ input = 0.4, cached_input = 0.1, output = 1.6 }}

# For `fingerpost generate`, which has the teacher write questions: who is asked, and who asks.
[generate]
# about = "a bank's assistant"
# personas = ["a student", "someone who runs a shop"]
# languages = ["en"]

# Files that `fingerpost run` imports. source: user (people wrote it) or synthetic (a model wrote it).
{
        files
        or '''# [[data]]
# file = "messages.csv"
# source = "user"'''
    }
"""


def redescribe(path: Path, descriptions: Mapping[str, str]) -> str:
    """The text of a task.toml with these labels' descriptions replaced; all else, comments too, as it was."""
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    labels: Any = document["labels"]
    for name, text in descriptions.items():
        if isinstance(labels[name], str):
            labels[name] = text
        else:
            labels[name]["description"] = text
    return tomlkit.dumps(document)


def _quote(value: str) -> str:
    """A TOML string: JSON's form is one."""
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
