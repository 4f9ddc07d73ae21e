"""The older wires, uploads in parts, and what a client may get wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from serving import Serving, chat_lines, finished
from teacher import Teacher

LABELS = ["billing", "delivery", "other"]
TEXT = "my invoice is wrong"
QUESTION: dict[str, Any] = {"role": "user", "content": TEXT}
ROUTE = {
    "name": "route",
    "parameters": {
        "type": "object",
        "properties": {"queue": {"type": "string", "enum": LABELS}},
        "required": ["queue"],
    },
}


@pytest.fixture(scope="module")
def client(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("older") / "served"
    with Serving(folder, f"student={student}") as server, server.client() as connected:
        yield connected


def chat(client: openai.OpenAI, messages: list[dict[str, Any]], **options: Any) -> Any:
    return client.chat.completions.create(model="student", messages=messages, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("choice", [None, "auto", {"name": "route"}])
def test_functions_are_called_in_the_older_form(client: openai.OpenAI, choice: Any) -> None:
    options: dict[str, Any] = {"functions": [ROUTE]} | ({"function_call": choice} if choice else {})
    first = chat(client, [QUESTION], **options).choices[0]
    assert first.finish_reason == "function_call" and first.message.tool_calls is None
    assert first.message.function_call.name == "route"
    assert json.loads(first.message.function_call.arguments) == {"queue": "billing"}
    parts = [chunk.choices[0].delta.function_call for chunk in chat(client, [QUESTION], stream=True, **options)]
    assert "".join(part.arguments for part in parts if part) == first.message.function_call.arguments
    result = {"role": "function", "name": "route", "content": "done"}
    if choice in (None, "auto"):
        last = chat(client, [QUESTION, first.message.model_dump(exclude_none=True), result], **options).choices[0]
        assert last.message.function_call is None and "billing" in last.message.content


def test_a_prompt_without_turns_is_answered(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="student", prompt=[TEXT, "where is my parcel?"], n=2, logprobs=2)
    assert [json.loads(choice.text)["action"] for choice in answer.choices] == ["billing"] * 2 + ["delivery"] * 2
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    found = answer.choices[0].logprobs
    assert found is not None and "".join(found.tokens or []) == answer.choices[0].text
    assert answer.usage is not None and answer.usage.total_tokens > 0
    echoed = client.completions.create(model="student", prompt=TEXT, echo=True).choices[0].text
    assert echoed.startswith(TEXT + "{")
    chunks = list(client.completions.create(model="student", prompt=TEXT, stream=True))
    assert json.loads("".join(choice.text for chunk in chunks for choice in chunk.choices)) == {"action": "billing"}
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="student", prompt=[1, 2, 3])


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_request_without_a_user_is_answered(client: openai.OpenAI, role: str) -> None:
    answer = chat(client, [{"role": role, "content": TEXT}]).choices[0].message.content
    assert json.loads(answer) == {"action": "billing"}


def test_a_schema_that_is_written_in_the_prompt_is_kept(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"queue": {"type": "string", "enum": LABELS}}, "required": ["queue"]}
    system = {"role": "system", "content": f"JSON schema:\n{json.dumps(schema)}\nAnswer with JSON that matches it."}
    answer = chat(client, [system, QUESTION], response_format={"type": "json_object"}).choices[0].message.content
    assert json.loads(answer) == {"queue": "billing"}
    plain = chat(client, [{"role": "system", "content": 'Answer with {"action": ...}.'}, QUESTION],
                 response_format={"type": "json_object"})  # fmt: skip
    assert json.loads(plain.choices[0].message.content) == {"action": "billing"}


def test_completions_are_not_stored_in_silence(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="'store'"):
        chat(client, [QUESTION], store=True)
    assert chat(client, [QUESTION], store=False).choices


def test_a_file_in_parts(client: openai.OpenAI) -> None:
    content = chat_lines().encode()
    upload = client.uploads.create(
        bytes=len(content), filename="train.jsonl", mime_type="application/jsonl", purpose="fine-tune"
    )
    second = client.uploads.parts.create(upload.id, data=content[100:])
    first = client.uploads.parts.create(upload.id, data=content[:100])
    with pytest.raises(openai.BadRequestError, match="announced"):
        client.uploads.parts.create(upload.id, data=b"more")
    with pytest.raises(openai.BadRequestError, match="announced"):
        client.uploads.complete(upload.id, part_ids=[first.id])
    with pytest.raises(openai.BadRequestError, match="MD5"):
        client.uploads.complete(upload.id, part_ids=[first.id, second.id], md5="0" * 32)
    ended = client.uploads.complete(
        upload.id, part_ids=[first.id, second.id], md5=hashlib.md5(content, usedforsecurity=False).hexdigest()
    )
    assert ended.status == "completed" and ended.file is not None
    assert client.files.content(ended.file.id).content == content
    with pytest.raises(openai.BadRequestError, match="completed"):
        client.uploads.cancel(upload.id)
    other = client.uploads.create(bytes=5, filename="x", mime_type="text/plain", purpose="batch")
    assert client.uploads.cancel(other.id).status == "cancelled"
    with pytest.raises(openai.NotFoundError):
        client.uploads.cancel("upload_none")


def test_unknown_cursors_are_not_found(client: openai.OpenAI) -> None:
    for page in (client.files.list, client.batches.list, client.fine_tuning.jobs.list):
        with pytest.raises(openai.NotFoundError):
            page(after="none")


def test_jobs_are_found_by_their_metadata(server: Serving) -> None:
    with server.client() as client:
        jobs_by_metadata(client)


def jobs_by_metadata(client: openai.OpenAI) -> None:
    file = client.files.create(file=("train.jsonl", chat_lines().encode()), purpose="fine-tune").id
    jobs = [
        client.fine_tuning.jobs.create(model="x", training_file=file, metadata=given or openai.omit).id
        for given in ({"team": "hr", "run": "1"}, {"team": "hr", "run": "2"}, {"team": "sales"}, None)
    ]

    def listed(query: dict[str, str]) -> list[str]:
        return [job.id for job in client.fine_tuning.jobs.list(extra_query=query)]

    assert listed({"metadata[team]": "hr"}) == [jobs[1], jobs[0]]
    assert listed({"metadata[team]": "hr", "metadata[run]": "1"}) == [jobs[0]]
    without = listed({"metadata": "null"})
    assert jobs[3] in without and not set(without) & set(jobs[:3])
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.list_events(jobs[0], after="ftevent-999999")
    for job in jobs:
        client.fine_tuning.jobs.cancel(job)
        finished(client, job)


def test_what_no_classifier_can_fill_in_goes_to_the_teacher(student: Path, tmp_path: Path, teacher: Teacher) -> None:
    properties = {"queue": {"type": "string", "enum": LABELS}, "days": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "required": ["queue", "days"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    arguments = (f"student={student}", "--teacher", "t", "--teacher-url", teacher.base_url, "--cutoff", "0")
    with Serving(tmp_path / "served", *arguments, OPENAI_API_KEY="none") as server, server.client() as client:
        teacher.reply = '{"queue": "billing", "days": 3}'
        answer = client.chat.completions.with_raw_response.create(
            model="student", messages=[QUESTION], response_format=form  # type: ignore[arg-type, list-item]
        )  # fmt: skip
        assert answer.headers["x-fingerpost-by"] == "teacher"
        assert answer.parse().choices[0].message.content == teacher.reply
        assert teacher.bodies[-1]["response_format"] == form
        streamed = chat(client, [QUESTION], response_format=form, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == teacher.reply
        teacher.reply = '{"queue": "billing"}'
        with pytest.raises(openai.BadRequestError, match="days"):
            chat(client, [QUESTION], response_format=form)
        teacher.fail = [(500, {})]
        with pytest.raises(openai.InternalServerError, match="status-500"):
            chat(client, [QUESTION], response_format=form)
