"""A server under load for minutes: does its memory grow, does it leave handles open, and what is lost in kills and on a full disk?

Usage: soak.py [--minutes 20] [--chats 20000] [--files 500] [--json OUT]

First the given number of chats, and of uploads that are read and deleted, by four clients; memory and open handles are
compared with those after a tenth of them. Then, for the given minutes: chats, uploads, batches and fine-tuning jobs beside
clients that send garbage, half of a request or a body without end; a SIGKILL every 45 seconds; and every second minute a full
disk for ten seconds, where a file system can be mounted. In the end everything that was acknowledged has to be there. The
student has the default encoder, jobs train the tiny encoder of the tests. Needs the extras `train` and `serve`, and a clone of
the repository.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import httpx2
import psutil
from conftest import TEXTS
from serving import Serving, chat_lines, upload

from fingerpost.data.rows import Columns
from fingerpost.store.server import ServerStore
from fingerpost.training.dataset import from_file
from fingerpost.training.train import train

CLIENTS = 4
KILL_S, FULL_EVERY_S, FULL_S = 45.0, 120.0, 10.0
DISK_MB = 1_024


def train_student(folder: Path) -> Path:
    """A student of the default encoder."""
    rows = [f"{text},{label}" for label, texts in TEXTS.items() for text in texts]
    (folder / "data.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    train(from_file(folder / "data.csv", Columns()), folder / "student", epochs=0)
    return folder / "student"


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Call `work` with 0 to CLIENTS - 1 in threads of its own, which share `count` numbers."""
    threads = [
        threading.Thread(target=lambda one=one: [work(n) for n in range(one, count, CLIENTS)]) for one in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def footprint(server: Serving) -> tuple[float, int]:
    """Resident memory in MB, and open handles, of the server without its children."""
    time.sleep(3)
    process = psutil.Process(server.process.pid)
    return process.memory_info().rss / 2**20, process.num_fds()


def steady(folder: Path, student: Path, chats: int, files: int) -> dict[str, Any]:
    """Memory and handles after a tenth of the requests, and after all."""
    with (
        Serving(folder / "steady", f"student={student}") as server,
        httpx2.Client(base_url=server.url, timeout=60) as http,
    ):
        client = server.client()
        draw = random.Random(5)
        words = [text for texts in TEXTS.values() for text in texts]

        def chat(number: int) -> None:
            text = f"{draw.choice(words)} {number} " + "please " * draw.randint(0, 40)
            turns = {"model": "student", "messages": [{"role": "user", "content": text}], "stream": number % 5 == 0}
            assert http.post("/chat/completions", json=turns).status_code == 200

        def store(number: int) -> None:
            file = upload(client, f"{number} " * draw.randint(1, 200_000), "user_data")
            assert client.files.content(file).read()
            client.files.delete(file)

        in_threads(chats // 10, chat)
        in_threads(files // 10, store)
        before = footprint(server)
        in_threads(chats - chats // 10, chat)
        in_threads(files - files // 10, store)
        after = footprint(server)
    return {
        "chats": chats,
        "files": files,
        "memory_mb": [round(before[0], 1), round(after[0], 1)],
        "growth": round(after[0] / before[0] - 1, 4),
        "handles": [before[1], after[1]],
    }


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of DISK_MB in the folder; False where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield mounted
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def logged_lost(server: Serving) -> int:
    """How many log entries the server could not store since its start, by its own count."""
    return int(float(re.findall(r"fingerpost_log_lost_total ([0-9.]+)", server.get("/metrics").text)[0]))


class Storm:
    """Clients of one server that is killed and whose disk fills up, and what the server acknowledged to them."""

    def __init__(self, server: Serving) -> None:
        self.server, self.ended = server, threading.Event()
        self.files, self.deleted = set[str](), set[str]()
        self.chats, self.jobs, self.batches = set[str](), set[str](), set[str]()
        self.statuses: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.not_logged = 0

    def run(self, work: Callable[[int], None]) -> None:
        """Call `work` with growing numbers until the end, whatever becomes of the server."""
        for number in itertools.count():
            if self.ended.is_set():
                return
            try:
                work(number)
            except (httpx2.HTTPError, OSError):  # the server was killed amid a request
                time.sleep(0.2)
            except Exception as error:  # noqa: BLE001 - the client library's errors: a status, or no connection
                status = getattr(error, "status_code", None)
                self.statuses[str(status or type(error).__name__)] += 1
                if status == 500:
                    self.unexpected.append(str(error))
                time.sleep(0.2)

    def chat(self, number: int) -> None:
        answer = self.server.ask(f"my invoice {number}")
        self.statuses[str(answer.status_code)] += 1
        if answer.status_code == 200:
            self.chats.add(answer.json()["id"])

    def upload(self, number: int) -> None:
        self.files.add(upload(self.server.client(), f"{number}\n" * 2_000, "user_data"))
        if number % 2:
            file = next(iter(self.files - self.deleted))
            self.deleted.add(file)
            self.server.client().files.delete(file)
        time.sleep(0.05)

    def job(self, number: int) -> None:
        client = self.server.client()
        file = upload(client, chat_lines(times=1 + number % 3))
        self.files.add(file)
        self.jobs.add(client.fine_tuning.jobs.create(model="m", training_file=file).id)
        self.ended.wait(40)

    def batch(self, number: int) -> None:
        client = self.server.client()
        turns = [{"role": "user", "content": f"where is my parcel {number}"}]
        line = {"method": "POST", "url": "/v1/chat/completions", "body": {"model": "student", "messages": turns}}
        lines = "\n".join(json.dumps({"custom_id": str(i), **line}) for i in range(200))
        file = upload(client, lines, "batch")
        self.files.add(file)
        endpoint: Any = "/v1/chat/completions"
        self.batches.add(client.batches.create(input_file_id=file, endpoint=endpoint, completion_window="24h").id)
        self.ended.wait(20)

    def garbage(self, number: int) -> None:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        sent = [
            b"\x16\x03\x01\x02\x00" * 50,
            head + b"x: " + b"a" * 300_000 + b"\r\n\r\n",
            head + b"content-length: 99999\r\n\r\n{",
            head + b"transfer-encoding: chunked\r\n\r\n" + (b"%x\r\n" % 2**20 + b" " * 2**20 + b"\r\n") * 8,
            b"",
        ][number % 5]
        connection = socket.create_connection(("127.0.0.1", self.server.port), 5)
        connection.sendall(sent)
        time.sleep(0.3)
        if number % 3:
            connection.close()
        else:
            threading.Timer(15, connection.close).start()


def stormy(folder: Path, student: Path, minutes: float) -> dict[str, Any]:
    """Load, kills, a full disk and bad clients; then what was lost."""
    place = folder / "disk"
    with small_disk(place) as mounted:
        server = Serving(place / "served", f"student={student}").start()
        storm = Storm(server)
        works = [storm.chat, storm.chat, storm.upload, storm.job, storm.batch, storm.garbage]
        threads = [threading.Thread(target=storm.run, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        began, kills, fills, peak = time.monotonic(), 0, 0, 0.0
        next_kill, next_fill = began + KILL_S, began + FULL_EVERY_S
        while (now := time.monotonic()) < began + 60 * minutes:
            time.sleep(0.5)
            peak = max(peak, psutil.Process(server.process.pid).memory_info().rss / 2**20)
            if mounted and now > next_fill:
                with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as stream:
                    while True:
                        stream.write(b"x" * 4_096)
                time.sleep(FULL_S)
                (place / "filler").unlink()
                fills, next_fill = fills + 1, time.monotonic() + FULL_EVERY_S
            elif now > next_kill:
                storm.not_logged += logged_lost(server)
                server.kill()
                server.start()
                kills, next_kill = kills + 1, time.monotonic() + KILL_S
        storm.ended.set()
        for thread in threads:
            thread.join()
        client = server.client()
        until = time.monotonic() + 1_200
        while time.monotonic() < until:
            jobs = Counter(client.fine_tuning.jobs.retrieve(job).status for job in storm.jobs)
            batches = Counter(client.batches.retrieve(batch).status for batch in storm.batches)
            if set(jobs) <= {"succeeded", "failed"} and set(batches) <= {"completed", "failed"}:
                break
            time.sleep(1)
        answers = [client.batches.retrieve(batch) for batch in storm.batches]
        incomplete = sum(batch.request_counts is None or batch.request_counts.completed != 200 for batch in answers)
        kept = storm.files - storm.deleted
        there = {file.id for file in client.files.list()}
        counted = storm.not_logged + logged_lost(server)
        errors = [event["event"] for event in server.events() if event["level"] == "error"]
        server.kill()
        store = ServerStore(place / "served" / "fingerpost.db")
        logged = {entry.request_id for entry in store.log_entries()}
        store.close()
    return {
        "minutes": minutes,
        "kills": kills,
        "times_full": fills,
        "statuses": dict(storm.statuses),
        "files": len(kept),
        "files_lost": len(kept - there),
        "chats": len(storm.chats),
        "chats_not_logged": len(storm.chats - logged),
        "log_entries_lost_by_the_servers_count": counted,
        "jobs": dict(jobs),
        "batches": dict(batches),
        "batches_incomplete": incomplete,
        "peak_memory_mb": round(peak, 1),
        "errors_logged": dict(Counter(errors)),
        "status_500": storm.unexpected[:3],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--chats", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        student = train_student(folder)
        if given.chats:
            results["steady"] = steady(folder, student, given.chats, given.files)
            print("steady", *(f"  {key}: {value}" for key, value in results["steady"].items()), sep="\n", flush=True)
        if given.minutes:
            results["stormy"] = stormy(folder, student, given.minutes)
            print("stormy", *(f"  {key}: {value}" for key, value in results["stormy"].items()), sep="\n", flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
