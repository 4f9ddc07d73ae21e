"""Full fine-tuning: encoder and head together, from the fitted head on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fingerpost.students.encoder.network import EMBED_BATCH, Encoder, Network

BATCH = 32
ENCODER_RATE = 1e-4
HEAD_RATE = 1e-2
WARM_UP = 0.1
LENGTH_NOISE = 8.0  # characters: batches hold texts of similar length, but not always the same ones


@dataclass(frozen=True, slots=True)
class Epoch:
    """How training went in one epoch: mean loss, accuracy on dev (share of dev labels matched), seconds."""

    number: int
    of: int
    loss: float
    dev_accuracy: float
    seconds: float


def tune(
    encoder: Encoder,
    network: Network,
    texts: Sequence[str],
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
    dev_accuracy: Callable[[], float],
    *,
    epochs: int,
    seed: int,
    on_epoch: Callable[[Epoch], None],
) -> None:
    """Train all weights in place with AdamW, linear warm-up and decay, on soft targets (rows, labels).

    Uses a GPU where torch sees one, and bfloat16 where the processor computes in it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda" or _has_bfloat16())
    y, w = torch.from_numpy(targets).to(device), torch.from_numpy(weights).to(device)
    optimiser = torch.optim.AdamW(
        [
            {"params": network.encoder.parameters(), "lr": ENCODER_RATE},
            {"params": network.head.parameters(), "lr": HEAD_RATE},
        ],
        weight_decay=0.01,
    )
    steps = epochs * math.ceil(len(texts) / BATCH)
    warm = max(1, round(WARM_UP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    draw = np.random.default_rng(seed)
    lengths = np.array([len(text) for text in texts])
    for number in range(1, epochs + 1):
        began, losses = time.perf_counter(), []
        network.train()
        order = np.argsort(lengths + draw.normal(0, LENGTH_NOISE, len(lengths)))
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        draw.shuffle(batches)
        for batch in batches:
            tokens = {key: value.to(device) for key, value in encoder.tokens([texts[i] for i in batch]).items()}
            with half:
                logits = network(**tokens)
            chosen = torch.from_numpy(batch).to(device)
            entropy = -(y[chosen] * torch.log_softmax(logits.float(), dim=1)).sum(1)
            loss = (w[chosen] * entropy).sum() / w[chosen].sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        network.eval()
        on_epoch(Epoch(number, epochs, float(np.mean(losses)), dev_accuracy(), time.perf_counter() - began))
    network.to("cpu").eval()


def predict_logits(encoder: Encoder, network: Network, texts: Sequence[str]) -> NDArray[np.float32]:
    """Logits of the texts, shape (texts, labels), wherever the network is."""
    device = next(network.parameters()).device
    logits = np.zeros((len(texts), network.head.out_features), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    with torch.inference_mode():
        for start in range(0, len(order), EMBED_BATCH):
            chosen = order[start : start + EMBED_BATCH]
            tokens = encoder.tokens([texts[i] for i in chosen])
            logits[chosen] = network(**{key: value.to(device) for key, value in tokens.items()}).float().cpu().numpy()
    return logits


def _has_bfloat16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check())
