"""Everything that reads what others wrote, with drawn input: a result or one of our errors, in bounded time."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unicodedata import category

import httpx2
import pytest
from conftest import TASK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fingerpost.cli.terminal import parse_numbers
from fingerpost.core.errors import FingerpostError
from fingerpost.core.types import Label
from fingerpost.data.chat import as_classification, is_chat_file, read_chat
from fingerpost.data.files import SUFFIXES, read_rows
from fingerpost.data.formats import FileFormat
from fingerpost.data.rows import Columns, read_labelled_rows
from fingerpost.generation.brief import Brief, Item
from fingerpost.generation.prompts import count_surplus, read_conversations, read_out_of_scope_topics
from fingerpost.labelling.descriptions import parse_description
from fingerpost.llm.batch import _json_object, _parse_line
from fingerpost.llm.client import retry_after
from fingerpost.llm.completion import RequestLost, parse_completion, parse_reply, usage_with_cost
from fingerpost.llm.recording import ReplayTransport
from fingerpost.server.jobs.batches import _answered, _InputFile
from fingerpost.store.project import Store
from fingerpost.students import load
from fingerpost.task.loader import load_task
from fingerpost.task.replies import parse, resolve
from fingerpost.task.reply_format import find_reply_template, find_user_template, value_in
from fingerpost.task.settings import Prices, Task, TeacherSettings

pytestmark = pytest.mark.slow
TASK_OF_LABELS = Task(name="t", labels=(Label(name="billing"), Label(name="delivery", code=7), Label(name="other")))
SHEET = Task(name="t", multi=True, labels=TASK_OF_LABELS.labels)
TEACHER = TeacherSettings(model="m", prices=Prices(input=1.0, output=2.0))
DEEP = "[" * 50_000

texts = st.text(max_size=30) | st.sampled_from(
    ["", " ", "\0", "\ud800", "a\u2028b", "\x1b[2J", "=1+1", '"', "billing", '{"action": "billing"}', "9" * 5_000, DEEP]
)
numbers = (
    st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.sampled_from([-1, 0, 2**31, 2**63, 10**23, 1e308, -0.0])
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)


@st.composite
def changed(draw: Any, valid: Any) -> Any:
    """A valid JSON value, with up to three parts replaced or removed."""
    value = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(0, 3))):
        place = value
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
                if draw(st.booleans()):
                    place[key] = draw(values)
                else:
                    del place[key]
                break
            place = place[key]
    return value


@st.composite
def damaged(draw: Any, valid: bytes) -> bytes:
    """Bytes with a few of them changed, cut out or inserted."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            data[place : place + 1] = draw(st.binary(max_size=3))
        elif kind == 1:
            del data[place : place + draw(st.integers(1, 40))]
        else:
            data[place:place] = draw(
                st.sampled_from([b'"', b"\\", b"\n", b"\r", b"\0", b"\xff", b"{", b"]", b",", b";", b"\t", b"'''"])
            )
    return bytes(data)


def ours(call: Callable[[], Any]) -> None:
    """Call it; only our errors may come."""
    try:
        call()
    except FingerpostError as error:
        assert not any(category(character) in ("Cc", "Cs", "Zl", "Zp") for character in str(error)), error


def usual(examples: int = 300) -> Any:
    return settings(max_examples=examples, deadline=20_000, suppress_health_check=list(HealthCheck))


CSV = b'text,label,split\n"my, invoice",billing,train\nwhere is it,delivery,test\n"two\nlines",other,\n'
JSONL = b'{"text": "my invoice", "label": "billing"}\n{"messages": [{"role": "user", "content": "x"}], "label": ["other"]}\n'
CHAT = "".join(
    dumps({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": f"q {i}"},
                        {"role": "assistant", "content": dumps({"action": ("a", "b")[i % 2]}), "weight": 1}]}) + "\n"
    for i in range(12)
).encode()  # fmt: skip


@usual()
@given(
    st.sampled_from(SUFFIXES),
    st.binary(max_size=200) | damaged(CSV) | damaged(JSONL) | damaged(CHAT) | st.just(DEEP.encode()),
    st.booleans(),
)
def test_files_of_rows(suffix: str, data: bytes, quotes: bool) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"x{suffix}"
        file.write_bytes(data)
        columns = Columns(format=FileFormat(quotes=quotes))
        ours(lambda: list(read_rows(file, columns.format)))
        for task in (None, TASK_OF_LABELS, SHEET):
            ours(lambda task=task: list(read_labelled_rows(file, columns, task)))
            ours(lambda task=task: list(read_labelled_rows(file, Columns(teacher="m", multi=task is None), task)))
        ours(lambda: is_chat_file(file, Columns()))
        ours(lambda: as_classification(read_chat(file, 1), "x"))


@usual()
@given(st.lists(values, max_size=5), st.sampled_from(["train", "test", None]), values)
def test_rows_of_any_json(rows: list[Any], split: str | None, source: Any) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "x.jsonl"
        file.write_text("".join(dumps({"text": "x", "label": row, "split": split, "source": source}) + "\n" for row in rows)
                        + "".join(dumps({"messages": row}) + "\n" for row in rows) + "{}\n")  # fmt: skip
        ours(lambda: list(read_labelled_rows(file, Columns(), TASK_OF_LABELS)))
        ours(lambda: list(read_labelled_rows(file, Columns(multi=True), None)))
        with Store(Path(folder) / "db") as store:
            from fingerpost.data.importer import import_file

            ours(lambda: import_file(store, TASK_OF_LABELS, file, Columns(teacher="m", text="text")))
            ours(lambda: import_file(store, SHEET, file, Columns(person="p", label="label", text="text")))


@usual()
@given(damaged(TASK.encode()) | st.binary(max_size=100))
def test_task_files(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "task.toml"
        file.write_bytes(data)
        ours(lambda: load_task(file))


@usual(600)
@given(texts | values.map(dumps))
def test_replies(reply: str) -> None:
    for task in (TASK_OF_LABELS, SHEET):
        assert parse(task, reply) is None or isinstance(parse(task, reply), str)
    parse_description(reply)
    for form in ("messages", "wordings", "follow_ups"):
        brief = Brief(form=form, items=(Item("plain", "billing"), Item("plain", "other")))
        read_conversations(brief, reply)
        count_surplus(brief, reply)
    read_out_of_scope_topics(reply)
    assert retry_after({"retry-after": reply, "date": reply}) is None or retry_after({"retry-after": reply}) != -1
    parse_numbers(reply, 9)


@usual()
@given(values)
def test_values_of_labels(value: Any) -> None:
    resolve(TASK_OF_LABELS, value)
    resolve(SHEET, value)


COMPLETION = {
    "id": "x", "object": "chat.completion", "created": 0, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "a", "refusal": None,
                 "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
                 "logprobs": {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": []}]}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}},
}  # fmt: skip


@usual(600)
@given(changed(COMPLETION) | values, st.binary(max_size=100))
def test_completions(value: Any, data: bytes) -> None:
    for call in (
        lambda: parse_completion(value, 0.1, "x"),
        lambda: parse_reply(data, 0.1, "x"),
        lambda: _parse_line({"response": value}, "x"),
        lambda: _parse_line({"response": {"status_code": 200, "body": value}}, "x"),
    ):
        try:
            reply = call()
        except RequestLost:
            continue
        if reply is not None:
            cost = usage_with_cost(TEACHER, reply, 0.5).cost_usd
            assert cost is not None and 0 <= cost < 1e4
            (reply.text or "").encode()
    _json_object(dumps(value))
    _json_object(data.decode("latin-1"))


@usual()
@given(st.lists(texts, min_size=1, max_size=12), texts)
def test_replies_of_training_files(replies: list[str], other: str) -> None:
    try:
        template, _, _ = find_reply_template(replies)
    except FingerpostError:
        return
    value_in(template, other)
    find_user_template(replies)


RECORDED = {
    "key": "k",
    "reply": "a",
    "prompt_tokens": 1,
    "cached_tokens": 0,
    "completion_tokens": 1,
    "latency_s": 0.1,
    "logprob": -0.1,
}


@usual(150)
@given(st.lists(changed(RECORDED), max_size=3), damaged(dumps(RECORDED).encode()))
def test_recordings(lines: list[Any], data: bytes) -> None:
    import asyncio

    with TemporaryDirectory() as folder:
        file = Path(folder) / "x.jsonl"
        for content in ("".join(dumps(line) + "\n" for line in lines).encode(), data):
            file.write_bytes(content)

            def replay() -> None:
                transport = ReplayTransport(file)
                transport._answers = dict.fromkeys(
                    [*transport._answers, "k"], *list(transport._answers.values())[:1] or [None]
                )
                body = json.dumps({"model": "m", "messages": []}).encode()
                asyncio.run(transport.handle_async_request(httpx2.Request("POST", "http://x", content=body)))

            ours(replay)


SETTLEMENT = {
    "call_id": 1, "outcome": "paid", "usage": {"prompt": 1, "cached": 0, "completion": 1, "cost_usd": 0.1, "latency_s": 0.1},
    "result": {"question_id": "q", "kind": "teacher", "by": "m", "label": "a"}, "idempotent": False,
}  # fmt: skip


@usual(150)
@given(damaged(dumps(SETTLEMENT).encode() + b"\n"), changed(SETTLEMENT))
def test_answers_that_were_put_aside(data: bytes, value: Any) -> None:
    with TemporaryDirectory() as folder:
        database = Path(folder) / "db"
        Store(database).close()
        for content in (data, dumps(value).encode() + b"\n"):
            database.with_name("db.unstored-x").write_bytes(content)
            ours(lambda: Store(database).close())


LINE = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}


@usual()
@given(damaged(dumps(LINE).encode()), changed(LINE))
def test_lines_of_batches(data: bytes, value: Any) -> None:
    parsed = _InputFile()
    for line in (data, dumps(value).encode(), data):
        parsed.add_line(1, line)
    json.dumps(parsed.errors).encode()


@usual(100)
@given(damaged(b'{"custom_id": "a"}\n{"custom_id": "b"}\n'))
def test_answers_of_batches(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "x"
        file.write_bytes(data)
        _answered(file)


@pytest.mark.parametrize(
    "name", ["manifest.json", "lexical.npz", "model.onnx", "tokenizer.json", "dev.jsonl", "trained_on.txt"]
)
def test_model_folders_whose_hashes_are_right(tmp_path: Path, student: Path, name: str) -> None:
    """Damaged files whose hashes the manifest lists: the model answers, or cannot be loaded with one of our errors."""
    draw = random.Random(name)
    for number in range(60):
        folder = tmp_path / str(number)
        shutil.copytree(student, folder)
        file = folder / name
        data = bytearray(file.read_bytes())
        for _ in range(draw.randint(1, 6)):
            place = draw.randrange(len(data))
            data[place : place + draw.choice([0, 1, 1, 200])] = bytes(
                draw.randrange(256) for _ in range(draw.choice([0, 1, 1, 9]))
            )
        file.write_bytes(data)
        if name != "manifest.json":
            manifest = json.loads((folder / "manifest.json").read_text())
            manifest["files"][name] = hashlib.sha256(data).hexdigest()
            (folder / "manifest.json").write_text(json.dumps(manifest))
        ours(lambda folder=folder: load(folder).predict(["my invoice", "x" * 3_000]))
        shutil.rmtree(folder)


@usual(300)
@given(st.data())
def test_manifests(student: Path, data: Any) -> None:
    manifest = json.loads((student / "manifest.json").read_text())
    value = data.draw(changed(manifest))
    with TemporaryDirectory() as name:
        folder = Path(name) / "model"
        shutil.copytree(student, folder)
        (folder / "manifest.json").write_text(dumps(value))
        ours(lambda: load(folder).predict(["my invoice", "where is my parcel"]))
