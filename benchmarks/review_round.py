"""Time of a review round at scale: consensus after 25 answers, then a new queue. Also the peak memory.

Usage: review_round.py [--rows 10000] [--labels 77] [--reviews 200] [--rounds 3] [--json OUT]

The data are synthetic: vectors of 384 dimensions around random centres, and a teacher that is wrong on 25 % of the rows.
Time and memory do not depend on the meaning of the vectors. The features (whitened embeddings and the student's held-out
probabilities) are computed once per session.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

from fingerpost.consensus.evidence import Evidence, compute_features, consensus_of
from fingerpost.consensus.selection import select_rows

WIDTH, BATCH = 384, 25


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--labels", type=int, default=77)
    parser.add_argument("--reviews", type=int, default=200, help="reviews before the first round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, labels = arguments.rows, arguments.labels
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(labels, WIDTH)).astype(np.float32)
    gold = rng.integers(0, labels, rows)
    vectors = rng.standard_normal((rows, WIDTH), dtype=np.float32)
    for start in range(0, rows, 65_536):
        block = vectors[start : start + 65_536]
        block += centres[gold[start : start + 65_536]]
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    teacher = np.where(rng.random(rows) < 0.25, (gold + 1) % labels, gold)
    votes = np.zeros((rows, labels), dtype=np.float32)
    votes[np.arange(rows), teacher] = 1
    groups = [str(i) for i in range(rows)]
    eye = np.eye(labels, dtype=np.float32)
    reviewed = rng.permutation(rows)[: arguments.reviews]

    def evidence() -> Evidence:
        return Evidence(vectors, groups, [votes], reviewed, eye[gold[reviewed]], np.array([], dtype=np.int64))

    began = time.perf_counter()
    features = compute_features(evidence())
    features_s = time.perf_counter() - began
    seconds = []
    for number in range(arguments.rounds):
        began = time.perf_counter()
        error = consensus_of(evidence(), features).error_probability
        open_rows = np.setdiff1d(np.arange(rows), reviewed)
        selected = select_rows(features.embeddings, error, open_rows, reviewed, BATCH, seed=number)
        seconds.append(time.perf_counter() - began)
        reviewed = np.append(reviewed, [selection.row for selection in selected])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    result = {"rows": rows, "labels": labels, "reviews": len(reviewed), "features_s": features_s,
              "round_s": float(np.median(seconds)), "slowest_round_s": max(seconds), "peak_gb": peak}  # fmt: skip
    print(f"{rows:,} questions, {labels} labels, {len(reviewed)} reviews: features {features_s:.1f} s, once per session; "
          f"round {np.median(seconds):.2f} s (median), {max(seconds):.2f} s (slowest); peak memory {peak:.1f} GB")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
