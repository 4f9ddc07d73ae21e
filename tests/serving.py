"""`fingerpost serve` in a process of its own, and helpers for its clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx2
import psutil
from command_line import HOUR
from conftest import TEXTS
from openai import OpenAI
from tiny_encoder import tiny_encoder_folder

SYSTEM = (
    "Route the message.\n- billing: invoices and payments\n- delivery: parcels and couriers\n- other: anything else"
)

MINUTES = 600
"""Seconds after which a request or a state to wait for counts as hung."""


class Serving:
    """A server process: started by `with`, ended by SIGTERM; `kill` sends SIGKILL, `start` starts it again.

    Its fine-tuning jobs train the tiny encoder, unless the arguments name another one with `--encoder`.
    """

    def __init__(self, folder: Path, *arguments: str | Path, cwd: Path | None = None, **environment: str) -> None:
        encoder = () if "--encoder" in arguments else ("--encoder", tiny_encoder_folder())
        self.folder, self._arguments, self._cwd = folder, (*arguments, *encoder), cwd
        self._environment = {**os.environ, **environment}
        self.lines: list[str] = []
        self.port = 0

    def start(self) -> Serving:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fingerpost", "serve", *map(str, self._arguments), "--data", str(self.folder),
             "--port", str(self.port)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self._cwd, env=self._environment,
        )  # fmt: skip
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        if "OPENAI_BASE_URL=" not in first:
            raise AssertionError(f"{first}{self.process.communicate(timeout=HOUR)}")
        self.url = first.split("=", 1)[1].strip()
        self.port = int(self.url.rsplit(":", 1)[1].split("/")[0])
        self.greeting = [first]
        while not self.greeting[-1].startswith("  keys:"):
            self.greeting.append(self.process.stdout.readline())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait(lambda: self.get("/readyz").status_code == 200)
        return self

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def __enter__(self) -> Serving:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            ended = self.process.wait(HOUR)
        finally:
            self._close()
        assert ended in (0, -signal.SIGTERM, -signal.SIGKILL), "".join(self.lines)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        self._reader.join(HOUR)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=MINUTES)

    def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        return httpx2.post(f"http://127.0.0.1:{self.port}{path}", json=body, headers=headers, timeout=MINUTES)

    def ask(self, text: str | list[dict[str, Any]], **more: Any) -> httpx2.Response:
        """One chat request to the model `student`."""
        return self.post(
            "/v1/chat/completions", {"model": "student", "messages": [{"role": "user", "content": text}], **more}
        )

    def client(self, key: str = "none", retries: int = 0) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key, max_retries=retries)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]


def ended(pid: int) -> bool:
    """Whether the process is gone, or is a zombie that nobody has waited for yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait(ready: Callable[[], Any], seconds: float = MINUTES) -> Any:
    """Poll `ready` until its result is true; returns that result. A server that does not answer yet is polled again."""
    until = time.monotonic() + seconds
    while True:
        try:
            if found := ready():
                return found
        except httpx2.HTTPError:
            pass
        assert time.monotonic() < until, f"nothing after {seconds:.0f} s"
        time.sleep(0.05)


def chat_lines(
    reply: Callable[[str], str] = lambda label: json.dumps({"action": label}), times: int = 1, system: str = SYSTEM
) -> str:
    """The small data set as chat JSONL, `times` times; each repetition adds the word "please"."""
    lines = []
    for label, texts in TEXTS.items():
        for text in texts:
            for i in range(times):
                turns = [("system", system), ("user", text + " please" * i), ("assistant", reply(label))]
                lines.append(json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]}))
    return "\n".join(lines) + "\n"


def upload(client: OpenAI, content: str, purpose: Any = "fine-tune", name: str = "train.jsonl") -> str:
    return client.files.create(file=(name, content.encode()), purpose=purpose).id


def finished(client: OpenAI, job: str, seconds: float = HOUR) -> Any:
    """Wait until the fine-tuning job has ended; returns it."""
    until = time.monotonic() + seconds
    while (found := client.fine_tuning.jobs.retrieve(job)).status not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() < until, messages_of(client, job)
        time.sleep(0.1)
    return found


def messages_of(client: OpenAI, job: str) -> list[str]:
    """The messages of the job's events, oldest first."""
    events: Iterable[Any] = client.fine_tuning.jobs.list_events(job, limit=100)
    return [event.message for event in events][::-1]
