"""`fingerpost serve` as official clients see it, over a real socket: the recipe, chat, route, files, batches, keys, the log."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx2
import openai
import pytest
from conftest import TEXTS, write_labelled
from serving import Serving, chat_lines, finished, messages_of, upload, wait

from fingerpost.store.project import Store


def test_a_job_from_files_to_model(server: Serving, tuned: str, tiny_encoder: Path) -> None:
    client = server.client()
    job = next(each for each in client.fine_tuning.jobs.list() if each.fine_tuned_model == tuned)
    assert tuned == f"ft:gpt-4o-mini-2024-07-18:local:shop:{job.id[-8:]}" == job.fine_tuned_model
    assert (job.seed, job.metadata, job.hyperparameters.n_epochs) == (7, {"who": "me"}, 1)
    assert job.error is not None
    assert not job.error.message
    assert job.finished_at is not None
    assert job.finished_at >= job.created_at
    assert job.trained_tokens
    assert {tuned, "student"} <= {each.id for each in client.models.list()}
    assert client.models.retrieve(tuned).id == tuned
    told = messages_of(client, job.id)
    assert told[0] == f"Created fine-tuning job: {job.id}"
    assert "gpt-4o-mini-2024-07-18" in told[1] and str(tiny_encoder) in told[1]
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


def test_chat_answers_in_the_form_of_the_training_data(server: Serving, tuned: str) -> None:
    reply = server.client().chat.completions.create(
        model=tuned, temperature=0, max_tokens=20, n=2, user="someone",
        messages=[
            {"role": "system", "content": "any prompt"},
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "How can I help?"},
            {"role": "user", "content": [{"type": "text", "text": "my invoice is wrong"}]},
        ],
    )  # fmt: skip
    assert [each.message.content for each in reply.choices] == ['{"action": "billing"}'] * 2
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
    assert sum(math.exp(each.logprob) for each in ranked) == pytest.approx(1, abs=1e-6)
    assert raw.headers["x-fingerpost-by"] == "student"
    assert 0 < float(raw.headers["x-fingerpost-latency-ms"]) < 10_000


def test_streamed_it_is_the_same_reply(server: Serving) -> None:
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
    wide = json.loads(
        server.ask("my invoice is wrong", response_format=schema(["Billing", "x"])).json()["choices"][0]["message"][
            "content"
        ]
    )
    assert wide == {"route": "Billing"}
    wrong = server.ask("my invoice is wrong", response_format=schema(["red", "blue"]))
    assert wrong.status_code == 400
    assert (
        "none of the values in the enum is a label of 'student' (billing, delivery, other"
        in wrong.json()["error"]["message"]
    )


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


def test_who_routes_by_integers_gets_integers(server: Serving) -> None:
    client = server.client()
    codes = {"billing": 3, "delivery": 7, "other": 12}
    prompt = "Route.\n- 3: billing: invoices\n- 7: delivery: parcels\n- 12: other: the rest"
    file = upload(client, chat_lines(lambda label: str(codes[label]), system=prompt))
    job = client.fine_tuning.jobs.create(
        model="gpt-3.5-turbo-0613", training_file=file, hyperparameters={"n_epochs": 1}
    )
    job = finished(client, job.id)
    assert job.status == "succeeded", messages_of(client, job.id)
    model = str(job.fine_tuned_model)
    reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "my invoice is wrong"}])
    assert reply.choices[0].message.content == "3"
    routed = server.post("/v1/route", {"model": model, "input": "where is my parcel"}).json()["data"][0]
    assert (routed["label"], routed["code"]) == ("delivery", 7)
    assert client.models.delete(model).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}])


def test_route_takes_one_and_many(server: Serving) -> None:
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "where is my parcel"},
    ]
    body = server.post("/v1/route", {"input": ["my invoice is wrong", turns]}).json()
    assert [each["label"] for each in body["data"]] == ["billing", "delivery"]
    assert body["model"] == "student"
    for each in body["data"]:
        assert sum(each["scores"].values()) == pytest.approx(1)
        assert each["confidence"] == each["scores"][each["label"]]
        assert each["by"] == "student"
    one = server.post("/v1/route", {"input": "my invoice is wrong", "labels": ["other"], "scores": False}).json()[
        "data"
    ]
    assert [(each["label"], each["confidence"], "scores" in each) for each in one] == [("other", 1, False)]


@pytest.mark.parametrize(
    ("replies", "code", "says"),
    [
        (
            lambda label: f"Dear customer, about {label}: {os.urandom(4).hex()}",
            "not_a_classification",
            "looks like free text",
        ),
        (
            lambda label: json.dumps({"label": label, "why": os.urandom(4).hex()}),
            "not_a_classification",
            "2 fields of the replies vary",
        ),
        (lambda _: "", "invalid_training_file", "line 1: the assistant's reply has no text"),
    ],
)
def test_what_cannot_be_learnt_fails_with_the_reason(
    server: Serving, replies: Callable[[str], str], code: str, says: str
) -> None:
    client = server.client()
    job = client.fine_tuning.jobs.create(model="m", training_file=upload(client, chat_lines(replies)))
    job = finished(client, job.id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == (code, "training_file")
    assert says in str(job.error.message)
    assert any(says in each for each in messages_of(client, job.id))


def test_jobs_can_be_cancelled_paused_and_resumed(server: Serving) -> None:
    client = server.client()
    file = upload(client, chat_lines(times=3))
    first = client.fine_tuning.jobs.create(model="m", training_file=file)
    wait(lambda: client.fine_tuning.jobs.retrieve(first.id).status == "running")
    client.fine_tuning.jobs.pause(first.id)
    wait(lambda: client.fine_tuning.jobs.retrieve(first.id).status == "queued")
    second = client.fine_tuning.jobs.create(model="m", training_file=file)
    wait(lambda: client.fine_tuning.jobs.retrieve(second.id).status == "running")
    assert client.fine_tuning.jobs.cancel(second.id).status == "cancelled"
    assert client.fine_tuning.jobs.retrieve(first.id).status == "queued"
    client.fine_tuning.jobs.resume(first.id)
    assert finished(client, first.id).status == "succeeded", messages_of(client, first.id)
    with pytest.raises(openai.BadRequestError, match="is succeeded and cannot be cancelled"):
        client.fine_tuning.jobs.cancel(first.id)


@pytest.mark.slow
def test_paused_and_resumed_at_once_a_job_goes_on(server: Serving) -> None:
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
    assert [each.id for each in listed] == ids[::-1]
    assert client.files.content(ids[1]).read() == b"line 1\n"
    assert client.files.retrieve(ids[1]).filename == "n1.txt"
    assert client.files.wait_for_processing(ids[1]).status == "processed"
    assert client.files.delete(ids[1]).deleted
    with pytest.raises(openai.NotFoundError, match="there is no file"):
        client.files.content(ids[1])


def test_a_batch_of_chat_completions(server: Serving) -> None:
    client = server.client()
    texts = [text for each in TEXTS.values() for text in each]
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
    assert {each["custom_id"] for each in answers} == {f"n{i}" for i in range(1, 30)}
    assert all(each["response"]["status_code"] == 200 for each in answers)
    (error,) = [json.loads(line) for line in client.files.content(str(batch.error_file_id)).text.splitlines()]
    assert (error["custom_id"], error["response"]["status_code"]) == ("n0", 404)
    assert error["response"]["body"]["error"]["code"] == "model_not_found"


def test_a_line_that_cannot_be_answered_ends_no_batch(server: Serving) -> None:
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


def test_a_batch_of_nonsense_fails_line_by_line(server: Serving) -> None:
    client = server.client()
    file = upload(
        client,
        'nonsense\n{"custom_id": "a", "body": {}}\n{"custom_id": "a", "body": {}}\n[1]\n{"custom_id": "\\ud800", "body": {}}\n',
        "batch",
    )
    batch = client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")
    batch = wait(lambda: (found := client.batches.retrieve(batch.id)).status == "failed" and found)
    assert batch.errors is not None
    assert [(each.line, each.code) for each in batch.errors.data or []] == [
        (1, "invalid_json_line"), (3, "duplicate_custom_id"), (4, "invalid_request"), (5, "invalid_json_line"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "/v1/chat/completions", {"model": "student"}, 400, "messages"),
        ("POST", "/v1/chat/completions", {"model": "nobody", "messages": [{"role": "user", "content": "x"}]}, 404, "model"),
        ("POST", "/v1/chat/completions", {"model": "student", "messages": [{"role": "system", "content": "x"}]}, 400, "messages"),
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
    line = next(each for each in server.events() if each["event"] == "request" and each["status"] == 200)
    assert {"request_id", "method", "path", "ms", "at", "level"} <= set(line)


def test_a_page_in_a_browser_has_no_business_here(server: Serving) -> None:
    body = {"model": "student", "messages": [{"role": "user", "content": "x"}]}
    assert server.post("/v1/chat/completions", body, origin="https://example.org").status_code == 403
    assert server.get("/v1/files", host="example.org").status_code == 403


def test_keys_limits_and_two_servers(tmp_path: Path, student: Path) -> None:
    def keys(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fingerpost", "keys", *arguments, "--data", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True)

    outside = [
        sys.executable,
        "-m",
        "fingerpost",
        "serve",
        str(student),
        "--host",
        "0.0.0.0",
        "--port",
        "0",
        "--data",
        str(tmp_path),
    ]
    refused = subprocess.run(outside, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "there is no key yet" in refused.stderr
    key = keys("add", "app").stdout.strip()
    assert key.startswith("sk-fp-")
    assert key.encode() not in (tmp_path / "fingerpost.db").read_bytes()
    assert keys("add", "app").returncode == 2
    limits = ["--require-keys", "--requests-per-minute", "5", "--max-upload", "1"]
    with Serving(tmp_path, student, *limits) as server:
        again = subprocess.run([*outside[:-4], "--port", "0", "--data", str(tmp_path)], capture_output=True, text=True)
        assert "another server uses" in again.stderr
        for wrong in ("", "wrong"):
            with pytest.raises(openai.AuthenticationError):
                server.client(wrong or "x").models.list()
        client = server.client(key)
        assert client.models.list().data
        with pytest.raises(openai.APIStatusError) as error:
            upload(client, "x" * 1_200_000, "user_data")
        assert error.value.status_code == 413
        with pytest.raises(openai.RateLimitError):
            for _ in range(6):
                client.models.list()
        assert "app" in keys("list").stdout
        assert keys("revoke", "app").stdout == "revoked: app\n"
        wait(lambda: server.get("/v1/models", authorization=f"Bearer {key}").status_code == 401)
        assert server.get("/healthz").status_code == 200


def test_the_log_is_the_next_import(
    folder: Path, student: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (folder / "hide.py").write_text("import re\n\ndef digits(text):\n    return re.sub(r'[0-9]', '#', text)\n")
    texts = ["my invoice 4711 is wrong", "where is my parcel", "purple monkey dishwasher", "where is my parcel"]
    with Serving(folder / "served", student, "--redact", "hide:digits", cwd=folder) as server:
        for text in texts:
            server.post("/v1/chat/completions", {"model": "model", "messages": [{"role": "user", "content": text}]})
    first = cli("import", "--from-log", "--limit", "1")
    assert first.returncode == 0, first.stderr
    assert "4 requests, 1 new questions, 0 new answers" in first.stdout
    with Store(folder / "fingerpost.db") as store:
        (unsure,) = store.questions()
        assert unsure.split == "train"
    assert "4 requests, 2 new questions" in cli("import", "--from-log").stdout
    with Store(folder / "fingerpost.db") as store:
        assert {each.messages[-1].content for each in store.questions()} == {
            "my invoice #### is wrong", "where is my parcel", "purple monkey dishwasher",
        }  # fmt: skip
        assert all(each.source == "served" for each in store.questions())
    assert "0 new questions" in cli("import", "--from-log").stdout
    assert "is no folder of 'fingerpost serve'" in cli("import", "--from-log", "nowhere").stderr


def test_without_a_log_nothing_is_kept(tmp_path: Path, student: Path) -> None:
    from fingerpost.store.server import ServerStore

    with Serving(tmp_path, f"student={student}", "--no-log-requests") as server:
        assert server.ask("my invoice is wrong").status_code == 200
    store = ServerStore(tmp_path / "fingerpost.db")
    assert store.logged() == []
    store.close()


def test_a_model_is_swapped_without_a_lost_request(tmp_path: Path, student: Path) -> None:
    from fingerpost.data.rows import Columns
    from fingerpost.training.dataset import from_file
    from fingerpost.training.train import train

    model = tmp_path / "model"
    data = from_file(write_labelled(tmp_path / "data.csv"), Columns())
    train(data, model, epochs=0)
    with Serving(tmp_path / "served", f"student={model}") as server:
        statuses: list[int] = []
        ends = threading.Event()

        def ask() -> None:
            while not ends.is_set():
                statuses.append(server.ask("where is my parcel").status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        renamed = data.task.model_copy(update={"answer_field": "queue"})
        from dataclasses import replace

        train(replace(data, task=renamed), model, epochs=0)
        wait(lambda: "queue" in server.ask("where is my parcel").text)
        (model / "model.onnx").write_bytes(b"broken")
        (model / "manifest.json").touch()
        wait(lambda: any(each["event"] == "model changed on disk" and each["problem"] for each in server.events()))
        assert "queue" in server.ask("where is my parcel").text
        ends.set()
        asking.join()
        assert set(statuses) == {200}
        assert len(statuses) > 50


def test_a_graceful_stop_answers_what_is_in_flight(tmp_path: Path, student: Path) -> None:
    with Serving(tmp_path, f"student={student}") as server:
        found: list[int] = []
        lines = {"input": ["my invoice is wrong"] * 256}
        asking = threading.Thread(target=lambda: found.append(server.post("/v1/route", lines).status_code))
        asking.start()
        wait(lambda: "fingerpost_waiting" in server.get("/metrics").text)
        server.process.send_signal(signal.SIGTERM)
        asking.join()
        assert found == [200]
        assert server.process.wait(30) in (0, -signal.SIGTERM)
