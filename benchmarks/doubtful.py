"""What `label --again doubtful` gains: the teacher's labels and the student before and after, with a live teacher.

Usage: doubtful.py DATA.csv MODEL.gguf [--reviews 200] [--limit 200]

The CSV file has the columns split (train or test), text, gold, teacher and label_order; MODEL.gguf is the model that gave
the teacher's answers, LABELS.csv beside the data (DATA_labels.csv) the labels' descriptions. Reviews are simulated: rows
from the review queue get their gold label.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

import fingerpost
from fingerpost.core.text import question_id
from fingerpost.core.types import Message
from fingerpost.data.rows import Columns
from fingerpost.project import Project
from fingerpost.store.project import Store
from fingerpost.training.dataset import from_store

TASK = """\
name = "doubtful"
instructions = "You route messages of employees to the right tool."
[teacher]
model = "local"
gguf = "{gguf}"
concurrency = 1
orders = 4
prices = {{ input = 0, output = 0 }}
[split]
test = 0
[labels]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--reviews", type=int, default=200)
    parser.add_argument("--limit", type=int, default=200)
    arguments = parser.parse_args()
    frame = pl.read_csv(arguments.data)
    described = pl.read_csv(arguments.data.with_name(f"{arguments.data.stem}_labels.csv"))
    gold = {question_id((Message("user", text),)): label for text, label in frame.select("text", "gold").iter_rows()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lines = [f'"{name}" = "{description}"' for name, description in described.iter_rows()]
        (folder / "task.toml").write_text(TASK.format(gguf=arguments.gguf.resolve()) + "\n".join(lines) + "\n")
        frame.filter(pl.col("split") == "train").drop("split").write_csv(folder / "train.csv")
        project = Project(folder)
        project.import_file(folder / "train.csv", Columns(label="teacher", teacher="local"))
        with project.store() as store:
            queue = project.review(store, "simulated")
            while queue.log.answered < arguments.reviews and (card := queue.next()) is not None:
                queue.answer(card.question, gold[card.question.id])
        report(project, frame, gold, "before")
        plan = project.plan_doubtful(arguments.limit)
        with project.store() as store:
            asked = {job.question.id for job in plan.jobs.read(store)}
            before = teacher_right(store, project, gold, asked)
        project.label(plan)
        with project.store() as store:
            after = teacher_right(store, project, gold, asked)
        print(f"{len(asked)} doubtful questions: the teacher was right on {before:.3f}, with examples on {after:.3f}")
        report(project, frame, gold, "after")


def teacher_right(store: Store, project: Project, gold: dict[str, str], asked: set[str]) -> float:
    """The share of these questions on which the teacher's present label is right."""
    labelled = store.labelled(project.task.names, project.task.teacher_model, "train", "dev")
    right = [verdicts.teacher_label == gold[question.id] for question, verdicts in labelled if question.id in asked]
    return float(np.mean(right))


def report(project: Project, frame: pl.DataFrame, gold: dict[str, str], when: str) -> None:
    """Print how many training labels are right, and the accuracy of a student of them."""
    with project.store() as store:
        data = from_store(project.task, store, "consensus", project.embed_for_consensus)
    right = np.mean([example.label == gold[example.id] for example in data.train])
    trained = project.train(folder=project.folder / "models" / when, compare=False)
    test = frame.filter(pl.col("split") == "test")
    answers = fingerpost.load(trained.folder).predict(test["text"].to_list())
    accuracy = np.mean([answer.label == label for answer, label in zip(answers, test["gold"], strict=True)])
    print(f"{when}: training labels right {right:.4f}, student {accuracy:.4f} (n = {len(test)})", flush=True)


if __name__ == "__main__":
    main()
