"""Accuracy of students of a noisy teacher, with and without denoised labels, on training rows only.

Usage: noise.py DATA.csv [--labels teacher] [--tune EPOCHS] [--json OUT]

The CSV file has the columns split, text, gold and teacher. All figures are out of fold, on the rows that are not test:
agreement with the labels trained on, and accuracy against `gold`. Gold labels are used for neither training nor model
selection, except with `--labels gold`. With `--tune`, 20 % of the rows are held out and all weights are fine-tuned.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.text import hash_fraction
from fingerpost.core.types import Label
from fingerpost.students.denoise import Rows, clean, fit_views
from fingerpost.students.encoder.finetune import LABEL_SMOOTHING, network_of, predict_logits, tune
from fingerpost.students.encoder.network import MAX_TOKENS, Encoder, repeatable
from fingerpost.students.encoder.source import DEFAULT
from fingerpost.students.linear import neighbour_votes, out_of_fold
from fingerpost.task.settings import Task

STRENGTHS = (1.0, 3.0, 10.0, 30.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--labels", default="teacher", choices=["teacher", "gold"])
    parser.add_argument("--tune", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with arguments.data.open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] != "test"]
    names = sorted({row["gold"] for row in rows})
    index = {name: i for i, name in enumerate(names)}
    rows = [row for row in rows if row[arguments.labels] in index]
    labels = np.array([index[row[arguments.labels]] for row in rows])
    gold = np.array([index[row["gold"]] for row in rows])
    texts = [row["text"] for row in rows]
    results: list[dict[str, object]] = []

    def report(method: str, answers: NDArray[np.int64], part: NDArray[np.bool_] | slice = slice(None)) -> None:
        agreement, accuracy = (answers == labels[part]).mean(), (answers == gold[part]).mean()
        results.append({"method": method, "n": len(answers), "agreement": agreement, "accuracy": accuracy})
        print(f"{method:34} n {len(answers):6,}   agreement {agreement:.4f}   accuracy {accuracy:.4f}", flush=True)

    with repeatable(0):
        base = Encoder(DEFAULT, MAX_TOKENS)
        targets = np.eye(len(names), dtype=np.float32)[labels]
        whole = Rows(texts, base.embed(texts), targets, np.ones(len(rows), dtype=np.float32), texts)
        report(f"labels ({arguments.labels})", labels)
        report("vote of the nearest neighbours", neighbour_votes(whole.vectors, targets, 0).argmax(1))
        for strength in STRENGTHS:
            held_out = out_of_fold(whole.vectors, targets, whole.weights, texts, strength)
            report(f"linear head, C = {strength:g}", held_out.argmax(1))
        cleaned = clean(whole, 0)
        for threshold in (0.1, 0.2, 0.5):
            chosen = cleaned.plausibility < threshold
            if chosen.any():
                report(f"labels with plausibility below {threshold}", labels[chosen], chosen)
        denoised = cleaned.rows
        for strength in STRENGTHS:
            held_out = out_of_fold(denoised.vectors, denoised.targets, denoised.weights, texts, strength)
            report(f"linear head, denoised labels, C = {strength:g}", held_out.argmax(1))
        if arguments.tune:
            dev = np.array([hash_fraction(text) < 0.2 for text in texts])
            part = whole.take(np.flatnonzero(~dev))
            held = [text for text, chosen in zip(texts, dev, strict=True) if chosen]
            cleaned = clean(part, 0)
            head = fit_views(cleaned.rows, cleaned.stack).head
            report("held out: linear head, denoised", head.logits(whole.vectors[dev]).argmax(1), dev)
            task = Task(name="t", labels=tuple(Label(name=name) for name in names))
            network = network_of(base, task, head)

            def on_epoch(number: int, _loss: float, seconds: float) -> None:
                answers = predict_logits(base, network, held).argmax(1)
                report(f"held out: epoch {number} of {arguments.tune} ({seconds:.0f} s)", answers, dev)

            smooth = (1 - LABEL_SMOOTHING) * cleaned.rows.targets + LABEL_SMOOTHING / len(names)
            tune(base, network, part.texts, smooth.astype(np.float32), cleaned.rows.weights,
                 epochs=arguments.tune, seed=0, on_epoch=on_epoch)  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
