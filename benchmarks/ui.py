"""The review page with 100,000 questions: the time of a verdict with the next question, and the size of the pages.

Usage: ui.py [--questions 100000] [--reviews 200]

Texts are random words with their label among them; their embeddings are sums of random vectors of the words, so that no time is
spent on an encoder. A client on the same machine posts answers one after the other, each followed by the page with the next question. Every 25
answers the consensus is computed anew beside, in the same process: "while computing" are the answers in that time.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

import httpx2
import numpy as np
import uvicorn

from fingerpost.consensus.model import Array
from fingerpost.core.text import question_id
from fingerpost.core.types import Message, Question, Verdict
from fingerpost.project import Project
from fingerpost.store.project import Store
from fingerpost.task.template import render_task
from fingerpost.ui.app import ROOT, Ui, UiSettings

LABELS = [f"label_{number}" for number in range(40)]
WIDTH = 384
HIDDEN = re.compile(r'<input type="hidden" name="(csrf|question)" value="([^"]+)">')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--reviews", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "task.toml").write_text(render_task("ui", {label: f"about {label}" for label in LABELS}))
        with Store(folder / "fingerpost.db") as store:
            fill(store, given.questions)
        Project.embed = embed  # type: ignore[method-assign, assignment]
        ui = Ui(UiSettings(folder, "ann"))
        server = uvicorn.Server(uvicorn.Config(ui.app, port=0, log_level="error", access_log=False))
        threading.Thread(target=server.run, daemon=True).start()
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}{ROOT}", timeout=600) as client:
            measure(client, ui, given.questions, given.reviews)
        server.should_exit = True


def measure(client: httpx2.Client, ui: Ui, questions: int, reviews: int) -> None:
    """Answer questions and print how long that takes."""
    began = time.perf_counter()
    while not ui.queue.is_ready:
        time.sleep(0.5)
    print(f"{questions:,} questions; the first queue took {time.perf_counter() - began:.0f} s")
    page = client.get("/review")
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(reviews):
        fields = dict(HIDDEN.findall(page.text))
        while "question" not in fields:  # faster than anybody reads: all prepared questions are answered
            time.sleep(0.5)
            page = client.get("/review")
            fields = dict(HIDDEN.findall(page.text))
        computing = ui.queue.is_computing
        began = time.perf_counter()
        client.post("/review/answer", data={**fields, "label": LABELS[0]})
        page = client.get("/review")
        times[computing].append(time.perf_counter() - began)
    for computing, found in times.items():
        if len(found) > 1:
            what = "while computing" if computing else "otherwise"
            p95 = quantiles(found, n=20)[-1]
            print(
                f"{what}: n = {len(found)}, median {1000 * median(found):.1f} ms, 95th percentile {1000 * p95:.1f} ms"
            )
    print(f"the page has {len(page.content):,} bytes")


def fill(store: Store, count: int) -> None:
    """Questions with a teacher's label that is wrong for one in five."""
    draw = random.Random(0)
    words = [f"word{number}" for number in range(3_000)]
    for start in range(0, count, 10_000):
        questions, verdicts = [], []
        for _ in range(start, min(count, start + 10_000)):
            label = draw.choice(LABELS)
            messages = (Message("user", " ".join([*draw.choices(words, k=8), label])),)
            key = question_id(messages)
            questions.append(Question(key, messages, "user", key, "train"))
            given = label if draw.random() < 0.8 else draw.choice(LABELS)
            verdicts.append(Verdict(key, "teacher", "gpt-4.1-mini", given))
        store.add_questions(questions)
        store.add_verdicts(verdicts)


def embed(_project: Project, questions: Sequence[Question], _settings: object = None) -> Array:
    """Unit vectors, the sum of a random vector for each word."""
    known: dict[str, Array] = {}
    vectors = np.zeros((len(questions), WIDTH), dtype=np.float32)
    for row, question in enumerate(questions):
        for word in question.messages[-1].content.split():
            if word not in known:
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
                known[word] = np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
            vectors[row] += known[word] * (3 if word in LABELS else 1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
