"""Runs the resource tests of OpenAI's Python client against a server of ours.

Usage: resource_tests.py SDIST [--python PYTHON]

SDIST is the client's source distribution, unpacked (`pip download openai --no-binary openai --no-deps`). PYTHON has that version of
openai, pytest, pytest-asyncio, pytest-xdist, respx, dirty-equals, rich and httpx_aiohttp; default is this one. The tests ask for made-up ids, so
each module runs against a server of its own whose database has files, jobs, batches and responses with these ids; and a student
under the names of the models that they ask for. Printed is each module with the tests that failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from serving import Serving
from tiny_encoder import tiny_encoder_folder

import fingerpost
from fingerpost.store.server import DATABASE, ServerStore
from fingerpost.store.server_rows import BatchRow, FileRow, JobRow, ResponseRow

MODULES = (
    "chat/test_completions.py", "test_completions.py", "test_responses.py", "responses/test_input_items.py", "test_decisions.py",
    "test_embeddings.py", "test_files.py", "test_uploads.py", "test_batches.py", "test_models.py", "fine_tuning/test_jobs.py",
    "fine_tuning/jobs/test_checkpoints.py",
)  # fmt: skip
MODELS = ("gpt-6-astra", "gpt-4o-mini", "gpt-3.5-turbo-instruct", "text-embedding-3-small", "model")
TUNED = "ft:gpt-4o-mini:acemeco:suffix:abc123"
JOB, RESPONSES = "ft-AF1WoRqd3aJAHsqc9NY7iL8F", ("resp_677efb5139a88190b512bc3fef8e535d", "resp_123", "response_id")
AGAIN = """
import json, os, sqlite3
import pytest

@pytest.fixture(autouse=True)
def again():
    with sqlite3.connect(os.environ["SEEDED"], timeout=60) as database:
        for table, columns, rows in json.load(open(os.environ["SEEDED"] + ".json")):
            marks = ",".join("?" * len(columns))
            database.executemany(f"INSERT OR REPLACE INTO {table} ({','.join(columns)}) VALUES ({marks})", rows)
    for name in ("file_id", "file-abc123", "input_file_id", "after"):
        with open(os.path.join(os.path.dirname(os.environ["SEEDED"]), "files", name), "w") as stream:
            stream.write("{}\\n")
"""
"""A plugin of pytest that writes the rows again before each test, because tests delete and cancel what others need."""
RESPONSE = {
    "object": "response", "created_at": 1, "model": "model", "output": [], "parallel_tool_calls": True, "tool_choice": "auto",
    "tools": [], "status": "completed",
}  # fmt: skip


def seed(folder: Path) -> None:
    """A server's database with what the tests ask for."""
    (folder / "files").mkdir(parents=True)
    store = ServerStore(folder / DATABASE)
    for file_id, purpose in (
        ("file_id", "batch"),
        ("file-abc123", "fine-tune"),
        ("input_file_id", "batch"),
        ("after", "batch"),
    ):
        store.add_file(FileRow(file_id, 1, "a.jsonl", purpose, 3))
        (folder / "files" / file_id).write_text("{}\n")
    request = {"model": "gpt-4o-mini", "training_file": "file-abc123"}
    for job_id in (JOB, "after"):
        store.add_job(JobRow(job_id, 1, "queued", request, paused=True), 10)
    store.add_job(JobRow("ftjob-model", 1, "succeeded", request, finished_at=2, model=TUNED, announced=True), 10)
    asked = {"endpoint": "/v1/chat/completions", "input_file_id": "file_id", "completion_window": "24h"}
    for batch_id in ("batch_id", "after"):
        store.add_batch(BatchRow(batch_id, 1, "cancelling", asked))
    for response_id in RESPONSES:
        item = {"id": "msg_1", "type": "message", "role": "user", "content": "x"}
        store.add_response(ResponseRow(response_id, 1, [item], {**RESPONSE, "id": response_id}))
    store.close()
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        tables = []
        for table in ("files", "jobs", "batches", "responses"):
            found = database.execute(f"SELECT * FROM {table}")
            tables.append((table, [column[0] for column in found.description], found.fetchall()))
    (folder / f"{DATABASE}.json").write_text(json.dumps(tables))
    (folder / "again.py").write_text(AGAIN)


def run(module: str, sources: Path, python: str, student: Path, folder: Path) -> tuple[str, list[str]]:
    """The last line of pytest's output, and the tests that failed with the reason."""
    seed(folder)
    models = [f"{name}={student}" for name in MODELS]
    with Serving(folder, *models) as server:
        ended = subprocess.run(
            [python, "-m", "pytest", f"tests/api_resources/{module}", "-q", "-n", "0", "-p", "no:cacheprovider", "-p", "again",
             "-W", "default",
             "--durations=0", "--durations-min=999"],
            cwd=sources, capture_output=True, text=True, env={**os.environ, "TEST_API_BASE_URL": server.url, "SEEDED": str(folder / DATABASE), "PYTHONPATH": str(folder)},
        )  # fmt: skip
    lines = ended.stdout.strip().splitlines()
    failed = {re.sub(r"\[.*", "", line.split("::")[-1]) for line in lines if line.startswith("FAILED")}
    return lines[-1], sorted(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--python", default=sys.executable)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        student = Path(temporary) / "model"
        texts = [f"{text} {number}" for number in range(5) for text in ("how do I pay", "this is a scandal")]
        fingerpost.train(texts, ["no", "yes"] * 5, folder=student, encoder=str(tiny_encoder_folder()), epochs=0)
        for number, module in enumerate(MODULES):
            found, failed = run(module, given.sources, given.python, student, Path(temporary) / f"served-{number}")
            print(f"{module:38} {re.sub(r'=+', '', found).strip()}", flush=True)
            for line in failed:
                print("   ", line[:200])


if __name__ == "__main__":
    main()
