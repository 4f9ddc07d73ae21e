"""Latency and accuracy of int8 models, and whether a prediction depends on its batch.

Usage: precision.py QUESTIONS.csv TASK.toml

Compares three forms of the task's base model (label descriptions as head): fp32; int8 by onnxruntime's dynamic
quantiser, with one scale for all activations of a batch; int8 with one scale per token, as `train` writes it. Prints the
latency alone and in batches of 8, the number of labels that differ from fp32, and the changes when a text is predicted in a
batch instead of alone: number of labels, and the largest change of the most probable label's probability.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

from fingerpost.students.encoder.export import encoder_graphs, write_graph
from fingerpost.students.encoder.finetune import network_of
from fingerpost.students.encoder.network import MAX_TOKENS, SCALE, Encoder, repeatable
from fingerpost.students.encoder.predict import limited, open_session, softmax
from fingerpost.students.linear import Head
from fingerpost.task.loader import load_task

BATCH = 8


def predict(session: InferenceSession, tokenizer: Tokenizer, texts: list[str]) -> NDArray[np.float64]:
    encoded = tokenizer.encode_batch_fast(texts)
    feed = {"input_ids": np.array([encoding.ids for encoding in encoded], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in encoded], dtype=np.int64)}  # fmt: skip
    return softmax(session.run(["logits"], feed)[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("questions", type=Path)
    parser.add_argument("task", type=Path)
    arguments = parser.parse_args()
    task = load_task(arguments.task)
    with arguments.questions.open(encoding="utf-8") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    with tempfile.TemporaryDirectory() as scratch, repeatable(0):
        folder = Path(scratch)
        base = Encoder(task.student.encoder, MAX_TOKENS)
        described = base.embed([label.description for label in task.labels])
        network = network_of(base, task, Head(SCALE * described.T, np.zeros(len(task.labels), dtype=np.float32)))
        files = {
            "fp32": folder / "fp32.onnx",
            "int8 by batch": folder / "batch.onnx",
            "int8 by token": folder / "token.onnx",
        }
        graphs = encoder_graphs(base, network)
        write_graph(graphs.fp32, network, files["fp32"])
        write_graph(graphs.int8, network, files["int8 by token"])
        quantize_dynamic(files["fp32"], files["int8 by batch"], weight_type=QuantType.QInt8, per_channel=True)
        base.save_tokenizer(folder / "tokenizer.json")
        tokenizer = limited(Tokenizer.from_file(str(folder / "tokenizer.json")), MAX_TOKENS)
        exact: NDArray[np.float64] | None = None
        order = np.argsort([len(text) for text in texts], kind="stable")
        for name, file in files.items():
            session = open_session(file, threads=1)

            began = time.perf_counter()
            alone = np.concatenate([predict(session, tokenizer, [text]) for text in texts])
            one = (time.perf_counter() - began) / len(texts)
            began = time.perf_counter()
            parts = [
                predict(session, tokenizer, [texts[i] for i in order[k : k + BATCH]])
                for k in range(0, len(texts), BATCH)
            ]
            many = (time.perf_counter() - began) / len(texts)
            together = np.concatenate(parts)[np.argsort(order)]
            exact = alone if exact is None else exact
            print(
                f"{name:14} {file.stat().st_size / 1e6:5.1f} MB   alone {1000 * one:.2f} ms, in batches of {BATCH} {1000 * many:.2f} ms per text"
                f"   labels other than fp32: {(alone.argmax(1) != exact.argmax(1)).sum()} of {len(texts)}"
                f"   in a batch: {(alone.argmax(1) != together.argmax(1)).sum()} labels change, probabilities by up to "
                f"{np.abs(alone.max(1) - together.max(1)).max():.4f}"
            )


if __name__ == "__main__":
    main()
