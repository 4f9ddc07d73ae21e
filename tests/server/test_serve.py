"""`fingerpost serve` through OpenAI's client and a real socket: jobs, chat, route, files, batches, keys, the request log."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from conftest import TEXTS
from serving import Serving, chat_lines, finished, messages_of, upload, wait

from fingerpost.data.importer import import_log
from fingerpost.store.project import Store
from fingerpost.store.server import ServerStore
from fingerpost.task.settings import Task


def test_a_job_from_files_to_model(server: Serving, tuned: str, tiny_encoder: Path) -> None:
    client = server.client()
    job = next(job for job in client.fine_tuning.jobs.list() if job.fine_tuned_model == tuned)
    assert tuned == f"ft:gpt-4o-mini-2024-07-18:local:shop:{job.id[-8:]}" == job.fine_tuned_model
    assert (job.seed, job.metadata, job.hyperparameters.n_epochs) == (7, {"who": "me"}, 1)
    assert job.error is not None
    assert not job.error.message
    assert job.finished_at is not None
    assert job.finished_at >= job.created_at
    assert job.trained_tokens
    assert {tuned, "student"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(tuned).id == tuned
    told = messages_of(client, job.id)
    assert told[0] == f"Created fine-tuning job: {job.id}"
    assert "gpt-4o-mini-2024-07-18" in told[1]
    assert str(tiny_encoder) in told[1]
    assert f"New fine-tuned model created: {tuned}" in told
    newest = client.fine_tuning.jobs.list_events(job.id, limit=1)
    assert newest.data[0].message == "The job has successfully completed"
    assert newest.has_more
    assert len(list(client.fine_tuning.jobs.list_events(job.id, limit=3))) == len(told)
    table = client.files.content(job.result_files[0]).text.splitlines()
    assert table[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert len(table) == 3
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert checkpoint.step_number in (0, 1)
    reply = client.chat.completions.create(
        model=checkpoint.fine_tuned_model_checkpoint, messages=[{"role": "user", "content": "where is my parcel"}]
    )
    assert reply.choices[0].message.content == '{"action": "delivery"}'


def test_chat_answers_in_the_format_of_the_training_data(server: Serving, tuned: str) -> None:
    reply = server.client().chat.completions.create(
        model=tuned, temperature=0, max_tokens=20, n=2, user="someone",
        messages=[
            {"role": "system", "content": "any prompt"},
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "How can I help?"},
            {"role": "user", "content": [{"type": "text", "text": "my invoice is wrong"}]},
        ],
    )  # fmt: skip
    assert [choice.message.content for choice in reply.choices] == ['{"action": "billing"}'] * 2
    assert reply.model == tuned
    assert reply.usage is not None
    assert reply.usage.prompt_tokens > 5
    assert reply.usage.completion_tokens > 3
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_log_probabilities_are_the_calibrated_confidence(server: Serving) -> None:
    raw = server.client().chat.completions.with_raw_response.create(
        model="student", messages=[{"role": "user", "content": "my invoice is wrong"}], logprobs=True, top_logprobs=3
    )
    choice = raw.parse().choices[0]
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert "".join(token.token for token in tokens) == choice.message.content == '{"action": "billing"}'
    sure = math.exp(sum(token.logprob for token in tokens))
    assert sure == pytest.approx(float(raw.headers["x-fingerpost-confidence"]), abs=1e-4)
    ranked = next(token.top_logprobs for token in tokens if token.top_logprobs)
    assert ranked[0].token == '"billing"'
    assert sum(math.exp(token.logprob) for token in ranked) == pytest.approx(1, abs=1e-6)
    assert raw.headers["x-fingerpost-by"] == "student"
    assert 0 < float(raw.headers["x-fingerpost-latency-ms"]) < 10_000


def test_a_streamed_reply_is_the_same(server: Serving) -> None:
    chunks = list(server.client().chat.completions.create(
        model="student", messages=[{"role": "user", "content": "my invoice is wrong"}], stream=True, logprobs=True,
        stream_options={"include_usage": True},
    ))  # fmt: skip
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == '{"action": "billing"}'
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert all(chunk.usage is None for chunk in chunks[:-1])
    with_logprobs = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].logprobs]
    assert len(with_logprobs) == 3


def schema(values: list[object], field: str = "route") -> dict[str, object]:
    inner = {"type": "object", "properties": {field: {"type": "string", "enum": values}}, "required": [field]}
    return {"type": "json_schema", "json_schema": {"name": "r", "strict": True, "schema": inner}}


def test_an_enum_restricts_the_answer(server: Serving) -> None:
    reply = server.ask("my invoice is wrong", response_format=schema(["delivery", "other"]), logprobs=True)
    content = json.loads(reply.json()["choices"][0]["message"]["content"])
    assert list(content) == ["route"]
    assert content["route"] in ("delivery", "other")
    renamed = server.ask("my invoice is wrong", response_format=schema(["Billing", "x"]))
    assert json.loads(renamed.json()["choices"][0]["message"]["content"]) == {"route": "Billing"}
    route = server.post("/v1/route", {"input": "my invoice is wrong", "labels": ["delivery", "other"]}).json()["data"][
        0
    ]
    assert sorted(route["scores"]) == ["delivery", "other"] and route["label"] == content["route"]
    wrong = server.ask("my invoice is wrong", response_format=schema(["red", "blue"]))
    assert wrong.status_code == 400
    assert wrong.json()["error"]["param"] == "response_format"


def test_a_pydantic_model_as_response_format(server: Serving) -> None:
    from enum import Enum

    from pydantic import BaseModel

    class Route(Enum):
        billing = "billing"
        delivery = "delivery"

    class Answer(BaseModel):
        route: Route

    parsed = server.client().chat.completions.parse(
        model="student", messages=[{"role": "user", "content": "where is my parcel"}], response_format=Answer
    )
    assert parsed.choices[0].message.parsed == Answer(route=Route.delivery)


def test_a_forced_tool_is_called_with_the_label(server: Serving) -> None:
    parameters = {"type": "object", "properties": {"to": {"enum": ["billing", "delivery"]}}}
    reply = server.client().chat.completions.create(
        model="student", messages=[{"role": "user", "content": "where is my parcel"}],
        tools=[{"type": "function", "function": {"name": "route", "parameters": parameters}}],
        tool_choice={"type": "function", "function": {"name": "route"}},
    )  # fmt: skip
    (call,) = reply.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("route", {"to": "delivery"})
    assert reply.choices[0].finish_reason == "tool_calls"


def test_route_takes_one_and_many(server: Serving) -> None:
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "where is my parcel"},
    ]
    body = server.post("/v1/route", {"input": ["my invoice is wrong", turns]}).json()
    assert [decision["label"] for decision in body["data"]] == ["billing", "delivery"]
    assert body["model"] == "student"
    for decision in body["data"]:
        assert sum(decision["scores"].values()) == pytest.approx(1)
        assert decision["confidence"] == decision["scores"][decision["label"]]
        assert decision["by"] == "student"
    body = server.post("/v1/route", {"input": "my invoice is wrong", "labels": ["other"], "scores": False}).json()
    (decision,) = body["data"]
    assert (decision["label"], decision["confidence"], "scores" in decision) == ("other", 1, False)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (lambda label: f"Dear customer, about {label}: {os.urandom(4).hex()}", "not_a_classification"),
        (lambda label: json.dumps({"label": label, "why": os.urandom(4).hex()}), "not_a_classification"),
        (lambda _: "", "invalid_training_file"),
    ],
)
def test_a_job_fails_if_its_file_is_no_classification(server: Serving, reply: Callable[[str], str], code: str) -> None:
    client = server.client()
    job = client.fine_tuning.jobs.create(model="m", training_file=upload(client, chat_lines(reply)))
    job = finished(client, job.id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == (code, "training_file")
    assert job.error.message in messages_of(client, job.id)


@pytest.fixture(scope="module")
def resumed(server: Serving) -> str:
    """A job with integer codes as replies that was paused in training and resumed later; a second job was cancelled."""
    client = server.client()
    prompt = "Route.\n- 3: billing: invoices\n- 7: delivery: parcels\n- 12: other: the rest"
    codes = {"billing": 3, "delivery": 7, "other": 12}
    file = upload(client, chat_lines(lambda label: str(codes[label]), system=prompt))

    def create() -> str:
        return client.fine_tuning.jobs.create(model="m", training_file=file, hyperparameters={"n_epochs": 1}).id

    def status(job: str) -> str:
        return client.fine_tuning.jobs.retrieve(job).status

    first = create()
    wait(lambda: status(first) == "running")
    client.fine_tuning.jobs.pause(first)
    wait(lambda: status(first) == "queued")
    second = create()
    wait(lambda: status(second) == "running")
    assert client.fine_tuning.jobs.cancel(second).status == "cancelled"
    assert status(first) == "queued"
    client.fine_tuning.jobs.resume(first)
    return first


@pytest.mark.slow
def test_jobs_can_be_paused_resumed_and_cancelled(server: Serving, resumed: str) -> None:
    client = server.client()
    assert finished(client, resumed).status == "succeeded", messages_of(client, resumed)
    with pytest.raises(openai.BadRequestError) as error:
        client.fine_tuning.jobs.cancel(resumed)
    assert error.value.code == "job_ended"


@pytest.mark.slow
def test_a_model_trained_on_integer_codes_replies_with_codes(server: Serving, resumed: str) -> None:
    client = server.client()
    model = finished(client, resumed).fine_tuned_model
    reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "my invoice is wrong"}])
    assert reply.choices[0].message.content == "3"
    (decision,) = server.post("/v1/route", {"model": model, "input": "where is my parcel"}).json()["data"]
    assert (decision["label"], decision["code"]) == ("delivery", 7)
    assert client.models.delete(model).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}])


@pytest.mark.slow
def test_a_job_survives_being_paused_and_resumed_at_once(server: Serving) -> None:
    client = server.client()
    job = client.fine_tuning.jobs.create(
        model="m", training_file=upload(client, chat_lines()), hyperparameters={"n_epochs": 1}
    )
    for _ in range(5):
        client.fine_tuning.jobs.pause(job.id)
        client.fine_tuning.jobs.resume(job.id)
    assert finished(client, job.id).status == "succeeded", messages_of(client, job.id)


def test_files_are_listed_given_back_and_deleted(server: Serving) -> None:
    client = server.client()
    ids = [upload(client, f"line {i}\n", "user_data", f"n{i}.txt") for i in range(3)]
    listed = client.files.list(purpose="user_data", limit=2)
    assert [file.id for file in listed] == ids[::-1]
    assert client.files.content(ids[1]).read() == b"line 1\n"
    assert client.files.retrieve(ids[1]).filename == "n1.txt"
    assert client.files.wait_for_processing(ids[1]).status == "processed"
    assert client.files.delete(ids[1]).deleted
    with pytest.raises(openai.NotFoundError) as error:
        client.files.content(ids[1])
    assert error.value.code == "file_not_found"


def test_a_batch_of_chat_completions(server: Serving) -> None:
    client = server.client()
    texts = [text for group in TEXTS.values() for text in group]
    lines = [
        {"custom_id": f"n{i}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "student" if i else "nobody", "messages": [{"role": "user", "content": text}]}}
        for i, text in enumerate(texts)
    ]  # fmt: skip
    file = upload(client, "\n".join(map(json.dumps, lines)), "batch")
    batch = client.batches.create(
        input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )
    batch = wait(lambda: (found := client.batches.retrieve(batch.id)).status == "completed" and found)
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (30, 29, 1)
    answers = [json.loads(line) for line in client.files.content(str(batch.output_file_id)).text.splitlines()]
    assert {answer["custom_id"] for answer in answers} == {f"n{i}" for i in range(1, 30)}
    assert all(answer["response"]["status_code"] == 200 for answer in answers)
    (error,) = [json.loads(line) for line in client.files.content(str(batch.error_file_id)).text.splitlines()]
    assert (error["custom_id"], error["response"]["status_code"]) == ("n0", 404)
    assert error["response"]["body"]["error"]["code"] == "model_not_found"


def test_a_batch_of_responses(server: Serving) -> None:
    client = server.client()
    lines = [
        {"custom_id": "one", "method": "POST", "url": "/v1/responses", "body": {"model": "student", "input": "my invoice", "stream": True}},
        {"custom_id": "two", "method": "POST", "url": "/v1/responses", "body": {"model": "student", "input": 3}},
    ]  # fmt: skip
    file = upload(client, "\n".join(map(json.dumps, lines)), "batch")
    batch = client.batches.create(input_file_id=file, endpoint="/v1/responses", completion_window="24h")
    batch = wait(lambda: (found := client.batches.retrieve(batch.id)).status == "completed" and found)
    (answer,) = [json.loads(line) for line in client.files.content(str(batch.output_file_id)).text.splitlines()]
    assert answer["response"]["body"]["object"] == "response" and answer["custom_id"] == "one"
    (error,) = [json.loads(line) for line in client.files.content(str(batch.error_file_id)).text.splitlines()]
    assert error["response"]["status_code"] == 400


def test_a_line_that_cannot_be_answered_does_not_end_the_batch(server: Serving) -> None:
    client = server.client()
    bodies = [
        {
            "model": "student",
            "messages": [{"role": "user", "content": "my invoice"}],
            "tool_choice": {"type": "function", "function": "f"},
        },
        {"model": "student", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"model": "student", "messages": 7},
    ]
    file = upload(
        client, "\n".join(json.dumps({"custom_id": str(i), "body": body}) for i, body in enumerate(bodies)), "batch"
    )
    batch = client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")
    batch = wait(lambda: (found := client.batches.retrieve(batch.id)).status == "completed" and found)
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 2)


def test_an_invalid_batch_file_fails_with_its_lines(server: Serving) -> None:
    client = server.client()
    file = upload(
        client,
        'nonsense\n{"custom_id": "a", "body": {}}\n{"custom_id": "a", "body": {}}\n[1]\n{"custom_id": "\\ud800", "body": {}}\n',
        "batch",
    )
    batch = client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")
    batch = wait(lambda: (found := client.batches.retrieve(batch.id)).status == "failed" and found)
    assert batch.errors is not None
    assert [(error.line, error.code) for error in batch.errors.data or []] == [
        (1, "invalid_json_line"), (3, "duplicate_custom_id"), (4, "invalid_request"), (5, "invalid_json_line"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "/v1/chat/completions", {"model": "student"}, 400, "messages"),
        ("POST", "/v1/chat/completions", {"model": "nobody", "messages": [{"role": "user", "content": "x"}]}, 404, "model"),
        ("POST", "/v1/chat/completions", {"model": "student", "messages": [{"role": "assistant", "content": "x"}]}, 400, "messages"),
        ("POST", "/v1/chat/completions", {"model": "student", "messages": [{"role": "user", "content": "\ud800"}]}, 400, None),
        ("POST", "/v1/chat/completions", {"model": "student", "messages": [{"role": "user", "content": "x"}], "user": "\ud800"}, 400, None),
        ("POST", "/v1/fine_tuning/jobs", {"model": "m", "training_file": "f", "hyperparameters": {"batch_size": "\ud800"}}, 400, None),
        ("POST", "/v1/fine_tuning/jobs", {"model": "m", "training_file": "file-none"}, 400, "training_file"),
        ("POST", "/v1/fine_tuning/jobs", {"model": "m", "training_file": "f", "suffix": "x" * 65}, 400, "suffix"),
        ("GET", "/v1/fine_tuning/jobs/ftjob-none", None, 404, None),
        ("GET", "/v1/files/file-none", None, 404, None),
        ("GET", "/v1/files?limit=0", None, 400, "limit"),
        ("GET", "/v1/nowhere", None, 404, None),
        ("PUT", "/v1/models", None, 405, None),
        ("POST", "/v1/batches", {"input_file_id": "x", "endpoint": "/v1/embeddings", "completion_window": "24h"}, 400, "endpoint"),
    ],
)  # fmt: skip
def test_errors_are_the_standard_object(
    server: Serving, method: str, path: str, body: object, status: int, param: str | None
) -> None:
    content = None if body is None else json.dumps(body).encode("ascii")
    headers = {"content-type": "application/json"}
    found = httpx2.request(method, server.url.removesuffix("/v1") + path, content=content, headers=headers)
    assert found.status_code == status
    error = found.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert param is None or str(error["param"]).startswith(param)
    assert found.headers["x-request-id"].startswith("req_")


def test_health_and_metrics(server: Serving) -> None:
    assert server.get("/healthz").json() == {"status": "ok"}
    assert "student" in server.get("/readyz").json()["models"]
    server.ask("my invoice is wrong")
    found = server.get("/metrics").text
    assert 'fingerpost_decisions_total{by="student",model="student",teacher=""}' in found
    assert 'fingerpost_requests_total{route="/v1/chat/completions",status="200"}' in found
    line = next(event for event in server.events() if event["event"] == "request" and event["status"] == 200)
    assert {"request_id", "method", "path", "ms", "at", "level"} <= set(line)


def test_web_pages_of_other_hosts_are_refused(server: Serving) -> None:
    body = {"model": "student", "messages": [{"role": "user", "content": "x"}]}
    assert server.post("/v1/chat/completions", body, origin="https://example.org").status_code == 403
    assert server.get("/v1/files", host="example.org").status_code == 403


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory, student: Path) -> Iterator[Serving]:
    """A server with keys, limits and no request log."""
    limits = ["--require-keys", "--requests-per-minute", "5", "--max-upload", "1", "--no-log-requests"]
    server = Serving(tmp_path_factory.mktemp("restricted"), f"student={student}", *limits)
    new_key(server, "first")  # the server does not start without one
    with server:
        yield server


def keys(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fingerpost", "keys", *arguments, "--data", str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


def new_key(server: Serving, name: str) -> str:
    store = ServerStore(server.folder / "fingerpost.db")
    key = store.add_key(name)
    store.close()
    return key


def test_keys_are_added_listed_and_revoked(restricted: Serving) -> None:
    for wrong in ({}, {"authorization": "Bearer wrong"}):
        assert restricted.get("/v1/models", **wrong).status_code == 401
    key = keys(restricted.folder, "add", "app").stdout.strip()
    assert key.startswith("sk-fp-")
    assert key.encode() not in (restricted.folder / "fingerpost.db").read_bytes()
    headers = {"authorization": f"Bearer {key}"}
    wait(lambda: restricted.get("/v1/models", **headers).status_code == 200)
    assert "app" in keys(restricted.folder, "list").stdout
    assert keys(restricted.folder, "revoke", "app").returncode == 0
    wait(lambda: restricted.get("/v1/models", **headers).status_code == 401)
    assert restricted.get("/healthz").status_code == 200


def test_uploads_and_request_rates_are_limited(restricted: Serving) -> None:
    client = restricted.client(new_key(restricted, "limits"))
    wait(lambda: _accepted(client))
    with pytest.raises(openai.APIStatusError) as error:
        upload(client, "x" * 1_200_000, "user_data")
    assert error.value.status_code == 413
    with pytest.raises(openai.RateLimitError):
        for _ in range(6):
            client.models.list()


def _accepted(client: openai.OpenAI) -> bool:
    """Whether the server knows the client's key."""
    try:
        return bool(client.models.list().data)
    except openai.AuthenticationError:
        return False


def test_without_a_request_log_nothing_is_stored(restricted: Serving) -> None:
    client = restricted.client(new_key(restricted, "no-log"))
    wait(lambda: _accepted(client))
    client.chat.completions.create(model="student", messages=[{"role": "user", "content": "my invoice is wrong"}])
    store = ServerStore(restricted.folder / "fingerpost.db")
    assert list(store.log_entries()) == []
    store.close()


def test_a_second_server_in_the_same_folder_is_refused(restricted: Serving, student: Path) -> None:
    with pytest.raises(AssertionError, match="--data"):
        Serving(restricted.folder, student).start()


def test_other_machines_need_a_key(tmp_path: Path, student: Path) -> None:
    with pytest.raises(AssertionError, match="fingerpost keys add"):
        Serving(tmp_path, student, "--host", "0.0.0.0").start()


def test_the_request_log_can_be_imported(
    folder: Path, student: Path, task: Task, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (folder / "hide.py").write_text("import re\n\ndef digits(text):\n    return re.sub(r'[0-9]', '#', text)\n")
    texts = ["my invoice 4711 is wrong", "where is my parcel", "purple monkey dishwasher", "where is my parcel"]
    with Serving(folder / "served", f"student={student}", "--redact", "hide:digits", cwd=folder) as server:
        for text in texts:
            server.ask(text)
    run = cli("import", "--from-log", "--limit", "1")
    assert run.returncode == 0, run.stderr
    log = ServerStore(folder / "served" / "fingerpost.db")
    with Store(folder / "fingerpost.db") as store:
        (unsure,) = store.questions()
        assert unsure.split == "train"
        imported = import_log(store, task, log.log_entries(), "served")
        assert (imported.rows, imported.new, imported.verdicts) == (4, 2, 0)
        assert import_log(store, task, log.log_entries(), "served").new == 0
        assert {question.messages[-1].content for question in store.questions()} == {
            "my invoice #### is wrong", "where is my parcel", "purple monkey dishwasher",
        }  # fmt: skip
        assert all(question.source == "served" for question in store.questions())
    log.close()
    assert cli("import", "--from-log", "nowhere").returncode == 2


def test_a_changed_model_is_reloaded_without_a_failed_request(tmp_path: Path, student: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(student, model)
    manifest = json.loads((model / "manifest.json").read_text())
    renamed = tmp_path / "manifest.json"
    renamed.write_text(json.dumps({**manifest, "answer_field": "queue"}))
    with Serving(tmp_path / "served", f"student={model}") as server:
        statuses: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                statuses.append(server.ask("where is my parcel").status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        shutil.copyfile(student / "model.onnx", model / "new.onnx")
        (model / "new.onnx").replace(model / "model.onnx")
        renamed.replace(model / "manifest.json")
        wait(lambda: "queue" in server.ask("where is my parcel").text)
        (model / "model.onnx").write_bytes(b"broken")
        (model / "manifest.json").touch()
        wait(lambda: 'fingerpost_model_swaps_total{result="failed"} 1.0' in server.get("/metrics").text)
        assert "queue" in server.ask("where is my parcel").text
        stop.set()
        asking.join()
        assert set(statuses) == {200}


def test_a_graceful_stop_answers_requests_in_flight(tmp_path: Path, student: Path) -> None:
    with Serving(tmp_path, f"student={student}") as server:
        statuses: list[int] = []
        body = {"input": ["my invoice is wrong"] * 256}
        asking = threading.Thread(target=lambda: statuses.append(server.post("/v1/route", body).status_code))
        asking.start()
        wait(lambda: _waiting(server) > 0 or statuses)
        server.process.send_signal(signal.SIGTERM)
        asking.join()
        assert statuses == [200]
        assert server.process.wait() in (0, -signal.SIGTERM)


def _waiting(server: Serving) -> float:
    metrics = dict(line.rsplit(" ", 1) for line in server.get("/metrics").text.splitlines())
    return float(metrics["fingerpost_waiting"])
