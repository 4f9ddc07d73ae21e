"""The hosted student: the client side of the wire, against our own server over a real socket; and the webhook."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import openai
import pytest
from conftest import write_labelled
from serving import Serving, chat_lines, finished, upload, wait

import fingerpost
from fingerpost.core.errors import InputError, ModelError
from fingerpost.core.types import Example, Message
from fingerpost.students import hosted
from fingerpost.students.folder import read_manifest
from fingerpost.task.loader import task_of_labels
from fingerpost.training.dataset import from_file

CLI = [sys.executable, "-m", "fingerpost"]


def train_command(file: Path, model: Path, url: str, *more: str) -> list[str]:
    given = ["--student", "hosted", "--base-url", url, "--suffix", "shop", "--epochs", "1"]
    return [*CLI, "train", str(file), "-o", str(model), *given, *more]


def test_a_crash_costs_no_second_job_and_the_model_predicts(server: Serving, tmp_path: Path) -> None:
    data, model = write_labelled(tmp_path / "data.csv"), tmp_path / "model"
    before = {each.id for each in server.client().fine_tuning.jobs.list()}

    def mine() -> list[str]:
        return [each.id for each in server.client().fine_tuning.jobs.list() if each.id not in before]

    command = train_command(data, model, server.url)
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait(mine)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not model.exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert again.returncode == 0, again.stderr
    assert "New fine-tuned model created: ft:gpt-4.1-mini-2025-04-14:local:shop:" in again.stderr
    assert len(mine()) == 1
    manifest = read_manifest(model)
    assert manifest.kind == "hosted"
    student = fingerpost.load(model)
    assert isinstance(student, hosted.HostedStudent)
    found = student.predict(
        [
            "where is my parcel",
            [Message("user", "hi"), Message("assistant", "?"), Message("user", "my invoice is wrong")],
        ]
    )
    assert [each.label for each in found] == ["delivery", "billing"]
    assert all(0.3 < each.confidence <= 1 for each in found)
    assert all(each.usage.prompt and each.usage.latency_s for each in found)
    student.close()


@pytest.mark.slow
def test_a_hosted_model_is_measured_like_any_other(server: Serving, tuned: str, tmp_path: Path) -> None:
    from fingerpost.core.types import Label
    from fingerpost.students.folder import Manifest, write_manifest

    (tmp_path / "hosted").mkdir()
    where = {"model": tuned, "base_url": server.url, "key_env": "NO_KEY", "job": "j"}
    write_manifest(tmp_path / "hosted", Manifest(
        kind="hosted", name="m", created="", fingerpost="0", labels=[Label(name=each) for each in ("billing", "delivery", "other")],
        answer_field="action", history=0, max_tokens=64, task_fingerprint="", hosted=where,
    ))  # fmt: skip
    data = write_labelled(tmp_path / "data.csv")
    measured = subprocess.run([*CLI, "evaluate", str(tmp_path / "hosted"), str(data)], capture_output=True, text=True)
    assert measured.returncode == 0, measured.stderr
    assert re.search(r"^hosted .* –\s*$", measured.stdout, flags=re.MULTILINE)  # its cost is not known


def test_a_crash_between_creating_the_job_and_noting_it(server: Serving, tmp_path: Path) -> None:
    """What is known then is that a job was about to be created: it is looked up by its file."""
    client = server.client()
    task = task_of_labels("t", ["billing", "delivery", "other"])
    examples = [Example(str(i), (Message("user", f"question {i}"),), {task.names[i % 3]: 1.0}) for i in range(30)]
    model = tmp_path / "model"
    file = upload(client, "".join(hosted.lines_of(task, examples)))
    job = client.fine_tuning.jobs.create(model="m", training_file=file, hyperparameters={"n_epochs": 1})
    client.fine_tuning.jobs.cancel(job.id)
    key = hosted.fingerprint([*hosted.lines_of(task, examples), "m", "", server.url, "None"])
    state = tmp_path / f".model-{key}.json"
    state.write_text(json.dumps({"training_file": file, "creating": "1"}))
    count = len(list(client.fine_tuning.jobs.list()))
    with pytest.raises(ModelError, match=f"the job {job.id} cancelled"):
        hosted.fit(examples, [], task, model, model="m", base_url=server.url)
    assert len(list(client.fine_tuning.jobs.list())) == count


def test_a_job_that_fails_is_said_and_begun_anew_next_time(server: Serving, tmp_path: Path) -> None:
    task = task_of_labels("t", ["billing", "delivery", "other"])
    examples = [Example(str(i), (Message("user", f"question {i}"),), {"billing": 1.0}) for i in range(30)]
    with pytest.raises(ModelError, match=r"failed: the training file cannot be used|failed: all replies say the same"):
        hosted.fit(examples, [], task, tmp_path / "model", model="m", base_url=server.url)
    assert not list(tmp_path.glob(".model-*"))


def test_nothing_is_sent_before_the_price_is_agreed_to(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data.csv")
    url = "https://provider.invalid/v1"
    environment = {**os.environ, "OPENAI_API_KEY": "x"}

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = train_command(data, tmp_path / "model", url, *more)
        return subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)

    assert "give --price" in run().stderr
    asked = run("--price", "3")
    assert "about $0.0" in asked.stdout
    assert "give --yes to agree to the price" in asked.stderr
    unreachable = run("--price", "3", "--yes")
    assert "cannot be reached; run the command again" in unreachable.stderr
    assert unreachable.returncode == 2


def test_a_key_is_needed_beyond_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match="set the environment variable OPENAI_API_KEY"):
        hosted.client_of("https://example.org/v1", "OPENAI_API_KEY")
    hosted.client_of("http://localhost:1/v1", "OPENAI_API_KEY").close()


def test_the_end_of_a_job_is_told_and_signed(tmp_path: Path) -> None:
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


def test_what_is_uploaded_is_what_export_writes(
    tmp_path: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    from fingerpost.data.rows import Columns

    data = from_file(write_labelled(tmp_path / "data.csv"), Columns())
    line = json.loads(hosted.lines_of(data.task, data.train)[0])
    assert [each["role"] for each in line["messages"]] == ["system", "user", "assistant"]
    assert json.loads(line["messages"][2]["content"]) == {"action": data.train[0].label}


def test_a_strangers_model_folder_gets_no_key(tmp_path: Path, server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(AssertionError, match="is a model at a provider"):
        Serving(tmp_path / "served", tmp_path / "model").start()


def test_nothing_is_trained_where_the_model_cannot_be_written(tmp_path: Path, server: Serving) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="is no model folder"):
        hosted.fit([], [], task_of_labels("t", ["a", "b"]), tmp_path / "model", model="m", base_url=server.url)
