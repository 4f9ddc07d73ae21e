"""A student that knows the order of the labels beside one that does not, on the same texts: accuracy, quadratic weighted kappa, mean absolute error.

Usage: ordinal.py FILE.txt [FILE.txt ...] [--rows 400 2000] [--seeds 3]

Each file has lines of a number, a mean rating from -4 to 4, and a text, separated by tabs. Such are the four files
*_GroundTruth.txt in additional_resources/hutto_ICWSM_2014.tar.gz of the source distribution of vaderSentiment 3.3.2 (MIT): texts
that twenty people each have rated (Hutto and Gilbert 2014). Ratings become five levels, with bounds at -2, -0.7, 0.7 and 2. A
thousand texts are for testing.
"""

from __future__ import annotations

import argparse
import html
from pathlib import Path

import numpy as np

import fingerpost
from fingerpost.core.text import question_id
from fingerpost.core.types import Message
from fingerpost.evaluation.evaluate import Candidate, evaluate
from fingerpost.evaluation.formatting import with_interval
from fingerpost.evaluation.rows import TestRow

LEVELS = ["very negative", "negative", "neutral", "positive", "very positive"]
BOUNDS = [-2, -0.7, 0.7, 2]
TESTED = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, nargs="+", default=[400, 2_000])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    print("| texts | rows | seed | student | accuracy | quadratic kappa | mean absolute error | calibration error |")
    print("|---|---|---|---|---|---|---|---|")
    for file in arguments.files:
        for count in arguments.rows:
            found = [compare(file, count, seed) for seed in range(arguments.seeds)]
            for name in found[0]:
                means = np.mean([figures[name] for figures in found], axis=0)
                print(
                    f"| {file.stem} | {count} | mean | {name} | {' | '.join(f'{value:.3f}' for value in means)} |",
                    flush=True,
                )


def compare(file: Path, count: int, seed: int) -> dict[str, list[float]]:
    """Print one row for each of the two students; returns their figures."""
    lines = [line.split("\t") for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    rows = [
        (html.unescape(parts[2]).strip(), float(parts[1])) for parts in lines if len(parts) == 3 and parts[2].strip()
    ]
    rows = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))][: TESTED + count]
    texts = [text for text, _ in rows]
    levels = [LEVELS[i] for i in np.digitize([rating for _, rating in rows], BOUNDS)]
    test = [
        TestRow(question_id(messages := (Message("user", text),)), messages, "user", level)
        for text, level in zip(texts[:TESTED], levels, strict=False)
    ]
    students = [
        fingerpost.train(texts[TESTED:], levels[TESTED:], levels=order, seed=seed, epochs=0, name=name)
        for name, order in (("nominal", []), ("ordinal", LEVELS))
    ]
    report = evaluate(
        file.stem, LEVELS, test, [Candidate("student", one, timed=False) for one in students], ordinal=True
    )
    figures = {}
    for found in report.models:
        measured = (found.kappa, found.mean_absolute_error, found.calibration_error)
        values = [interval.value for interval in measured if interval is not None]
        figures[found.name] = [found.accuracy or 0.0, *values]
        accuracy = with_interval(found.accuracy, found.accuracy_low, found.accuracy_high)
        cells = " | ".join(f"{value:.3f}" for value in values)
        print(f"| {file.stem} | {count} | {seed} | {found.name} | {accuracy} | {cells} |", flush=True)
    return figures


if __name__ == "__main__":
    main()
