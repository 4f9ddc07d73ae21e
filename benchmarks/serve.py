"""How fast a served student answers over HTTP: one client, 32 clients, and while a job trains; against the model alone.

Usage: serve.py MODEL QUESTIONS.csv [--train TRAIN.jsonl] [--seconds 20] [--clients 32]

The server is held to the first core, clients and training to the second (`os.sched_setaffinity`, Linux). Latencies are
over the socket, from the request's first byte to the answer's last, of keep-alive connections; the reference is the
same student called in this process with the same texts.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from openai import OpenAI

import fingerpost

SERVER_CORE, OTHER_CORE = 0, 1


def start(model: Path, folder: str) -> tuple[subprocess.Popen[str], int]:
    child = subprocess.Popen(
        [sys.executable, "-m", "fingerpost", "serve", f"student={model}", "--data", folder, "--port", "0", "--quiet"],
        stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )  # fmt: skip
    assert child.stdout is not None
    port = int(child.stdout.readline().rsplit(":", 1)[1].split("/")[0])
    return child, port


async def client(port: int, texts: Sequence[str], until: float, most: int, took: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(most):
        if time.perf_counter() >= until:
            break
        question = {"role": "user", "content": texts[number % len(texts)]}
        body = json.dumps({"model": "student", "messages": [question], "temperature": 0}).encode()
        began = time.perf_counter()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body) + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")
        )
        await reader.readexactly(length)
        took.append(time.perf_counter() - began)
        assert head.startswith("HTTP/1.1 200"), head
    writer.close()


async def load(
    port: int, texts: Sequence[str], clients: int, seconds: float, most: int = 10**9
) -> tuple[list[float], float]:
    """Seconds of each request, and requests a second."""
    took: list[float] = []
    began = time.perf_counter()
    turned = [[*texts[i * 7 :], *texts[: i * 7]] for i in range(clients)]
    await asyncio.gather(*(client(port, each, began + seconds, most, took) for each in turned))
    return took, len(took) / (time.perf_counter() - began)


def show(what: str, took: Sequence[float], rate: float | None = None) -> None:
    p50, p95, p99 = np.percentile(np.array(took) * 1000, [50, 95, 99])
    more = f"   {rate:6.0f} requests/s" if rate else ""
    print(f"{what:34} n = {len(took):6,}   p50 {p50:6.2f} ms   p95 {p95:6.2f} ms   p99 {p99:6.2f} ms{more}", flush=True)


async def while_training(port: int, texts: Sequence[str], file: Path, clients: int) -> None:
    api = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    upload = api.files.create(file=file.open("rb"), purpose="fine-tune")
    job = api.fine_tuning.jobs.create(training_file=upload.id, model="all-MiniLM-L6-v2")
    began, took = time.perf_counter(), []
    while job.status in ("validating_files", "queued", "running"):
        for child in psutil.process_iter(["cmdline"]):
            if "fingerpost.server.jobs.worker" in (child.info["cmdline"] or []) and child.cpu_affinity() != [
                OTHER_CORE
            ]:
                for thread in Path(f"/proc/{child.pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), {OTHER_CORE})
        took += (await load(port, texts, clients, 1.0))[0]
        job = await asyncio.to_thread(api.fine_tuning.jobs.retrieve, job.id)
    seconds = time.perf_counter() - began
    show(f"{clients} clients while a job trains", took, len(took) / seconds)
    print(f"  the job: {job.status} after {seconds:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=32)
    arguments = parser.parse_args()
    with arguments.questions.open(encoding="utf-8") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    os.sched_setaffinity(0, {OTHER_CORE})
    student = fingerpost.load(arguments.model)
    alone: list[float] = []
    for text in texts[:500]:
        began = time.perf_counter()
        student.predict([text])
        alone.append(time.perf_counter() - began)
    show("the student in this process", alone)
    with tempfile.TemporaryDirectory() as folder:
        server, port = start(arguments.model, folder)
        try:
            asyncio.run(load(port, texts, 4, 2))
            show("one client", asyncio.run(load(port, texts, 1, 60, 1_000))[0])
            show(f"{arguments.clients} clients", *asyncio.run(load(port, texts, arguments.clients, arguments.seconds)))
            if arguments.train:
                asyncio.run(while_training(port, texts, arguments.train, 1))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


if __name__ == "__main__":
    main()
