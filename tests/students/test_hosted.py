"""The hosted student against a fake provider; slow: against our own server. Also the server's webhook."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import openai
import pytest
from command_line import HOUR, Cli
from conftest import write_labelled
from serving import Serving, chat_lines, finished, upload, wait
from teacher import Teacher

import fingerpost
from fingerpost.core.errors import InputError, ModelError
from fingerpost.core.types import Example, Message
from fingerpost.students import hosted
from fingerpost.students.folder import read_manifest
from fingerpost.task.loader import task_of_labels
from fingerpost.training.dataset import from_file

CLI = [sys.executable, "-m", "fingerpost"]


@pytest.fixture
def provider(teacher: Teacher) -> Teacher:
    """A provider of fine-tuning jobs and of the models that they make."""
    return teacher


def train_command(file: Path, model: Path, url: str, *more: str) -> list[str]:
    given = ["--student", "hosted", "--base-url", url, "--suffix", "shop", "--epochs", "1"]
    return [*CLI, "train", str(file), "-o", str(model), *given, *more]


def train_despite_a_crash(data: Path, model: Path, url: str) -> str:
    """Kill the command as soon as it has created a job, then run it again; returns what that printed."""
    client = openai.OpenAI(base_url=url, api_key="none")
    before = {job.id for job in client.fine_tuning.jobs.list()}

    def created() -> list[str]:
        return [job.id for job in client.fine_tuning.jobs.list() if job.id not in before]

    command = train_command(data, model, url)
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait(created)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not model.exists()
    second = subprocess.run(command, capture_output=True, text=True, timeout=HOUR)
    assert second.returncode == 0, second.stderr
    assert len(created()) == 1
    client.close()
    return second.stderr


CONVERSATION = [Message("user", "hi"), Message("assistant", "?"), Message("user", "my billing invoice is wrong")]


def test_a_crash_costs_no_second_job_and_the_model_predicts(provider: Teacher, tmp_path: Path) -> None:
    provider.fine_tuning.polls = 5  # still running when the first command is killed
    data, model = write_labelled(tmp_path / "data.csv"), tmp_path / "model"
    printed = train_despite_a_crash(data, model, provider.base_url)
    assert "New fine-tuned model created: ft:gpt-4.1-mini-2025-04-14:test:shop:" in printed
    assert read_manifest(model).kind == "hosted"
    student = fingerpost.load(model)
    assert isinstance(student, hosted.HostedStudent)
    answers = student.predict(["where is my delivery parcel", CONVERSATION])
    assert [answer.label for answer in answers] == ["delivery", "billing"]
    assert all(answer.confidence == pytest.approx(math.exp(-0.25)) for answer in answers)
    assert all(answer.usage.prompt and answer.usage.latency_s for answer in answers)
    assert provider.bodies[-1]["model"].startswith("ft:gpt-4.1-mini")
    student.close()


@pytest.mark.slow
def test_our_own_server_trains_a_hosted_model_despite_a_crash(server: Serving, tmp_path: Path) -> None:
    model = tmp_path / "model"
    printed = train_despite_a_crash(write_labelled(tmp_path / "data.csv"), model, server.url)
    assert "New fine-tuned model created: ft:gpt-4.1-mini-2025-04-14:local:shop:" in printed
    student = fingerpost.load(model)
    answers = student.predict(["where is my parcel", CONVERSATION])
    assert [answer.label for answer in answers] == ["delivery", "billing"]
    assert all(0.3 < answer.confidence <= 1 for answer in answers)
    student.close()


@pytest.mark.slow
def test_a_hosted_model_is_measured_like_any_other(server: Serving, tuned: str, tmp_path: Path) -> None:
    from fingerpost.core.types import Label
    from fingerpost.students.folder import Manifest, write_manifest

    (tmp_path / "hosted").mkdir()
    where = {"model": tuned, "base_url": server.url, "key_env": "NO_KEY", "job": "j"}
    write_manifest(tmp_path / "hosted", Manifest(
        kind="hosted", name="m", created="", fingerpost="0", labels=[Label(name=name) for name in ("billing", "delivery", "other")],
        answer_field="action", history=0, max_tokens=64, task_fingerprint="", hosted=where,
    ))  # fmt: skip
    data = write_labelled(tmp_path / "data.csv")
    measured = subprocess.run([*CLI, "evaluate", str(tmp_path / "hosted"), str(data)], capture_output=True, text=True)
    assert measured.returncode == 0, measured.stderr
    assert re.search(r"^hosted .* \$0\s*$", measured.stdout, flags=re.MULTILINE)  # a server on this machine is free


def test_a_job_created_just_before_a_crash_is_found_by_its_training_file(provider: Teacher, tmp_path: Path) -> None:
    client = openai.OpenAI(base_url=provider.base_url, api_key="none")
    task = task_of_labels("t", ["billing", "delivery", "other"])
    examples = [Example(str(i), (Message("user", f"question {i}"),), {task.names[i % 3]: 1.0}) for i in range(30)]
    model = tmp_path / "model"
    file = upload(client, "".join(hosted.training_lines(task, examples)))
    job = client.fine_tuning.jobs.create(model="m", training_file=file, hyperparameters={"n_epochs": 1})
    client.fine_tuning.jobs.cancel(job.id)
    key = hosted.fingerprint([*hosted.training_lines(task, examples), "m", "", provider.base_url, "None"])
    state = tmp_path / f".model-{key}.json"
    state.write_text(json.dumps({"training_file": file, "creating": "1"}))
    count = len(list(client.fine_tuning.jobs.list()))
    with pytest.raises(ModelError, match=f"the job {job.id} cancelled"):
        hosted.fit(examples, [], task, model, model="m", base_url=provider.base_url)
    assert len(list(client.fine_tuning.jobs.list())) == count
    client.close()


def test_a_failed_job_is_reported_with_its_reason_and_a_new_one_is_created_next_time(
    provider: Teacher, tmp_path: Path
) -> None:
    provider.fine_tuning.fail = "the file is too small"
    task = task_of_labels("t", ["billing", "delivery", "other"])
    examples = [Example(str(i), (Message("user", f"question {i}"),), {"billing": 1.0}) for i in range(30)]
    with pytest.raises(ModelError, match="failed: the file is too small"):
        hosted.fit(examples, [], task, tmp_path / "model", model="m", base_url=provider.base_url)
    assert not list(tmp_path.glob(".model-*"))
    provider.fine_tuning.fail = ""
    hosted.fit(examples, [], task, tmp_path / "model", model="m", base_url=provider.base_url)
    assert len(provider.fine_tuning.jobs) == 2


def test_nothing_is_sent_before_the_price_is_agreed_to(cli: Cli, folder: Path) -> None:
    write_labelled(folder / "data.csv")
    command = train_command(Path("data.csv"), Path("model"), "https://provider.invalid/v1")[len(CLI) :]
    assert "give --price" in cli(*command, OPENAI_API_KEY="x").stderr
    asked = cli(*command, "--price", "3", OPENAI_API_KEY="x")
    assert "about $0.0" in asked.stdout
    assert "--yes" in asked.stderr
    unreachable = cli(*command, "--price", "3", "--yes", OPENAI_API_KEY="x")
    assert "cannot be reached; run the command again" in unreachable.stderr
    assert unreachable.returncode == 2


def test_a_key_is_needed_beyond_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match="set the environment variable OPENAI_API_KEY"):
        hosted.client_of("https://example.org/v1", "OPENAI_API_KEY")
    hosted.client_of("http://localhost:1/v1", "OPENAI_API_KEY").close()


@pytest.mark.slow
def test_the_webhook_is_called_once_at_the_end_of_a_job_and_signed(tmp_path: Path) -> None:
    secret = "whsec_" + "c2VjcmV0" * 4
    told: list[tuple[bytes, dict[str, str]]] = []
    refuse = [500]

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if refuse:
                self.send_response(refuse.pop())
            else:
                told.append((body, {key.lower(): value for key, value in self.headers.items()}))
                self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    hook = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{hook.server_port}/hook"
    with Serving(tmp_path, "--webhook", url, FINGERPOST_WEBHOOK_SECRET=secret) as server:
        client = server.client()
        job = client.fine_tuning.jobs.create(model="m", training_file=upload(client, chat_lines(lambda _: "same")))
        assert finished(client, job.id).status == "failed"
        wait(lambda: told)
        time.sleep(1.5)
        ((body, headers),) = told  # once, after it was refused once
        event = openai.OpenAI(api_key="x", webhook_secret=secret).webhooks.unwrap(body, headers)
        assert event.type == "fine_tuning.job.failed"
        assert event.data.id == job.id
        forged = {**headers, "webhook-signature": "v1,AAAA"}
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(body, forged, secret=secret)
    hook.shutdown()
    hook.server_close()


def test_a_training_line_is_a_chat_with_the_label_as_its_reply(tmp_path: Path) -> None:
    from fingerpost.data.rows import Columns

    data = from_file(write_labelled(tmp_path / "data.csv"), Columns())
    line = json.loads(hosted.training_lines(data.task, data.train)[0])
    assert [message["role"] for message in line["messages"]] == ["system", "user", "assistant"]
    assert json.loads(line["messages"][2]["content"]) == {"action": data.train[0].label}


def test_the_key_is_not_sent_to_a_host_that_only_the_model_folder_names(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fingerpost.core.types import Label
    from fingerpost.students.folder import Manifest, write_manifest

    (tmp_path / "model").mkdir()
    where = {"model": "ft:x", "base_url": "https://example.org/v1", "key_env": "SECRET", "job": "j"}
    write_manifest(tmp_path / "model", Manifest(
        kind="hosted", name="m", created="", fingerpost="0", labels=[Label(name="a"), Label(name="b")], answer_field="action",
        history=0, max_tokens=64, task_fingerprint="", hosted=where,
    ))  # fmt: skip
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ModelError, match="set FINGERPOST_TRUST=example.org"):
        fingerpost.load(tmp_path / "model")
    monkeypatch.setenv("FINGERPOST_TRUST", "example.org")
    hosted.load(tmp_path / "model", read_manifest(tmp_path / "model")).close()
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: pytest.fail("it is served"))
    refused = cli("serve", "model", "--data", "served", "--port", "0")
    assert refused.returncode == 2 and "provider" in refused.stderr


def test_nothing_is_trained_where_the_model_cannot_be_written(tmp_path: Path, provider: Teacher) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="is no model folder"):
        hosted.fit([], [], task_of_labels("t", ["a", "b"]), tmp_path / "model", model="m", base_url=provider.base_url)
    assert not provider.fine_tuning.jobs
