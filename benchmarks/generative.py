"""The generative student beside its untuned base model and beside the encoder student, on labels in a CSV file.

    python benchmarks/generative.py BASE ROWS.csv LABELS.csv [--rows 400] [--vary-labels] [--codes] [--new-label NAME]

ROWS.csv has the columns split, text and the labels (`gold`, or another with --column); LABELS.csv label and description.
Every model answers the same test rows. The encoder student is trained in the same run on the same rows.
With --codes the tuned student is also asked with integer codes in place of the names; with --new-label it is trained without this
label, and asked with it in the prompt. Both need --vary-labels to work well.
"""

from __future__ import annotations

import argparse
import csv
import random
import resource
import time
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from fingerpost import students
from fingerpost.core.text import question_id
from fingerpost.core.types import Example, Label, Message, Progress
from fingerpost.students import encoder
from fingerpost.students.lora.train import fit
from fingerpost.students.lora.tuning import LoraStep, Recipe
from fingerpost.task.settings import Task
from fingerpost.training.dataset import held_out

INSTRUCTIONS = "You route the messages of employees to an action."


def rows_of(path: Path, split: str, column: str) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [(row["text"], row[column]) for row in csv.DictReader(stream) if row["split"] == split]


def example(text: str, label: str) -> Example:
    messages = (Message("user", text),)
    return Example(question_id(messages), messages, {label: 1.0})


def show(progress: Progress) -> None:
    step = progress.data
    if progress.message:
        print(f"    {progress.message}", flush=True)
    if isinstance(step, LoraStep) and (step.dev_loss is not None or step.step == 3):
        dev = "" if step.dev_loss is None else f", dev loss {step.dev_loss:.3f}, dev accuracy {step.dev_accuracy:.3f}"
        print(f"    step {step.step}/{step.total}: loss {step.train_loss:.3f}{dev}, {step.seconds:.1f} s", flush=True)


def measure(name: str, student: Any, test: list[tuple[str, str]], seconds: float, gold: list[str]) -> float:
    texts = [text for text, _ in test]
    began = time.process_time()
    answers = student.predict(texts)
    cpu = (time.process_time() - began) / len(texts)
    single = []
    for text in texts[:50]:
        at = time.perf_counter()
        student.predict(text)
        single.append(time.perf_counter() - at)
    right = np.array([answer.label == label for answer, label in zip(answers, gold, strict=True)])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{name}: accuracy {right.mean():.3f}, trained in {seconds:.0f} s, one message {1000 * np.median(single):.1f} ms, "
        f"in batches {1000 * cpu:.1f} ms of processor time each, peak memory of the process so far {memory:.1f} GB",
        flush=True,
    )
    return float(right.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("rows_file", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--test-rows", type=int, default=10_000)
    parser.add_argument("--column", default="gold")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate-multiplier", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vary-labels", action="store_true")
    parser.add_argument("--codes", action="store_true")
    parser.add_argument("--new-label")
    parser.add_argument("--no-untuned", action="store_true")
    parser.add_argument("--no-encoder", action="store_true")
    options = parser.parse_args()
    with options.labels.open(encoding="utf-8", newline="") as stream:
        described = [Label(name=row["label"], description=row["description"]) for row in csv.DictReader(stream)]
    known = tuple(label for label in described if label.name != options.new_label)
    task = Task(name="router", instructions=INSTRUCTIONS, labels=known)
    given = rows_of(options.rows_file, "train", options.column)
    chosen = random.Random(options.seed).sample(given, options.rows)
    examples = [example(text, label) for text, label in chosen if label != options.new_label]
    train, dev = held_out(examples, [])
    everything = rows_of(options.rows_file, "test", options.column)[: options.test_rows]
    test = [(text, label) for text, label in everything if label != options.new_label]
    gold = [label for _, label in test]
    print(f"{len(train)} training rows, {len(dev)} dev rows, {len(test)} test rows, {len(known)} labels", flush=True)
    folder = Path(mkdtemp())
    recipe = Recipe(options.epochs, batch=options.batch, rate_multiplier=options.rate_multiplier, seed=options.seed)
    if not options.no_encoder:
        at = time.perf_counter()
        encoder.fit(train, dev, task, folder / "encoder", seed=options.seed)
        measure("encoder student", students.load(folder / "encoder"), test, time.perf_counter() - at, gold)
    untuned = None
    if not options.no_untuned:
        fit(train, dev, task, folder / "untuned", base=options.base, recipe=replace(recipe, epochs=0))
        untuned = measure("untuned base model, scored", students.load(folder / "untuned"), test, 0, gold)
    at = time.perf_counter()
    fit(
        train, dev, task, folder / "lora", base=options.base, recipe=recipe, vary_labels=options.vary_labels,
        on_progress=show,
    )  # fmt: skip
    student = students.load(folder / "lora")
    tuned = measure("generative student", student, test, time.perf_counter() - at, gold)
    if untuned is not None:
        print(f"tuned minus untuned: {100 * (tuned - untuned):.1f} points")
    if options.codes:
        codes = random.Random(options.seed).sample(range(1, 100), len(known))
        asked = student.with_prompt(student.prompt.with_codes(codes))
        coded = measure("generative student, asked with codes", asked, test, 0, gold)
        print(f"codes minus names: {100 * (coded - tuned):.1f} points")
    if options.new_label:
        label = next(label for label in described if label.name == options.new_label)
        asked = student.with_labels([label])
        new = [(text, name) for text, name in everything if name == options.new_label]
        measure(f"questions of the new label {label.name} (n = {len(new)})", asked, new, 0, [name for _, name in new])
        measure("all other questions, with the new label in the prompt", asked, test, 0, gold)


if __name__ == "__main__":
    main()
