"""Faults of the server: killed in a job, in an upload, under load; a full disk; a damaged model. Nothing acknowledged is lost."""

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
from pathlib import Path

import httpx2
import openai
import psutil
import pytest
from serving import Serving, chat_lines, finished, messages_of, upload, wait

from fingerpost.store.server import JOBS, ServerStore


def worker_of(server: Serving) -> psutil.Process | None:
    for child in psutil.Process(server.process.pid).children():
        if "train" in child.cmdline():
            return child
    return None


def test_a_job_survives_its_process_and_its_server(tmp_path: Path) -> None:
    server = Serving(tmp_path, "--training-threads", "2").start()
    client = server.client()
    file = upload(client, chat_lines(times=2))
    job = client.fine_tuning.jobs.create(model="m", training_file=file, hyperparameters={"n_epochs": 1})
    waiting = client.fine_tuning.jobs.create(model="m", training_file=file, hyperparameters={"n_epochs": 1})
    worker = wait(lambda: worker_of(server))
    worker.kill()
    wait(
        lambda: any(
            "was ended by signal 9: it starts again, attempt 2 of 3" in each for each in messages_of(client, job.id)
        )
    )
    worker = wait(lambda: worker_of(server))
    server.kill()
    wait(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 10)
    with server:
        client = server.client()
        assert client.files.content(file).text == chat_lines(times=2)
        assert finished(client, job.id).status == "succeeded", messages_of(client, job.id)
        assert "the server ended while this job was running: it starts again, attempt 3 of 3" in messages_of(
            client, job.id
        )
        assert finished(client, waiting.id).status == "succeeded", messages_of(client, waiting.id)
        reply = client.chat.completions.create(
            model=str(client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model),
            messages=[{"role": "user", "content": "where is my parcel"}],
        )
        assert reply.choices[0].message.content == '{"action": "delivery"}'


def test_a_job_that_is_killed_again_and_again_fails_with_the_reason(tmp_path: Path) -> None:
    with Serving(tmp_path) as server:
        client = server.client()
        job = client.fine_tuning.jobs.create(model="m", training_file=upload(client, chat_lines()))
        killed = set()
        while (found := client.fine_tuning.jobs.retrieve(job.id)).status not in ("failed", "succeeded"):
            worker = worker_of(server)
            if worker is not None and worker.pid not in killed:
                killed.add(worker.pid)
                worker.kill()
            time.sleep(0.05)
        assert found.status == "failed"
        assert len(killed) == 3
        assert found.error is not None
        assert (found.error.code, found.error.message) == (
            "worker_died", "the job's process was ended by signal 9; is there memory enough?",
        )  # fmt: skip


def test_killed_in_an_upload(tmp_path: Path) -> None:
    server = Serving(tmp_path).start()
    kept = upload(server.client(), "kept\n", "user_data")
    head = (
        "POST /v1/files HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 9000000\r\n\r\n"
        '--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        '--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", server.port)) as half:
        half.sendall(head.encode() + b"x" * 4_000_000)
        time.sleep(0.2)
        server.kill()
    with server:
        assert [each.id for each in server.client().files.list()] == [kept]
        assert server.client().files.content(kept).read() == b"kept\n"
        assert sorted(path.name for path in (tmp_path / "files").iterdir()) == [kept]


def test_killed_under_load_every_answered_request_is_in_the_log(tmp_path: Path, student: Path) -> None:
    server = Serving(tmp_path, f"student={student}").start()
    answered: set[str] = set()

    def ask(number: int) -> None:
        for i in range(10_000):
            try:
                found = server.ask(f"question {number} {i}")
            except httpx2.HTTPError:  # the server is gone
                return
            if found.status_code == 200:
                answered.add(found.json()["id"])

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for each in asking:
        each.start()
    wait(lambda: len(answered) > 100)
    server.kill()
    for each in asking:
        each.join()
    store = ServerStore(tmp_path / "fingerpost.db")
    assert answered <= {row["request_id"] for row in store.logged()}
    store.close()


def test_a_batch_goes_on_after_a_kill(tmp_path: Path, student: Path) -> None:
    server = Serving(tmp_path, f"student={student}").start()
    client = server.client()
    lines = [
        {"custom_id": f"n{i}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "student", "messages": [{"role": "user", "content": f"my invoice {i}"}]}}
        for i in range(1_000)
    ]  # fmt: skip
    file = upload(client, "\n".join(map(json.dumps, lines)), "batch")
    batch = client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")
    wait(lambda: (counts := client.batches.retrieve(batch.id).request_counts) and counts.completed > 50)
    server.kill()
    with server:
        client = server.client()
        done = wait(lambda: (found := client.batches.retrieve(batch.id)).status == "completed" and found)
        assert done.request_counts.completed == 1_000
        answers = [
            json.loads(line)["custom_id"] for line in client.files.content(done.output_file_id).text.splitlines()
        ]
        assert len(answers) == len(set(answers)) == 1_000


@pytest.fixture(params=["tmpfs", "limit"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder for a server: on a disk of 8 MB of its own, where one may be mounted; and one for a limit on files."""
    place = tmp_path / "disk"
    place.mkdir()
    if request.param == "limit":
        yield place, "limit"
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    yield place, "tmpfs"
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(small_disk: tuple[Path, str], student: Path) -> None:
    """What cannot be kept is refused, chat goes on; and when there is room again, everything does."""
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
        assert error.value.status_code == 507
        assert error.value.body == {
            "message": "the server's disk is full: nothing was kept", "type": "server_error", "param": None, "code": "disk_full",
        }  # fmt: skip
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
        assert [each.id for each in client.files.list()] == [kept]
        assert client.fine_tuning.jobs.list().data == []
        assert client.files.content(kept).text == chat_lines()
        assert sorted(path.name for path in (place / "served" / "files").iterdir()) == [kept]
        bad = client.fine_tuning.jobs.create(model="m", training_file=upload(client, chat_lines(lambda _: "same")))
        assert finished(client, bad.id).status == "failed"  # so the job runner is well


def test_a_damaged_model_folder(tmp_path: Path, student: Path) -> None:
    import shutil

    damaged = tmp_path / "damaged"
    shutil.copytree(student, damaged)
    (damaged / "model.onnx").write_bytes(b"broken")
    command = [sys.executable, "-m", "fingerpost", "serve", str(damaged), "--data", str(tmp_path / "s"), "--port", "0"]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert run.returncode == 2
    assert "is not the file that was trained" in run.stderr
    assert "Traceback" not in run.stderr
    with Serving(tmp_path / "served", "--training-threads", "2") as server:
        client = server.client()
        job = client.fine_tuning.jobs.create(
            model="m", training_file=upload(client, chat_lines()), hyperparameters={"n_epochs": 1}
        )
        job = finished(client, job.id)
        (tmp_path / "served" / "models" / job.id / "model.onnx").write_bytes(b"broken")
        found = server.post(
            "/v1/chat/completions", {"model": job.fine_tuned_model, "messages": [{"role": "user", "content": "x"}]}
        )
        assert found.status_code == 500
        assert found.json()["error"]["code"] == "model_damaged"
        assert server.get("/readyz").status_code == 200


@pytest.mark.slow
def test_stopping_sends_the_running_job_back_to_the_queue(tmp_path: Path) -> None:
    server = Serving(tmp_path).start()
    client = server.client()
    job = client.fine_tuning.jobs.create(
        model="m", training_file=upload(client, chat_lines()), hyperparameters={"n_epochs": 1}
    )
    wait(lambda: worker_of(server))
    server.process.send_signal(signal.SIGTERM)
    server.__exit__()
    store = ServerStore(tmp_path / "fingerpost.db")
    found = store.get(JOBS, job.id)
    assert found is not None
    assert (found["status"], found["attempts"]) == ("queued", 0)
    store.close()
    with server:
        assert finished(server.client(), job.id).status == "succeeded"
