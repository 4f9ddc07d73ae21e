"""Accuracy on real questions of students trained on generated, naively generated and real questions.

Usage: generation.py DATA.csv LABELS.csv --gguf MODEL.gguf --folder FOLDER [--count 400] [--json OUT]

DATA has the columns split, text, gold and teacher (recorded answers of the same model); LABELS has label and
description. The writer sees none of DATA's questions. The arms have equally many trusted questions, all labelled by the
same teacher:

ours        `fingerpost generate`; border cases are not trained on
naive       "give me 25 common questions" with the list of labels, repeated
naive-each  the same for one label at a time
real        random questions of DATA's training rows with their recorded answers; the mean of three draws

Each arm is a project in FOLDER; existing projects are reused. On two cores it takes about an hour. The students are
trained by `fingerpost train`. Accuracy is measured on DATA's test rows against gold, in scope and on `other`
separately. Then the learning curve: five random draws of 50 to 400 questions of each arm, and a linear head fitted
as `train` does it, without fine-tuning.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openai
from numpy.typing import NDArray
from unique import unique

from fingerpost import load
from fingerpost.core.text import normalise
from fingerpost.evaluation.metrics import exact_mcnemar, proportion
from fingerpost.llm import gguf
from fingerpost.project import Project
from fingerpost.students.denoise import clean, fit_views
from fingerpost.students.encoder.network import MAX_TOKENS, Encoder, repeatable
from fingerpost.students.encoder.train import rows_of
from fingerpost.training.dataset import from_store

ABOUT = "an assistant about work"
ASKED, ATTEMPTS, TEMPERATURE = 25, 200, 1.0
DRAWS = 3
CURVE_DRAWS = 5
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"questions": {"type": "array", "items": {"type": "string"}, "maxItems": ASKED}},
    "required": ["questions"],
    "additionalProperties": False,
}


def naive(url: str, labels: dict[str, str], count: int, one_label: bool) -> list[str]:
    """`count` different questions by the plain prompt, repeated up to ATTEMPTS times; `one_label`: one label at a time."""
    client = openai.OpenAI(base_url=url, api_key="none", timeout=600)
    listed = "\n".join(f"- {text}" for text in labels.values())
    found: dict[str, str] = {}
    for attempt in range(ATTEMPTS):
        wanted = list(labels.values())[attempt % len(labels)]
        what = f"that mean: {wanted}." if one_label else f"about these:\n{listed}\n"
        request = f"Give me {ASKED} common questions that users ask {ABOUT}, {what}"
        reply = client.chat.completions.create(
            model="teacher",
            messages=[{"role": "user", "content": f'{request} Reply with JSON only, {{"questions": [...]}}.'}],
            temperature=TEMPERATURE,
            max_tokens=1000,
            response_format={"type": "json_schema", "json_schema": {"name": "questions", "schema": SCHEMA}},
        )
        try:
            questions = json.loads(reply.choices[0].message.content or "")["questions"]
        except (ValueError, KeyError):
            continue
        found |= {normalise(text): text for text in questions if normalise(text) not in found}
        print(f"  naive: {attempt + 1} requests, {len(found)} different questions", flush=True)
        if len(found) >= count:
            break
    return list(found.values())[:count]


def project(folder: Path, labels: dict[str, str], model: Path) -> Path:
    """Create a project folder without a test split; the model is its teacher."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        'name = "clinc-work"',
        'instructions = "Route what an employee says to an assistant."',
        'fallback = "other"',
        "[labels]",
        *(f"{name} = {json.dumps(text)}" for name, text in labels.items()),
        "[teacher]",
        f'model = "{model.stem}"',
        f"gguf = {json.dumps(str(model.resolve()))}",
        "[split]",
        "test = 0.0",
        "[generate]",
        f'about = "{ABOUT}"',
    ]
    (folder / "task.toml").write_text("\n".join(lines) + "\n")
    return folder


def fingerpost(*words: object) -> None:
    print("$ fingerpost", *words, flush=True)
    subprocess.run([sys.executable, "-m", "fingerpost", *map(str, words)], check=True)


def at_counts(where: Path, counts: list[int], test: list[dict[str, str]]) -> dict[int, list[float]]:
    """Accuracy of a linear head for each number of questions, one for each draw."""
    opened = Project(where)
    task, found = opened.task, {}
    with opened.store() as store, repeatable(0):
        data = from_store(task, store, "consensus", opened.embed)
        base = Encoder(task.student.encoder, MAX_TOKENS)
        examples = data.train + data.dev
        rows = rows_of(base, examples, task, task.student.history)
        vectors = base.embed([row["text"] for row in test])
        gold = np.array([task.names.index(row["gold"]) for row in test])
        for count in counts:
            accuracies = []
            for draw in range(CURVE_DRAWS):
                part = rows.take(np.random.default_rng(draw).permutation(len(examples))[:count])
                cleaned = clean(part, 0)
                answers = fit_views(cleaned.rows, cleaned.stack).head.logits(vectors).argmax(1)
                accuracies.append(float((answers == gold).mean()))
            found[count] = accuracies
    return found


def make_arms(given: argparse.Namespace, labels: dict[str, str], train: list[dict[str, str]]) -> dict[str, Path]:
    """The project folder of each arm, with questions, labels and a trained student."""
    arms: dict[str, Path] = {}

    def arm(name: str) -> tuple[Path, bool]:
        arms[name] = project(given.folder / name, labels, given.gguf)
        return arms[name], not (arms[name] / "models" / "student").exists()

    where, new = arm("ours")
    if new:
        fingerpost("generate", "-C", where, "--count", given.count)
    for name, one_label in (("naive", False), ("naive-each", True)):
        where, new = arm(name)
        file = where / "questions.txt"
        if not file.exists():
            with gguf.serving(given.gguf) as url:
                file.write_text("\n".join(naive(url, labels, given.count, one_label)) + "\n")
        if new:
            fingerpost("import", file, "-C", where, "--source", "synthetic")
            fingerpost("label", "-C", where)
    for draw in range(DRAWS):
        where, new = arm(f"real-{draw}")
        if new:
            chosen = random.Random(draw).sample(train, given.count)
            with (where / "questions.csv").open("w", newline="") as stream:
                writer = csv.DictWriter(stream, ["text", "label"])
                writer.writeheader()
                writer.writerows({"text": row["text"], "label": row["teacher"]} for row in chosen)
            fingerpost("import", where / "questions.csv", "-C", where, "--teacher", given.gguf.stem)
    for where in arms.values():
        if not (where / "models" / "student").exists():
            fingerpost("train", "-C", where)
    return arms


def measure(arms: dict[str, Path], test: list[dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Accuracy of the teacher and of each arm's student; the draws of real questions are averaged."""
    right: dict[str, NDArray[np.floating | np.bool_]] = {
        "teacher": np.array([row["teacher"] == row["gold"] for row in test])
    }
    results: dict[str, dict[str, Any]] = {}
    for name, where in arms.items():
        answers = load(where / "models" / "student").predict([row["text"] for row in test])
        right[name] = np.array([answer.label == row["gold"] for answer, row in zip(answers, test, strict=True)])
        opened = Project(where)
        with opened.store() as store:
            data = from_store(opened.task, store, "consensus", opened.embed)
        results[name] = {"learnt": len(data.train) + len(data.dev), **unique(opened)}
    right["real"] = np.mean([right.pop(f"real-{draw}") for draw in range(DRAWS)], axis=0)
    results["real"] = results["real-0"]
    inside = np.array([row["gold"] != "other" for row in test])
    for name, found in right.items():
        mine = results.setdefault(name, {})
        mine |= {"accuracy": found.mean(), "inside": found[inside].mean(), "other": found[~inside].mean()}
        if name != "real":
            interval = proportion(found)
            mine["interval"] = [interval.low, interval.high]
        if name not in ("real", "teacher", "ours"):
            mine["mcnemar"] = exact_mcnemar(right["ours"], found)
    return results


def show(name: str, mine: dict[str, Any]) -> None:
    span = "[{:.3f}, {:.3f}]".format(*mine["interval"]) if "interval" in mine else f"(mean of {DRAWS} draws)"
    line = (
        f"{name:11} accuracy {mine['accuracy']:.3f} {span:18} in scope {mine['inside']:.3f}, other {mine['other']:.3f}"
    )
    if "questions" in mine:
        line += f"; {mine['questions']} questions, {mine['learnt']} trained on"
        line += f", unique {mine['by_letters']:.3f} by letters, {mine['by_meaning']:.3f} by meaning"
    print(line)
    if "mcnemar" in mine:
        only_ours, only_theirs, p = mine["mcnemar"]
        print(f"            only ours right on {only_ours} rows, only {name} on {only_theirs}: p = {p:.2g}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with given.labels.open(encoding="utf-8") as stream:
        labels = {row["label"]: row["description"] for row in csv.DictReader(stream)}
    with given.data.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    test = [row for row in rows if row["split"] == "test"]
    arms = make_arms(given, labels, [row for row in rows if row["split"] == "train"])
    results = measure(arms, test)
    for name in ("teacher", "ours", "naive", "naive-each", "real"):
        show(name, results[name])
    counts = [count for count in (50, 100, 200, 400) if count <= given.count]
    print(f"linear head, mean of {CURVE_DRAWS} draws of n questions   " + "   ".join(f"{n:5}" for n in counts))
    for name, where in arms.items():
        curve = at_counts(where, counts, test)
        results.setdefault(name, {})["at_counts"] = curve
        print(f"{name:43} " + "   ".join(f"{np.mean(curve[n]):.3f}" for n in counts), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
