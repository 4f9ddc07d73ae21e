"""Writes the commented task.toml of `fingerpost init`, and edits an existing task.toml."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomlkit

from fingerpost.task.prompt import LABELS_PLACEHOLDER


def render_task(
    name: str,
    labels: Mapping[str, str],
    *,
    instructions: str = "",
    fallback: str | None = None,
    model: str = "gpt-4.1-mini",
    base_url: str | None = None,
    data: Iterable[Mapping[str, str]] = (),
    prompt: str | None = None,
    multi: bool = False,
) -> str:
    """The text of a commented task.toml.

    Args:
        labels: description by label name, in the order to write them.
        model, base_url: the teacher's model and endpoint; default endpoint is OpenAI.
        data: the tables of files of questions that `fingerpost run` imports, by key.
        prompt: path of a file with the whole system prompt.
        multi: a message may have several labels.
    """
    label_lines = "\n".join(f"{_key(label)} = {_quote(text)}" for label, text in labels.items())
    data_tables = "\n".join(
        "\n[[data]]\n" + "\n".join(f"{key} = {_quote(value)}" for key, value in table.items()) for table in data
    )
    instructions = instructions or f"You route messages for {name}. Decide where the last message belongs."
    prompt_line = f"prompt = {_quote(prompt)}" if prompt else '# prompt = "prompt.txt"'
    fallback_line = f"fallback = {_quote(fallback)}" if fallback else '# fallback = "other"'
    multi_line = "multi = true" if multi else "# multi = true"
    url_line = f"base_url = {_quote(base_url)}" if base_url else '# base_url = "http://localhost:8080/v1"'
    return f"""\
# A classification task. `fingerpost status` shows what to do next.
name = {_quote(name)}

# Instructions for the teacher, placed before the list of labels.
instructions = {_quote(instructions)}
# To use a prompt of your own, give a text file that has {LABELS_PLACEHOLDER} where the list of labels belongs.
{prompt_line}

# Replies are JSON with this single field: {{"action": "..."}}
answer_field = "action"
# The label for messages that no other label fits.
{fallback_line}
# A message may have several labels.
{multi_line}

# One line per label: name = "which messages belong to it". If your application uses its own codes:
# name = {{ description = "which messages belong to it", code = 7 }}
[labels]
{label_lines}

[teacher]
model = {_quote(model)}
# Any OpenAI-compatible chat endpoint. Default: OpenAI.
{url_line}
# The environment variable that holds the API key.
key_env = "OPENAI_API_KEY"
# Or a local GGUF model file, served by fingerpost itself (pip install 'fingerpost[local-teacher]'):
# gguf = "models/teacher.gguf"
concurrency = 8
# Rate limits of your account.
# requests_per_minute = 500
# tokens_per_minute = 200000
# Number of label orders that the questions are spread over, against position bias.
orders = 4
# US dollars per million tokens. Only needed for models without a public price:
# prices = {{ input = 0.4, cached_input = 0.1, output = 1.6 }}

# For `fingerpost generate`, which has the teacher write questions: the application, its users and their languages.
[generate]
# about = "a bank's assistant"
# personas = ["a student", "a shop owner"]
# languages = ["en"]

# Files that `fingerpost run` imports. source: user (written by humans) or synthetic (written by a model).
{
        data_tables
        or '''# [[data]]
# file = "messages.csv"
# source = "user"'''
    }
"""


def redescribe(path: Path, descriptions: Mapping[str, str]) -> str:
    """The text of a task.toml with the descriptions of these labels replaced; everything else, also comments, is kept."""
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    labels: Any = document["labels"]
    for name, text in descriptions.items():
        if isinstance(labels[name], str):
            labels[name] = text
        else:
            labels[name]["description"] = text
    return tomlkit.dumps(document)


def _quote(value: str) -> str:
    """A TOML string; every JSON string is one."""
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    """A TOML key, quoted if needed."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
