"""The default student in several languages, beside scikit-learn's TF-IDF with a linear SVM.

Usage: languages.py DATA.csv [--languages en,de] [--from en] [--json OUT]

The CSV file has the columns split (train or test), language, text and label. Each language is learnt and tested alone.
With --from, one student is trained on that language with the multilingual encoder and tested on the others.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

import fingerpost
from fingerpost.evaluation.baseline import fit_baseline
from fingerpost.students.encoder.source import AUTO, MULTILINGUAL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--languages")
    parser.add_argument("--from", dest="origin")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    frame = pl.read_csv(arguments.data)
    languages = arguments.languages.split(",") if arguments.languages else sorted(frame["language"].unique())
    rows: list[dict[str, Any]] = []
    if arguments.origin:
        student, seconds, size = trained(part(frame, arguments.origin, "train"), MULTILINGUAL)
        print(f"trained on {arguments.origin}: {seconds:.0f} s, {size:.0f} MB, {student.manifest.stack}")
        for language in languages:
            test = part(frame, language, "test")
            rows.append({"language": language, "n": len(test), "student": accuracy(student, test)})
    else:
        for language in languages:
            train, test = part(frame, language, "train"), part(frame, language, "test")
            student, seconds, size = trained(train, AUTO)
            svm = fit_baseline(train["text"].to_list(), train["label"].to_list())
            right = float((svm.predict(test["text"].to_list()) == test["label"].to_numpy()).mean())
            rows.append({"language": language, "n": len(test), "student": accuracy(student, test), "svm": right,
                         "encoder": student.manifest.encoder["name"], "training_s": seconds, "mb": size})  # fmt: skip
            print(rows[-1], flush=True)
    for row in rows:
        print(
            "  ".join(
                f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
        )
    other = [row for row in rows if row["language"] != arguments.origin]
    for name in ("student", "svm"):
        if name in other[0]:
            print(f"mean {name}: {sum(row[name] for row in other) / len(other):.4f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def part(frame: pl.DataFrame, language: str, split: str) -> pl.DataFrame:
    return frame.filter((pl.col("language") == language) & (pl.col("split") == split))


def trained(train: pl.DataFrame, encoder: str) -> tuple[Any, float, float]:
    """A student, the seconds that its training took, and the size of its folder in MB."""
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        student = fingerpost.train(train["text"], train["label"], folder=Path(scratch) / "student", encoder=encoder)
        size = sum(file.stat().st_size for file in (Path(scratch) / "student").iterdir()) / 1e6
        return student, time.perf_counter() - began, size


def accuracy(student: Any, test: pl.DataFrame) -> float:
    answers = student.predict(test["text"].to_list())
    return sum(answer.label == label for answer, label in zip(answers, test["label"], strict=True)) / len(test)


if __name__ == "__main__":
    main()
