"""Faults: processes killed in a job, an upload, a batch and under load; a full disk; a damaged model. Nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
from serving import Serving, chat_lines, finished, messages_of, upload, wait

from fingerpost.store.server import ServerStore


def worker_of(server: Serving, job_id: str) -> psutil.Process | None:
    """The process that trains the job."""
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if {"train", job_id} <= set(child.cmdline()):
                return child
    return None


@pytest.mark.slow
def test_a_job_survives_its_process_and_its_server(tmp_path: Path) -> None:
    server = Serving(tmp_path, "--training-threads", "2").start()
    client = server.client()
    file = upload(client, chat_lines(times=2))
    job = client.fine_tuning.jobs.create(model="m", training_file=file, hyperparameters={"n_epochs": 1})
    waiting = client.fine_tuning.jobs.create(model="m", training_file=file)
    wait(lambda: worker_of(server, job.id)).kill()
    wait(lambda: any("attempt 2 of 3" in message for message in messages_of(client, job.id)))
    worker = wait(lambda: worker_of(server, job.id))
    server.kill()
    wait(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    with server:
        client = server.client()
        assert client.files.content(file).text == chat_lines(times=2)
        wait(lambda: client.fine_tuning.jobs.retrieve(waiting.id).status == "queued")
        client.fine_tuning.jobs.cancel(waiting.id)
        assert finished(client, job.id).status == "succeeded", messages_of(client, job.id)
        assert any("the server was killed while this job ran" in message for message in messages_of(client, job.id))
        reply = client.chat.completions.create(
            model=str(client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model),
            messages=[{"role": "user", "content": "where is my parcel"}],
        )
        assert reply.choices[0].message.content == '{"action": "delivery"}'


def test_a_job_whose_process_is_killed_three_times_fails(server: Serving) -> None:
    client = server.client()
    job = client.fine_tuning.jobs.create(model="m", training_file=upload(client, chat_lines()))
    killed = set()
    while (found := client.fine_tuning.jobs.retrieve(job.id)).status not in ("failed", "succeeded"):
        worker = worker_of(server, job.id)
        if worker is not None and worker.pid not in killed:
            killed.add(worker.pid)
            worker.kill()
        time.sleep(0.05)
    assert found.status == "failed"
    assert len(killed) == 3
    assert found.error is not None
    assert found.error.code == "worker_died"


@dataclass
class Killed:
    """A server that was killed amid an upload, a batch and chat requests, and started again."""

    server: Serving
    kept: str
    batch: str
    lines: int
    answered: set[str]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, student: Path) -> Iterator[Killed]:
    server = Serving(tmp_path_factory.mktemp("killed"), f"student={student}").start()
    client = server.client()
    kept = upload(client, "kept\n", "user_data")
    lines = [
        {"custom_id": f"n{i}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "student", "messages": [{"role": "user", "content": f"my invoice {i}"}]}}
        for i in range(1_000)
    ]  # fmt: skip
    file = upload(client, "\n".join(map(json.dumps, lines)), "batch")
    batch = client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h").id
    answered: set[str] = set()

    def ask(number: int) -> None:
        for i in range(10_000):
            try:
                response = server.ask(f"question {number} {i}")
            except httpx2.HTTPError:  # the server was killed
                return
            if response.status_code == 200:
                answered.add(response.json()["id"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    head = (
        "POST /v1/files HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 9000000\r\n\r\n"
        '--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        '--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
    )

    def under_way() -> bool:
        counts: Any = client.batches.retrieve(batch).request_counts
        return 0 < counts.completed < len(lines) and len(answered) > 20

    with socket.create_connection(("127.0.0.1", server.port)) as half:
        half.sendall(head.encode() + b"x" * 4_000_000)
        wait(under_way)
        server.kill()
    for thread in threads:
        thread.join()
    with server:
        yield Killed(server, kept, batch, len(lines), answered)


def test_after_a_kill_every_acknowledged_file_is_there(killed: Killed) -> None:
    client = killed.server.client()
    assert client.files.content(killed.kept).read() == b"kept\n"
    files = {file.id for file in client.files.list()}
    assert {path.name for path in (killed.server.folder / "files").iterdir()} == files


def test_after_a_kill_every_answered_request_is_in_the_log(killed: Killed) -> None:
    store = ServerStore(killed.server.folder / "fingerpost.db")
    assert killed.answered <= {entry.request_id for entry in store.log_entries()}
    store.close()


def test_after_a_kill_a_batch_goes_on(killed: Killed) -> None:
    client = killed.server.client()
    batch = wait(lambda: (found := client.batches.retrieve(killed.batch)).status == "completed" and found)
    assert batch.request_counts.completed == killed.lines
    output = client.files.content(batch.output_file_id).text
    answers = [json.loads(line)["custom_id"] for line in output.splitlines()]
    assert len(answers) == len(set(answers)) == killed.lines


@pytest.fixture(params=["tmpfs", "limit"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A server folder that can be filled up: an 8 MB file system where one can be mounted, or a limit on file sizes."""
    place = tmp_path / "disk"
    place.mkdir()
    if request.param == "limit":
        yield place, "limit"
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place, "tmpfs"
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(small_disk: tuple[Path, str], student: Path) -> None:
    """Uploads and jobs are refused while the disk is full, chat goes on, and later everything works again."""
    place, kind = small_disk
    filler = place / "filler"
    with Serving(place / "served", f"student={student}") as server:
        client = server.client()
        kept = upload(client, chat_lines())

        def fill(full: bool) -> None:
            if kind == "limit":
                most = 1 if full else resource.RLIM_INFINITY
                resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
            elif full:
                with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
                    while True:
                        stream.write(b"x" * 512)
            else:
                filler.unlink()

        fill(True)
        with pytest.raises(openai.APIStatusError) as error:
            upload(client, "x" * 500_000, "user_data")
        assert (error.value.status_code, error.value.code, error.value.type) == (507, "disk_full", "server_error")
        lost = 0
        for _ in range(50):  # SQLite may have some room left in its files
            assert server.ask("my invoice is wrong " * 200).status_code == 200
            lost = int(float(re.findall(r"fingerpost_log_lost_total ([0-9.]+)", server.get("/metrics").text)[0]))
            if lost:
                break
        assert lost
        refused = server.post("/v1/fine_tuning/jobs", {"model": "m", "training_file": kept})
        assert refused.status_code == (507 if kind == "tmpfs" else 500)
        assert refused.json()["error"]["type"] == "server_error"
        fill(False)
        assert [file.id for file in client.files.list()] == [kept]
        assert client.fine_tuning.jobs.list().data == []
        assert client.files.content(kept).text == chat_lines()
        assert sorted(path.name for path in (place / "served" / "files").iterdir()) == [kept]
        bad = client.fine_tuning.jobs.create(model="m", training_file=upload(client, chat_lines(lambda _: "same")))
        assert finished(client, bad.id).status == "failed"  # the job runner works


def test_a_damaged_model_folder_is_refused_at_the_start(tmp_path: Path, student: Path) -> None:
    import shutil

    damaged = tmp_path / "damaged"
    shutil.copytree(student, damaged)
    (damaged / "model.onnx").write_bytes(b"broken")
    command = [sys.executable, "-m", "fingerpost", "serve", str(damaged), "--data", str(tmp_path / "s"), "--port", "0"]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert run.returncode == 2
    assert "model.onnx" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_stopping_sends_the_running_job_back_to_the_queue(tmp_path: Path) -> None:
    server = Serving(tmp_path).start()
    client = server.client()
    job = client.fine_tuning.jobs.create(
        model="m", training_file=upload(client, chat_lines()), hyperparameters={"n_epochs": 1}
    )
    wait(lambda: worker_of(server, job.id))
    server.process.send_signal(signal.SIGTERM)
    server.__exit__()
    store = ServerStore(tmp_path / "fingerpost.db")
    found = store.get_job(job.id)
    assert found is not None
    assert (found.status, found.attempts) == ("queued", 0)
    store.close()
    with server:
        assert finished(server.client(), job.id).status == "succeeded"
