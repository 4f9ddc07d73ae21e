"""The loop on recorded traffic: what a student answers without the teacher after so many answers, and what that costs.

Usage: proxy.py --data CSV [--sizes 1000,2000,5000,10003] [--order shuffled|file] [--reviews 200] [--disagreement 0.05]
                [--shad0w PYTHON]
       proxy.py --latency [--requests 1000]

The CSV file has the columns split, text, gold and teacher. The training rows pass by, with the teacher's recorded answers as those of the
upstream endpoint; the student is trained, and its cut-off proven, by the code that `fingerpost serve --upstream` runs. Then the test
rows come. Reported: the share that the student is sure of, and how many of these answers differ from the teacher's; the same for those
that it gives in service, after probation and checks; accuracy against people of student and teacher together; and all that after reviews of the
rows that `fingerpost review` selects, answered with the gold label. In the order of the file, the rows are sorted by label.

--shad0w: the Python of an environment with shad0wllm, which gets the same rows and the same promise (its delta at 0.05).

--latency: the median time of a request to an endpoint on this machine, directly and through the proxy, in turns.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
from numpy.typing import NDArray

from fingerpost.core.types import Message, Usage
from fingerpost.evaluation.drift import DriftMonitor
from fingerpost.project import STUDENT, Project
from fingerpost.server.loop.active import load_model
from fingerpost.server.loop.projects import learn
from fingerpost.store.server import DATABASE, ServerStore
from fingerpost.store.server_rows import DecisionRow, LoggedTeacherReply, RequestLogEntry
from fingerpost.students.folder import dev_answers

PROMPT = "Which of these intents does the customer of the bank have?"
MODEL = "recorded-teacher"
SUREST = 124
"""The fewest answers that prove an agreement of 95 % with two errors among them, where the search for a cut-off begins."""


@dataclass(frozen=True)
class Row:
    text: str
    gold: str
    teacher: str


def read(path: Path) -> tuple[list[Row], list[Row]]:
    """Training rows and test rows."""
    with path.open(encoding="utf-8") as stream:
        rows = [(row["split"], Row(row["text"], row["gold"], row["teacher"])) for row in csv.DictReader(stream)]
    return [row for split, row in rows if split != "test"], [row for split, row in rows if split == "test"]


def observed(folder: Path, rows: list[Row], names: list[str]) -> tuple[ServerStore, DecisionRow]:
    """A server's database in which these answers have passed by."""
    folder.mkdir(parents=True)
    store = ServerStore(folder / DATABASE)
    place = {"path": ["intent"], "tool": None, "by_tool": False}
    decision = store.add_decision("intent", 1, "shadow", place, list(names), PROMPT, MODEL)
    store.add_log_entries(
        [
            RequestLogEntry(
                f"req_{number}", number, None, MODEL, (Message("user", row.text),), label, 0.0, "upstream", 0.6,
                LoggedTeacherReply(MODEL, label, row.teacher, None, Usage()), decision.id,
            )
            for number, row in enumerate(rows)
            for label in [row.teacher if row.teacher in names else None]
        ]
    )  # fmt: skip
    return store, decision


def measure(decision: DecisionRow, folder: Path, test: list[Row], limit: float) -> str:
    """A line of the table: what the student does with the test rows."""
    student = load_model(decision, folder / decision.folder / "models" / STUDENT).student
    predicted = student.predict([(Message("user", row.text),) for row in test])
    label = np.array([one.label for one in predicted])
    confidence = np.array([one.scores[str(one.label)] for one in predicted])
    sure = confidence >= (decision.training.get("cutoff") or np.inf)
    teacher, gold = np.array([row.teacher for row in test]), np.array([row.gold for row in test])
    differ = int((sure & (label != teacher)).sum())
    together = np.where(sure, label, teacher)
    surest = np.argsort(-confidence)[: len(test) // 2]
    half = float((label != teacher)[surest].mean())
    known = sorted(dev_answers(folder / decision.folder / "models" / STUDENT, True), key=lambda one: -one.confidence)
    errors = sum(one.answer != one.label for one in known[:SUREST])
    served = in_service(sure, label != teacher, max(limit, decision.training.get("differs", limit)))
    wrong = int((served & (label != teacher)).sum())
    return (
        f"sure of {sure.mean():.3f}, differs {differ / max(1, sure.sum()):.4f}   "
        f"in service {served.mean():.3f}, differs {wrong / max(1, served.sum()):.4f}   "
        f"right: student {(label == gold).mean():.4f}  together {(together == gold).mean():.4f}  "
        f"teacher {(teacher == gold).mean():.4f}   proven on {decision.training.get('of', 0):,} answers   "
        f"surest half of the test rows differs {half:.4f}, of the {SUREST} surest cross-validated answers {errors}"
    )


def in_service(sure: NDArray[np.bool_], differs: NDArray[np.bool_], limit: float) -> NDArray[np.bool_]:
    """Which of the requests the student answers, one after the other, with its probation and the checks of its answers."""
    monitor, random = DriftMonitor(limit), np.random.default_rng(0)
    served = np.zeros(len(sure), dtype=bool)
    for number in np.flatnonzero(sure):
        if monitor.alarm:
            break
        served[number] = not monitor.probation
        if random.random() < monitor.share_to_check(int(served.sum())):
            monitor.add(bool(differs[number]))
    return served


def shad0w(python: str, train: list[Row], test: list[Row], names: list[str], limit: float) -> str:
    """The line of the table for shad0wllm."""
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "rows.json"
        rows = [[[row.text, row.teacher, row.gold] for row in part] for part in (train, test)]
        given.write_text(json.dumps({"names": names, "train": rows[0], "test": rows[1], "limit": limit}))
        ended = subprocess.run([python, "-c", SHAD0W, str(given)], capture_output=True, text=True, check=True)
    return ended.stdout.strip().splitlines()[-1]


SHAD0W = """
import json, sys
import shad0w
given = json.load(open(sys.argv[1]))
names = set(given["names"])
schema = {"intent": {"type": "choice", "criteria": {name: None for name in given["names"]}}}
rows = [{"text": text, "intent": teacher} for text, teacher, _ in given["train"] if teacher in names]
model, _ = shad0w.shadow_compile(schema, rows, alpha=given["limit"], delta=0.05)
answers = [model.decide(text, probabilities=False, observe=False)["answers"]["intent"] for text, _, _ in given["test"]]
sure = [answer["certified"] for answer in answers]
differ = sum(a["choice"] != row[1] for a, row, s in zip(answers, given["test"], sure) if s)
together = sum((a["choice"] if s else row[1]) == row[2] for a, row, s in zip(answers, given["test"], sure))
alone = sum(a["choice"] == row[2] for a, row in zip(answers, given["test"]))
n = len(sure)
print(f"sure of {sum(sure) / n:.3f}, differs {differ / max(1, sum(sure)):.4f}   right: student {alone / n:.4f}  together {together / n:.4f}")
"""


def review(project: Project, gold: dict[str, str], count: int) -> None:
    """Answer so many questions of the review queue with their gold label."""
    with project.store() as store:
        queue = project.review(store, "people")
        while queue.reviewed < count and (card := queue.next()) is not None:
            queue.answer(card.question, gold[card.question.messages[-1].content])


def replay(arguments: argparse.Namespace) -> None:
    train, test = read(arguments.data)
    names = sorted({row.gold for row in train})
    if arguments.order == "shuffled":
        random.Random(0).shuffle(train)
    random.Random(0).shuffle(test)
    gold = {row.text: row.gold for row in train}
    print(
        f"{len(train):,} answers, {len(test):,} test rows, {len(names)} labels; promise: {arguments.disagreement:.0%} differ"
    )
    for size in (int(size) for size in arguments.sizes.split(",")):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "decisions"
            store, decision = observed(Path(temporary) / "served", train[:size], names)
            began = time.process_time()
            decision = learn(store, decision, folder, arguments.disagreement, epochs=0)
            took = time.process_time() - began
            print(
                f"{size:6,} answers               {measure(decision, folder, test, arguments.disagreement)}   ({took:.0f} s CPU)",
                flush=True,
            )
            if arguments.reviews:
                review(Project(folder / decision.folder), gold, arguments.reviews)
                decision = learn(store, decision, folder, arguments.disagreement, epochs=0)
                print(
                    f"{'':6}         + {arguments.reviews} reviews  {measure(decision, folder, test, arguments.disagreement)}",
                    flush=True,
                )
            store.close()
        if arguments.shad0w:
            line = shad0w(arguments.shad0w, train[:size], test, names, arguments.disagreement)
            print(f"{'':6}         shad0wllm    {line}", flush=True)


def latency(requests: int) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from serving import Serving
    from teacher import Teacher

    schema = {"type": "object", "properties": {"action": {"enum": ["billing", "delivery", "other"]}}}
    form = {"type": "json_schema", "json_schema": {"name": "route", "schema": schema}}
    teacher = Teacher().start()
    with (
        tempfile.TemporaryDirectory() as temporary,
        Serving(Path(temporary) / "served", "--upstream", teacher.base_url, "--quiet") as server,
        httpx2.Client() as client,
    ):
        for name, more in (("passed on", {}), ("a decision, logged", {"response_format": form})):
            body = {"model": "m", "messages": [{"role": "user", "content": "billing please"}], **more}
            times: dict[str, list[float]] = {teacher.base_url: [], server.url: []}
            for _ in range(requests):
                for url, taken in times.items():
                    began = time.perf_counter()
                    client.post(f"{url}/chat/completions", json=body).raise_for_status()
                    taken.append(1000 * (time.perf_counter() - began))
            direct, through = (statistics.median(taken) for taken in times.values())
            print(f"{name:20} direct {direct:.2f} ms, through {through:.2f} ms, on top {through - direct:.2f} ms")
    teacher.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sizes", default="1000,2000,5000,10003")
    parser.add_argument("--reviews", type=int, default=200)
    parser.add_argument("--disagreement", type=float, default=0.05)
    parser.add_argument("--order", choices=["shuffled", "file"], default="shuffled")
    parser.add_argument("--shad0w", metavar="PYTHON")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--requests", type=int, default=1_000)
    arguments = parser.parse_args()
    if arguments.latency:
        latency(arguments.requests)
    elif arguments.data is None:
        parser.error("give --data or --latency")
    else:
        replay(arguments)


if __name__ == "__main__":
    main()
