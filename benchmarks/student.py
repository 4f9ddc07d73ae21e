"""A student's accuracy and speed by tier, beside scikit-learn's TF-IDF with a linear SVM and the encoder alone.

Usage: student.py DATA.csv [--label gold] [--gold gold] [--language xx] [--epochs N] [--json OUT]

The CSV file has the columns split (train, dev or test; dev counts as train), text, and the named columns of labels. The
student learns from --label and is measured on test rows against --gold. --language selects rows by a column `language`.
All rows of the table are measured in the same run, predictions one at a time on one thread, interleaved text by text.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import fingerpost
from fingerpost.evaluation.baseline import BASELINE, fit_baseline
from fingerpost.evaluation.estimators import EstimatorPredictor
from fingerpost.evaluation.metrics import proportion
from fingerpost.students.encoder.network import Encoder
from fingerpost.students.encoder.predict import EncoderStudent
from fingerpost.students.encoder.source import DEFAULT

TIMED = 300  # texts whose latency is measured
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--label", default="gold")
    parser.add_argument("--gold", default="gold")
    parser.add_argument("--language")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    frame = pl.read_csv(arguments.data)
    if arguments.language:
        frame = frame.filter(pl.col("language") == arguments.language)
    known = frame[arguments.gold].unique().to_list()
    train = frame.filter((pl.col("split") != "test") & pl.col(arguments.label).is_in(known))
    test = frame.filter(pl.col("split") == "test")
    texts, gold = test["text"].to_list(), np.array(test[arguments.gold].to_list())

    began = time.perf_counter()
    Encoder(DEFAULT, 128).embed(train["text"].to_list())
    embedding_s = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "student"
        began = time.perf_counter()
        fingerpost.train(train["text"], train[arguments.label], folder=folder, epochs=arguments.epochs)
        training_s = time.perf_counter() - began
        began = time.perf_counter()
        baseline = EstimatorPredictor(fit_baseline(train["text"].to_list(), train[arguments.label].to_list()), BASELINE)
        baseline_s = time.perf_counter() - began
        whole: Any = fingerpost.load(folder, tiers="all")
        models: dict[str, Any] = {BASELINE: baseline, "student, all views": whole}
        if whole.manifest.fast:
            models |= {
                "student, auto": fingerpost.load(folder, tiers="auto"),
                "student, fast tier": fingerpost.load(folder, tiers="fast"),
            }
        if whole.manifest.stack.encoder:
            models["its encoder alone"] = EncoderAlone(whole)
        rows = [measure(name, model, texts, gold) for name, model in models.items()]
        times = interleaved(models, texts[:TIMED])
        for row in rows:
            row |= {
                "p50_ms": 1e3 * float(np.median(times[row["model"]])),
                "mean_ms": 1e3 * float(np.mean(times[row["model"]])),
            }
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{arguments.data.name} {arguments.language or ''}: {len(train):,} training rows with labels from "
          f"'{arguments.label}', {len(test):,} test rows; {whole.manifest.stack}")  # fmt: skip
    print(f"training {training_s:.1f} s, {training_s / embedding_s:.2f} times one pass of embedding in PyTorch "
          f"({embedding_s:.1f} s); {BASELINE} {baseline_s:.1f} s; folder {size:.1f} MB")  # fmt: skip
    print(f"{'model':24}{'accuracy':24}{'p50 ms':>8}{'mean ms':>9}{'rows/s':>9}{'fast':>7}")
    for row in rows:
        accuracy = f"{row['accuracy']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
        print(
            f"{row['model']:24}{accuracy:24}{row['p50_ms']:8.3f}{row['mean_ms']:9.3f}{row['per_s']:9,.0f}{row['fast']:7.1%}"
        )
    if arguments.json:
        result = {"data": arguments.data.name, "language": arguments.language, "label": arguments.label,
                  "training_s": training_s, "embedding_s": embedding_s, "folder_mb": size, "rows": rows}  # fmt: skip
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


class EncoderAlone:
    """The encoder view of a student, without the lexical view."""

    def __init__(self, student: EncoderStudent) -> None:
        self.labels, self._student = student.labels, student

    def predict(self, texts: list[str]) -> list[Any]:
        scores = np.concatenate([self._student.encoder_scores(texts[i : i + 16]) for i in range(0, len(texts), 16)])
        return [fingerpost.Prediction(self.labels[number], 0.0) for number in scores.argmax(1)]


def measure(name: str, model: Any, texts: list[str], gold: np.ndarray) -> dict[str, Any]:
    ordered = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # `EncoderAlone` does not sort by length
    began = time.perf_counter()
    answers = model.predict([texts[i] for i in ordered])
    seconds = time.perf_counter() - began
    right = proportion(np.array([answer.label for answer in answers]) == gold[ordered])
    fast = float(np.mean([answer.tier == "fast" for answer in answers]))
    return {"model": name, "accuracy": right.value, "low": right.low, "high": right.high, "per_s": len(texts) / seconds,
            "fast": fast}  # fmt: skip


def interleaved(models: dict[str, Any], texts: list[str]) -> dict[str, list[float]]:
    """Seconds of each prediction by model: the median of ROUNDS for each text."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for text in texts:
        for name, model in models.items():
            rounds = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                model.predict([text])
                rounds.append(time.perf_counter() - began)
            times[name].append(float(np.median(rounds)))
    return times


if __name__ == "__main__":
    main()
