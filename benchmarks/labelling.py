"""Labelling rate compared with the ideal, on a server that answers after 300 ms, with 32 concurrent requests.

Usage: labelling.py [--questions 3200] [--json OUT]

The ideal rate is concurrency / delay. The bare `openai` client is measured on the same server with the same concurrency.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import openai

from fingerpost.core.types import Label
from fingerpost.data.importer import import_file
from fingerpost.labelling.label import label, plan_labels
from fingerpost.store.project import Store
from fingerpost.task.settings import Task, TeacherSettings

DELAY_S, CONCURRENCY = 0.3, 32
SERVER = Path(__file__).parent.parent / "tests" / "teacher.py"


async def bare_client(base_url: str, count: int) -> None:
    client = openai.AsyncOpenAI(base_url=base_url, api_key="none")
    semaphore = asyncio.Semaphore(CONCURRENCY)

    async def one(i: int) -> None:
        async with semaphore:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": f"billing {i}"}])

    await asyncio.gather(*(one(i) for i in range(count)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=3200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, str(SERVER), str(DELAY_S)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout and server.stdin
    base_url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    teacher = TeacherSettings(model="m", base_url=base_url, concurrency=CONCURRENCY)
    labels = tuple(Label(name=name) for name in ("billing", "delivery", "other"))
    task = Task(name="t", labels=labels, teacher=teacher)
    with tempfile.TemporaryDirectory() as scratch, Store(Path(scratch) / "db") as store:
        file = Path(scratch) / "q.txt"
        file.write_text(
            "".join(f"billing {i * 7919 % 99991} {i * 104729 % 1299709}\n" for i in range(arguments.questions))
        )
        import_file(store, task, file)
        plan = plan_labels(task, store)
        began = time.perf_counter()
        done = label(task, store, plan, Path(scratch))
        ours = done.usable / (time.perf_counter() - began)
    began = time.perf_counter()
    asyncio.run(bare_client(base_url, done.usable))
    bare = done.usable / (time.perf_counter() - began)
    server.stdin.close()
    server.wait()
    ideal = CONCURRENCY / DELAY_S
    results = {
        "questions": done.usable,
        "ideal": ideal,
        "fingerpost": ours,
        "share": ours / ideal,
        "bare_client": bare,
    }
    print(f"ideal {ideal:.1f}/s, fingerpost label {ours:.1f}/s ({ours / ideal:.1%}), bare openai client {bare:.1f}/s")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
