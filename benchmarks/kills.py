"""SIGKILL at random moments while Fingerpost labels, generates, hands in batches, answers, takes uploads and trains: what is lost?

Usage: kills.py [--labelling 80] [--generating 40] [--batches 40] [--serving 40] [--json OUT]

The teacher is the test server on a socket, with 32 requests at a time for labelling. The server has a student of the tiny
encoder of the tests. Needs the extras `train` and `serve`, and a clone of the repository.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import httpx2
from conftest import lines_of, teacher_process, write_labelled, write_questions
from serving import Serving, chat_lines, upload
from tiny_encoder import tiny_encoder_folder

import fingerpost
from fingerpost.data.importer import import_file
from fingerpost.labelling.label import plan_labels
from fingerpost.project import Project
from fingerpost.store.project import Store
from fingerpost.store.server import ServerStore
from fingerpost.task.loader import load_task

CONCURRENCY = 32
BATCH_LINES = 300


def labelling(folder: Path, kills: int) -> dict[str, Any]:
    """`fingerpost label`, killed while requests are in flight."""
    questions = 40 * kills + 100

    def prepare() -> float:
        task = load_task(folder / "task.toml")
        with Store(folder / "fingerpost.db") as store:
            import_file(store, task, write_questions(folder / "q.txt", questions))
            return plan_labels(task, store).at_most_usd / questions * (questions + kills * CONCURRENCY)

    return killed(folder, kills, ["label", "--yes"], prepare)


def generating(folder: Path, kills: int) -> dict[str, Any]:
    """`fingerpost generate`, killed while requests are in flight."""
    count = 20 * kills + 40
    return killed(folder, kills, ["generate", "--count", str(count), "--yes"], lambda: 2.0)


def killed(folder: Path, kills: int, arguments: list[str], prepare: Callable[[], float]) -> dict[str, Any]:
    """Run a command again and again, kill it at random moments, and let the last run finish.

    Args:
        prepare: fills the project, and returns the budget in US dollars.
    """
    draw = random.Random(7)
    highest = 0.0
    done = 0
    with teacher_process(folder, 0.05) as log:
        task_file = folder / "task.toml"
        text = task_file.read_text()
        task_file.write_text(text.replace("concurrency = 4", f"concurrency = {CONCURRENCY}"))
        assert load_task(task_file).teacher is not None
        budget = prepare()
        command = [sys.executable, "-m", "fingerpost", *arguments, "--budget", str(budget)]
        while done < kills:
            answered, until = lines_of(log) + draw.randint(1, 30), time.monotonic() + 120
            run = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while lines_of(log) < answered and run.poll() is None and time.monotonic() < until:
                time.sleep(0.002)
            time.sleep(draw.random() * 0.05)
            if run.poll() is not None:
                break
            run.kill()
            run.wait()
            done += 1
            with Store(folder / "fingerpost.db") as store:
                highest = max(highest, store.ledger.account().committed_usd)
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    asked = Counter(json.loads(line) for line in log.read_text().splitlines())
    with Store(folder / "fingerpost.db") as store:
        stored = sum(verdict.kind == "teacher" for found in store.verdicts().values() for verdict in found)
        unanswered = Project(folder).status().unanswered
        stored += sum(draft.answered for draft in store.drafts())
        highest = max(highest, store.ledger.account().committed_usd)
    return {
        "kills": done,
        "answers": stored,
        "lost": unanswered,
        "paid_again": sum(asked.values()) - stored,
        "most_in_flight": done * CONCURRENCY,
        "highest_committed_usd": round(highest, 4),
        "budget_usd": round(budget, 4),
    }


def batches(folder: Path, kills: int) -> dict[str, Any]:
    """`fingerpost label --batch`, killed while it hands in and fetches batches of 20 questions."""
    questions, draw, done = 20 * kills + 20, random.Random(7), 0
    command = [sys.executable, "-m", "fingerpost", "label", "--batch", "--yes", "--limit", "20"]
    with teacher_process(folder, 0.0) as log:
        task = load_task(folder / "task.toml")
        with Store(folder / "fingerpost.db") as store:
            import_file(store, task, write_questions(folder / "q.txt", questions))
            budget = plan_labels(task, store, batch=True).at_most_usd
        command += ["--budget", str(budget)]
        while done < kills:
            run = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                run.wait(draw.uniform(0.8, 2.0))
            except subprocess.TimeoutExpired:
                done += 1
            run.kill()
            run.wait()
        for _ in range(questions // 20 + 2):
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    asked = Counter(json.loads(line) for line in log.read_text().splitlines())
    with Store(folder / "fingerpost.db") as store:
        account = store.ledger.account()
        stored = sum(map(len, store.verdicts().values()))
    return {
        "kills": done,
        "answers": stored,
        "lost": questions - len(asked) + Project(folder).status().unanswered,
        "paid_again": sum(asked.values()) - stored,
        "highest_committed_usd": round(account.committed_usd, 4),
        "budget_usd": round(budget, 4),
    }


def serving(folder: Path, kills: int) -> dict[str, Any]:
    """`fingerpost serve`, killed during uploads, chats, batches and fine-tuning jobs."""
    encoder = tiny_encoder_folder()
    rows = write_labelled(folder / "labelled.csv")
    texts, labels = zip(*(line.split(",")[:2] for line in rows.read_text().splitlines()[1:]), strict=True)
    fingerpost.train(list(texts), list(labels), folder=folder / "student", encoder=str(encoder), epochs=0)
    draw, files, chats, jobs, batches = random.Random(7), set[str](), set[str](), set[str](), set[str]()
    line = {"method": "POST", "url": "/v1/chat/completions"}
    body = {"model": "student", "messages": [{"role": "user", "content": "where is it"}]}
    lines = "\n".join(json.dumps({"custom_id": str(i), **line, "body": body}) for i in range(BATCH_LINES))
    server = Serving(folder / "served", f"student={folder / 'student'}")
    for number in range(kills):
        server.start()
        client = server.client()
        if number % 4 == 0:
            training_file = upload(client, chat_lines())
            files.add(training_file)
            jobs.add(client.fine_tuning.jobs.create(model="m", training_file=training_file).id)
            given: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
            batches.add(client.batches.create(input_file_id=upload(client, lines, "batch"), **given).id)

        def use(worker: int, client: Any = client, number: int = number) -> None:
            try:
                for i in range(10_000):
                    files.add(upload(client, f"{number} {worker} {i}\n" * 200, "user_data"))
                    answer = server.ask(f"question {number} {worker} {i}")
                    if answer.status_code == 200:
                        chats.add(answer.json()["id"])
            except Exception:  # noqa: BLE001 - the server was killed amid a request
                return

        threads = [threading.Thread(target=use, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(draw.uniform(0.2, 1.5))
        server.kill()
        for thread in threads:
            thread.join()
    server.start()
    client = server.client()
    until = time.monotonic() + 1_200
    while time.monotonic() < until:
        states = Counter(client.fine_tuning.jobs.retrieve(job).status for job in jobs)
        ended = [client.batches.retrieve(batch) for batch in batches]
        if not set(states) & {"validating_files", "queued", "running"} and all(one.output_file_id for one in ended):
            break
        time.sleep(0.5)
    kept = {file.id for file in client.files.list()}
    answered = [client.files.content(str(one.output_file_id)).text.splitlines() for one in ended]
    complete = [len({json.loads(answer)["custom_id"] for answer in found}) for found in answered]
    readable = sum(httpx2.get(f"{server.url}/files/{file}/content").status_code == 200 for file in files)
    server.kill()
    store = ServerStore(folder / "served" / "fingerpost.db")
    logged = {entry.request_id for entry in store.log_entries()}
    store.close()
    return {
        "kills": kills,
        "uploads": len(files),
        "uploads_lost": len(files - kept) + len(files) - readable,
        "chats": len(chats),
        "chats_lost": len(chats - logged),
        "jobs": dict(states),
        "batches": len(batches),
        "batch_lines_lost": BATCH_LINES * len(batches) - sum(complete),
        "batch_lines_answered_twice": sum(map(len, answered)) - sum(complete),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelling", type=int, default=80)
    parser.add_argument("--generating", type=int, default=40)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--serving", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    for name, step in (
        ("labelling", labelling), ("generating", generating), ("batches", batches), ("serving", serving)
    ):  # fmt: skip
        if kills := getattr(arguments, name):
            with tempfile.TemporaryDirectory() as folder:
                results[name] = step(Path(folder), kills)
            print(name, *(f"  {key}: {value}" for key, value in results[name].items()), sep="\n", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
