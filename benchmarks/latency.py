"""Latency of single predictions in this process, on one thread, for messages of about 15 tokens.

Usage: latency.py MODEL [--json OUT]

Compares the model with its encoder in PyTorch (fp32) in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModel

import fingerpost
from fingerpost.students.encoder.network import MAX_TOKENS
from fingerpost.students.encoder.predict import limited
from fingerpost.students.encoder.source import DEFAULT, find_encoder
from fingerpost.students.folder import TOKENIZER_FILE

MESSAGES = [
    "could you please tell me how many days of leave I still have this year",
    "the card that I ordered two weeks ago has not arrived at my home yet",
    "I would like to move my appointment from monday morning to friday afternoon",
    "why was I charged twice for the same thing when I only bought it once",
    "what do I have to do to change the address on my account before may",
]
ROUNDS = 200


def quantiles(call: Callable[[str], object]) -> dict[str, float]:
    for text in MESSAGES * 4:
        call(text)
    seconds = []
    for i in range(ROUNDS):
        began = time.perf_counter()
        call(MESSAGES[i % len(MESSAGES)])
        seconds.append(time.perf_counter() - began)
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": 1000 * cuts[49], "p95_ms": 1000 * cuts[94]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    router = fingerpost.load(arguments.model)
    tokenizer = limited(Tokenizer.from_file(str(arguments.model / TOKENIZER_FILE)), MAX_TOKENS)
    torch.set_num_threads(1)
    encoder = AutoModel.from_pretrained(find_encoder(DEFAULT)[0]).eval()

    def with_torch(text: str) -> None:
        encoded = tokenizer.encode(text)
        with torch.inference_mode():
            encoder(input_ids=torch.tensor([encoded.ids]), attention_mask=torch.tensor([encoded.attention_mask]))

    results = {
        "tokens": statistics.mean(len(tokenizer.encode(text).ids) for text in MESSAGES),
        "student": quantiles(lambda text: router.predict([text])),
        "encoder in torch, fp32": quantiles(with_torch),
    }
    print(f"{results['tokens']:.1f} tokens, {ROUNDS} predictions, one thread")
    for name, times in results.items():
        if isinstance(times, dict):
            print(f"{name:24} p50 {times['p50_ms']:6.2f} ms   p95 {times['p95_ms']:6.2f} ms")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
