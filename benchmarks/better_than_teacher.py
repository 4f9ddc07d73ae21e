"""Student accuracy over the number of human reviews, by method, on data with recorded teacher labels.

Usage: better_than_teacher.py --draw JSON... --plot OUT.svg
       better_than_teacher.py --data CSV [--reviews 0,50,100,200,400,800] [--seeds 5] [--methods ...] [--json OUT]
       [--plot OUT.svg] [--tune EPOCHS] [--noise perfect|uniform|silent] [--consensus-encoder NAME]

The CSV file has the columns split (train, dev or test; dev counts as train), text, gold and teacher. The gold label of a
training row is used only when the row is reviewed. Reported is the accuracy on test rows against gold, of both views
as `fingerpost train` fits them (fp32), or with --tune of the encoder fine-tuned from there. --noise replaces the teacher's
answers by synthetic ones: gold labels (perfect), gold labels with 20 % drawn uniformly (uniform), or gold labels with one
label replaced by another (silent). --consensus-encoder embeds the rows for queue and consensus; the student keeps its own.

Methods:
  random     random rows are reviewed; human labels replace the teacher's
  queue      rows from the review queue; human labels replace the teacher's
  cleanlab   rows by cleanlab's ranking of label issues; human labels replace the teacher's, other issues are dropped
  consensus  rows from the review queue; labels by consensus, as `fingerpost review` and `fingerpost train` do
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fingerpost.consensus.evidence import Evidence, compute_features, consensus_of
from fingerpost.consensus.model import Array, Rows
from fingerpost.consensus.selection import select_rows
from fingerpost.core.types import Label
from fingerpost.students.denoise import Cleaned, Views, clean, fit_views
from fingerpost.students.denoise import Rows as Examples
from fingerpost.students.encoder.finetune import LABEL_SMOOTHING, network_of, predict_logits, tune
from fingerpost.students.encoder.network import MAX_TOKENS, Encoder, repeatable
from fingerpost.students.encoder.source import DEFAULT
from fingerpost.students.lexical import Ngrams
from fingerpost.students.linear import Head
from fingerpost.task.settings import Task
from fingerpost.training.dataset import REVIEWED_WEIGHT

BATCH = 25
METHODS = ("random", "queue", "cleanlab", "consensus")


@dataclass(frozen=True, slots=True)
class Data:
    names: list[str]
    texts: list[str]
    vectors: Array
    consensus_vectors: Array
    teacher: Rows
    gold: Rows
    test_texts: list[str]
    test_vectors: Array
    test_gold: Rows
    test_teacher: Rows
    ngrams: Any
    test_ngrams: Any

    def evidence(self, reviewed: Rows) -> Evidence:
        """The teacher's answers, and the gold labels of the reviewed rows."""
        eye = np.eye(len(self.names), dtype=np.float32)
        votes = np.where((self.teacher >= 0)[:, None], eye[self.teacher], 0)
        return Evidence(self.consensus_vectors, self.texts, [votes], reviewed, eye[self.gold[reviewed]], np.array([], dtype=int),
                        self.ngrams)  # fmt: skip


def read(path: Path, noise: str | None, consensus_encoder: str | None) -> tuple[Data, Encoder]:
    with path.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = sorted({row["gold"] for row in rows})
    index = {name: i for i, name in enumerate(names)}
    base = Encoder(DEFAULT, MAX_TOKENS)
    train, test = ([row for row in rows if (row["split"] == "test") == side] for side in (False, True))

    def column(part: list[dict[str, str]], name: str) -> Rows:
        return np.array([index.get(row[name], -1) for row in part])

    gold, teacher = column(train, "gold"), column(train, "teacher")
    if noise:
        teacher, rng = gold.copy(), np.random.default_rng(0)
        if noise == "uniform":
            wrong = rng.random(len(gold)) < 0.2
            teacher[wrong] = rng.integers(0, len(names), wrong.sum())
        if noise == "silent":
            teacher[gold == gold[-1]] = gold[0]
    texts, test_texts = ([row["text"] for row in part] for part in (train, test))
    ngrams = Ngrams.fit(texts)
    vectors = base.embed(texts)
    consensus_vectors = Encoder(consensus_encoder, MAX_TOKENS).embed(texts) if consensus_encoder else vectors
    data = Data(names, texts, vectors, consensus_vectors, teacher, gold, test_texts, base.embed(test_texts),
                column(test, "gold"), column(test, "teacher"), ngrams.matrix(texts), ngrams.matrix(test_texts))  # fmt: skip
    return data, base


def reviews_of(method: str, data: Data, sizes: list[int], seed: int) -> Iterator[tuple[Rows, Evidence, Array, float]]:
    """For each size: reviewed rows, evidence, training targets (rows, labels), seconds of the slowest round."""
    rng = np.random.default_rng(seed)
    reviewed = np.array([], dtype=np.int64)
    slowest = 0.0
    ranking: Rows | None = None
    features = compute_features(data.evidence(reviewed)) if method in ("queue", "consensus", "cleanlab") else None
    error = consensus_of(data.evidence(reviewed), features).error_probability if features else None
    for size in sizes:
        while len(reviewed) < size:
            began = time.perf_counter()
            count = min(BATCH, size - len(reviewed))
            unseen = np.setdiff1d(np.arange(len(data.texts)), reviewed)
            if method == "random":
                picked = rng.permutation(unseen)[:count]
            elif method == "cleanlab":
                ranking = label_issues(data, features.student) if ranking is None else ranking
                picked = np.concatenate([ranking, rng.permutation(np.setdiff1d(unseen, ranking))])
                picked = picked[len(reviewed) :][:count]
            else:
                sample_seed = 1_000 * seed + len(reviewed)
                selected = select_rows(features.embeddings, error, unseen, reviewed, count, seed=sample_seed)
                picked = np.array([selection.row for selection in selected])
            reviewed = np.concatenate([reviewed, picked])
            if method in ("queue", "consensus"):
                error = consensus_of(data.evidence(reviewed), features).error_probability
            slowest = max(slowest, time.perf_counter() - began)
        evidence = data.evidence(reviewed)
        if method == "consensus":
            targets = consensus_of(evidence, compute_features(evidence)).probabilities
            # `train` leaves out rows without a label.
            targets[np.setdiff1d(np.flatnonzero(data.teacher < 0), reviewed)] = 0
        else:
            targets = evidence.teacher_votes[0].copy()
            targets[reviewed] = evidence.human_votes
            if method == "cleanlab":
                ranking = label_issues(data, features.student) if ranking is None else ranking
                targets[np.setdiff1d(ranking, reviewed)] = 0
        yield reviewed, evidence, targets, slowest


def label_issues(data: Data, beliefs: Array) -> Rows:
    """Rows with a label issue by cleanlab, the most likely first (Northcutt et al. 2021)."""
    from cleanlab.filter import find_label_issues

    known = np.flatnonzero(data.teacher >= 0)
    used = np.unique(data.teacher[known])  # cleanlab needs consecutive label numbers
    place = {label: i for i, label in enumerate(used)}
    labels = np.array([place[label] for label in data.teacher[known]])
    parts = beliefs[known][:, used]
    issues = find_label_issues(labels, parts / parts.sum(1, keepdims=True), return_indices_ranked_by="self_confidence")
    return np.concatenate([np.flatnonzero(data.teacher < 0), known[issues]])


def student(data: Data, targets: Array, reviewed: Rows, seed: int) -> tuple[Views, Cleaned]:
    """Both views as `fingerpost train` fits them."""
    weights = (targets.sum(1) > 0).astype(np.float32)
    weights[reviewed] = REVIEWED_WEIGHT
    rows = np.flatnonzero(weights)
    examples = Examples(data.texts, data.vectors, targets, weights, data.texts, data.ngrams).take(rows)
    cleaned = clean(examples, seed)
    return fit_views(cleaned.rows, cleaned.stack), cleaned


def tuned(base: Encoder, data: Data, head: Head, cleaned: Cleaned, epochs: int, seed: int) -> Array:
    """Test logits after fine-tuning all weights, starting from the head; shape (test rows, labels)."""
    task = Task(name="t", labels=tuple(Label(name=name) for name in data.names))
    import copy

    network = network_of(base, task, head)
    network.encoder = copy.deepcopy(network.encoder)
    smooth = (1 - LABEL_SMOOTHING) * cleaned.rows.targets + LABEL_SMOOTHING / len(data.names)
    tune(base, network, cleaned.rows.texts, smooth.astype(np.float32), cleaned.rows.weights,
         epochs=epochs, seed=seed, on_epoch=lambda *_: None)  # fmt: skip
    return predict_logits(base, network, data.test_texts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--draw", type=Path, nargs="+", help="only plot the --json files of earlier runs")
    parser.add_argument("--reviews", default="0,50,100,200,400,800")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--noise", choices=["perfect", "uniform", "silent"])
    parser.add_argument("--tune", type=int, default=0)
    parser.add_argument("--consensus-encoder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    if arguments.draw:
        runs = [json.loads(file.read_text()) for file in arguments.draw]
        plot(arguments.plot, [line for run in runs for line in run["results"]], runs[0]["teacher"])
        return
    sizes = sorted({int(size) for size in arguments.reviews.split(",")})
    with repeatable(0):
        data, base = read(arguments.data, arguments.noise, arguments.consensus_encoder)
        teacher = float((data.test_teacher == data.test_gold).mean())
        print(f"{len(data.texts):,} training rows, {len(data.test_texts):,} test rows, teacher {teacher:.4f} on test, "
              f"{(data.teacher == data.gold).mean():.4f} on training rows")  # fmt: skip
        results = []
        for method in arguments.methods.split(","):
            found: dict[int, list[tuple[float, float, float, float]]] = {size: [] for size in sizes}
            for seed in range(arguments.seeds):
                for reviewed, _, targets, slowest in reviews_of(method, data, sizes, seed):
                    began = time.perf_counter()
                    views, cleaned = student(data, targets, reviewed, seed)
                    encoder = views.head.logits(data.test_vectors)
                    if arguments.tune:
                        encoder = tuned(base, data, views.head, cleaned, arguments.tune, seed)
                    logits = views.stack.combine(encoder, views.lexical.scores(data.test_ngrams))
                    accuracy = float((logits.argmax(1) == data.test_gold).mean())
                    right = float((targets.argmax(1) == data.gold)[targets.sum(1) > 0].mean())
                    found[len(reviewed)].append((accuracy, right, slowest, time.perf_counter() - began))
            for size, runs in found.items():
                accuracy, right, slowest, seconds = np.array(runs).T
                results.append({
                    "method": method, "reviews": size, "seeds": len(runs),
                    "accuracy_mean": float(accuracy.mean()), "accuracy_sd": float(accuracy.std(ddof=len(runs) > 1)),
                    "training_labels_right": float(right.mean()),
                    "slowest_round_s": float(slowest.max()), "training_s": float(np.median(seconds)),
                })  # fmt: skip
                line = results[-1]
                print(f"{method:10} {size:5} reviews   accuracy {line['accuracy_mean']:.4f} ± {line['accuracy_sd']:.4f}   "
                      f"training label accuracy {line['training_labels_right']:.4f}   slowest round "
                      f"{line['slowest_round_s']:.2f} s, training {line['training_s']:.1f} s", flush=True)  # fmt: skip
    if arguments.json:
        run = {"data": arguments.data.name, "noise": arguments.noise, "teacher": teacher, "test_rows": len(data.test_gold),
                 "tune": arguments.tune, "results": results}  # fmt: skip
        arguments.json.write_text(json.dumps(run, indent=1) + "\n")
    if arguments.plot:
        plot(arguments.plot, results, teacher)


def plot(file: Path, results: list[dict[str, Any]], teacher: float) -> None:
    """Plot accuracy over reviews, one line per method; the dashed line is the teacher."""
    import altair as alt
    import vl_convert

    values = [
        {
            **line,
            "low": line["accuracy_mean"] - line["accuracy_sd"],
            "high": line["accuracy_mean"] + line["accuracy_sd"],
        }
        for line in results
    ]
    x = alt.X(
        "reviews:Q",
        title="reviews",
        axis=alt.Axis(values=sorted({line["reviews"] for line in results})),
        scale=alt.Scale(type="symlog", constant=50),
    )
    y = alt.Y("accuracy_mean:Q", title="accuracy on test rows", scale=alt.Scale(zero=False))
    color = alt.Color("method:N", sort=list(METHODS), title=None)
    chart = alt.layer(
        alt.Chart(alt.Data(values=values)).mark_area(opacity=0.15).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=color),
        alt.Chart(alt.Data(values=values)).mark_line(point=True).encode(x=x, y=y, color=color),
        alt.Chart(alt.Data(values=[{"teacher": teacher}])).mark_rule(strokeDash=[4, 4]).encode(y="teacher:Q"),
    ).properties(width=560, height=320)  # fmt: skip
    file.write_text(vl_convert.vegalite_to_svg(chart.to_json()))


if __name__ == "__main__":
    main()
