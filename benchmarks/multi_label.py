"""Several labels on one text: the default student beside one-vs-rest TF-IDF with linear SVMs.

Usage: multi_label.py DATA.csv [--label gold] [--seed 0]

The CSV file has the columns split (train or test), text and a label. Half of the new texts join two random texts of
their split by ", and also "; they have the labels of both. Each text is used once. Human labels (column gold) are
measured against.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import polars as pl

import fingerpost
from fingerpost.core.label_sets import join_labels
from fingerpost.evaluation.baseline import BASELINE, fit_baseline
from fingerpost.evaluation.estimators import EstimatorPredictor
from fingerpost.evaluation.report import tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--label", default="gold")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    frame = pl.read_csv(arguments.data)
    texts, labels = joined_texts(frame, "train", arguments.label, arguments.seed)
    test_texts, gold = joined_texts(frame, "test", "gold", arguments.seed)
    began = time.perf_counter()
    svm = fit_baseline(texts, [join_labels(found) for found in labels], multi=True)
    print(f"{BASELINE}, one for each label: trained in {time.perf_counter() - began:.0f} s")
    began = time.perf_counter()
    student = fingerpost.train(texts, labels)
    print(f"student: trained in {time.perf_counter() - began:.0f} s, {student.manifest.stack}")
    report = fingerpost.evaluate([EstimatorPredictor(svm, BASELINE, multi=True), student], test_texts, gold)
    tables.show(report)


def joined_texts(frame: pl.DataFrame, split: str, column: str, seed: int) -> tuple[list[str], list[list[str]]]:
    """Texts of a split, half of them joined from two, and the labels of each."""
    rows = frame.filter((pl.col("split") == split) & pl.col(column).is_not_null()).select("text", column).rows()
    random.Random(seed).shuffle(rows)
    texts: list[str] = []
    labels: list[list[str]] = []
    while len(rows) > 1:
        parts = [rows.pop() for _ in range(1 + len(texts) % 2)]
        texts.append(", and also ".join(text for text, _ in parts))
        labels.append(sorted({label for _, label in parts}))
    return texts, labels


if __name__ == "__main__":
    main()
