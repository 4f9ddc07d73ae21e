"""task.toml: read, checked, and written for the first time. Mistakes are named with their line and remedy."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel, ValidationError

from fingerpost.errors import TaskError
from fingerpost.prompt import PLACE
from fingerpost.prompt.styles import LANGUAGES
from fingerpost.text import fold, spoken
from fingerpost.types import (
    DataFile,
    GenerateSettings,
    Label,
    Prices,
    SplitSettings,
    StudentSettings,
    Task,
    TeacherSettings,
)

TASK_FILE = "task.toml"
_TABLES: dict[str, type[BaseModel]] = {
    "teacher": TeacherSettings,
    "split": SplitSettings,
    "data": DataFile,
    "generate": GenerateSettings,
    "writers": TeacherSettings,
    "student": StudentSettings,
    "prices": Prices,
    "labels": Label,
}


def load_task(path: Path) -> Task:
    """Read a task. `prompt`, where given, is the path of a text file beside it, and comes back as its text.

    Raises:
        TaskError: no such file, no TOML, an unknown key, a value out of range, labels that cannot be told
            apart; with the line and how to mend it.
    """
    if not path.is_file():
        raise TaskError(f"there is no {path}: write one with 'fingerpost init', or name its folder with -C")
    try:
        source = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise TaskError(f"{path}, line {line}: this is not UTF-8; save the file as UTF-8") from None
    try:
        content = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        where = f", line {found[1]}, column {found[2]}" if found else ""
        what = str(error).split(" (at")[0]
        raise TaskError(f'{path}{where}: not valid TOML: {what}; texts stand in "double quotes"') from None
    labels = content.get("labels")
    if not isinstance(labels, dict) or len(labels) < 2:
        raise TaskError(f'{path}: a [labels] table with at least two lines is missing: name = "description"')
    content["labels"] = [_label(name, value) for name, value in labels.items()]
    if isinstance(content.get("prompt"), str):
        content["prompt"] = _read_prompt(path, source, path.parent / content["prompt"])
    try:
        task = Task.model_validate(content)
    except ValidationError as error:
        raise TaskError(_explain(path, source, list(labels), error)) from None
    _check(path, source, task)
    return task


def task_of_labels(name: str, labels: Iterable[str], answer_field: str = "action") -> Task:
    """A task for someone who has no task.toml: each label's description is its name in words.

    Raises:
        TaskError: fewer than two labels.
    """
    unique = sorted(set(labels))
    if len(unique) < 2:
        raise TaskError(f"{name}: {len(unique)} label found, at least two are needed; name their column with --label")
    return Task(
        name=name,
        answer_field=answer_field,
        labels=tuple(Label(name=each, description=spoken(each)) for each in unique),
    )


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


def _label(name: str, value: object) -> dict[str, Any]:
    given = {"description": value} if isinstance(value, str) else value
    return {**given, "name": name} if isinstance(given, dict) else {"name": name, "description": value}


def _read_prompt(path: Path, source: str, file: Path) -> str:
    where = f"{path}, line {_line(source, ('prompt',))}"
    if not file.is_file():
        raise TaskError(f"{where}: there is no file {file}; give the prompt's path from the folder of task.toml")
    text = file.read_text(encoding="utf-8", errors="replace")
    if PLACE not in text:
        raise TaskError(f"{where}: {file} has no place for the labels; write {PLACE} where their list belongs")
    return text


def _check(path: Path, source: str, task: Task) -> None:
    """What holds between fields."""
    codes: dict[str, str] = {}
    folded: dict[str, str] = {}
    for label in task.labels:
        where = f"{path}, line {_line(source, ('labels', label.name))}"
        if (other := folded.setdefault(fold(label.name), label.name)) != label.name:
            raise TaskError(f"{where}: '{label.name}' and '{other}' differ only in spelling; rename one of them")
        if label.code is not None and (other := codes.setdefault(str(label.code), label.name)) != label.name:
            raise TaskError(f"{where}: '{label.name}' and '{other}' have the same code {label.code}; change one")
    if clash := next((name for name in task.names if codes.get(name, name) != name), None):
        raise TaskError(f"{path}: '{clash}' is the name of one label and the code of '{codes[clash]}'; change the code")
    for code in task.generate.languages:
        if code not in LANGUAGES:
            raise TaskError(
                f"{path}, line {_line(source, ('generate', 'languages'))}: '{code}' is no language that is known here; "
                f"known: {', '.join(LANGUAGES)}"
            )
    if task.fallback and task.fallback not in task.names:
        raise TaskError(
            f"{path}, line {_line(source, ('fallback',))}: the fallback '{task.fallback}' is no label; "
            f"add it to [labels]{_did_you_mean(task.fallback, task.names)}"
        )


def _explain(path: Path, source: str, labels: list[str], error: ValidationError) -> str:
    """The first mistake that pydantic found, in our words."""
    first = error.errors()[0]
    loc: list[Any] = list(first["loc"])
    if len(loc) > 1 and loc[0] == "labels" and isinstance(loc[1], int):
        loc[1] = labels[loc[1]]
    key = ".".join(str(part) for part in loc)
    where = f"{path}, line {_line(source, tuple(loc))}"
    if first["type"] == "extra_forbidden":
        table = next((str(part) for part in reversed(loc[:-1]) if part in _TABLES), "")
        known = list((_TABLES.get(table, Task)).model_fields)
        return f"{where}: '{key}' is no setting{_did_you_mean(str(loc[-1]), known) or '; known: ' + ', '.join(known)}"
    if first["type"] == "missing":
        return f"{where}: '{key}' is missing; add a line {loc[-1]} = ..."
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: '{key}' cannot be {json.dumps(first['input'], default=str)[:60]}: {message}; change it"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _line(source: str, path: tuple[Any, ...]) -> int:
    """The line that sets the value at `path`, or the nearest table above it; 1 where nothing matches."""
    best, line = 0, 1
    for number, found in _keys(source):
        shared = 0
        while shared < min(len(found), len(path)) and found[shared] == path[shared]:
            shared += 1
        if shared == len(found) and shared > best:
            best, line = shared, number
    return line


def _keys(source: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Line number and full path of every key and table header; tables of an array carry their number."""
    table: tuple[Any, ...] = ()
    counts: dict[tuple[Any, ...], int] = {}
    closing = ""
    for number, line in enumerate(source.splitlines(), 1):
        if closing:
            closing = "" if closing in line else closing
            continue
        stripped = line.strip()
        if header := re.match(r"(\[\[?)([^\[\]]+)\]", stripped):
            table = _path(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            yield number, table
        elif key := re.match(
            r"""((?:"[^"]*"|'[^']*'|[\w\-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w\-]+))*)\s*=""", stripped
        ):
            yield number, table + _path(key[1])
            for mark in ('"""', "'''"):
                closing = mark if stripped.count(mark) == 1 else closing


def _path(key: str) -> tuple[Any, ...]:
    node: Any = tomllib.loads(f"{key.strip()} = 0")
    path: tuple[Any, ...] = ()
    while isinstance(node, dict):
        (name, node), *_ = node.items()
        path += (name,)
    return path
