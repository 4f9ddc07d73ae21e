"""Fine-tunes encoder and head together, starting from the fitted linear head."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from fingerpost.core.types import Progress, ProgressCallback, Tuning, no_progress
from fingerpost.students.denoise import Rows, Views, fit_views
from fingerpost.students.encoder.cached_layers import CachedLayers
from fingerpost.students.encoder.calibrate import MIN_DEV_ROWS, cross_entropy
from fingerpost.students.encoder.network import EMBED_BATCH, Encoder, Network, best_device
from fingerpost.students.folder import Stack
from fingerpost.students.linear import Array, Head
from fingerpost.students.stack import fit_stack
from fingerpost.task.settings import Task

STEP = "train"
EPOCHS = 3
BATCH = 32
ENCODER_RATE = 1e-4
HEAD_RATE = 1e-2
WARM_UP = 0.1
LABEL_SMOOTHING = 0.1
UPPER, CPU_EPOCHS = 2, 2
"""Layers that are trained on a processor, of six in the default encoder, and for how many epochs by default."""
TRIAL_ROWS, TRIAL_HELD_OUT, TRIAL_EPOCHS = 1_200, 400, 2
LENGTH_NOISE = 8.0  # characters; batches contain texts of similar length, but differ between epochs


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Metrics of the linear head (step 0), or of the network after an epoch.

    Attributes:
        step, total: number of the epoch, and of all epochs.
        train_loss, dev_loss: mean cross-entropy in nats.
        dev_accuracy: fraction of dev labels that the model matches.
        seconds: duration of the epoch in seconds.
    """

    step: int
    total: int
    train_loss: float
    dev_loss: float
    dev_accuracy: float
    seconds: float = 0.0


def epochs_of(tuning: Tuning | None, epochs: int | None) -> tuple[Tuning, int]:
    """Whether to fine-tune, and for how many epochs, from the options as given; `auto` where neither is."""
    usual = CPU_EPOCHS if best_device().type == "cpu" else EPOCHS
    if tuning is None:
        tuning = "auto" if epochs is None else "on" if epochs else "off"
    return tuning, 0 if tuning == "off" else epochs or usual


def tune(
    encoder: Encoder,
    network: Network,
    texts: Sequence[str],
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
    *,
    epochs: int,
    seed: int,
    on_epoch: Callable[[int, float, float], bool | None],
    upper: int | None = None,
    on_progress: ProgressCallback = no_progress,
) -> None:
    """Train the weights in place with AdamW (Loshchilov and Hutter 2019), linear warm-up and linear decay.

    Uses a GPU if torch finds one, and bfloat16 if the processor supports it.

    Args:
        texts: rendered by `encoder_input`.
        targets: soft labels, shape (rows, labels).
        weights: shape (rows,).
        seed: seed of the order of the batches.
        on_epoch: called with the epoch's number (from 1), its mean training loss and its duration in seconds. If it
            returns True, training stops.
        upper: train only so many layers, and the head. What the layers below them compute is computed once. Default: all.
        on_progress: receives the number of finished batches of all epochs, with the step "fine-tune".
    """
    device = best_device()
    network.to(device)
    cached = None if upper is None else CachedLayers.of(encoder, network, texts, upper)
    mixed_precision = torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=device.type == "cuda" or _has_bfloat16()
    )
    y, w = torch.from_numpy(targets).to(device), torch.from_numpy(weights).to(device)
    optimiser = torch.optim.AdamW(
        [
            {"params": [one for one in network.encoder.parameters() if one.requires_grad], "lr": ENCODER_RATE},
            {"params": network.head.parameters(), "lr": HEAD_RATE},
        ],
        weight_decay=0.01,
    )
    steps = epochs * math.ceil(len(texts) / BATCH)
    warm_up_steps = max(1, round(WARM_UP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm_up_steps, (steps - step) / max(1, steps - warm_up_steps))
    )
    random = np.random.default_rng(seed)
    lengths = np.array([len(text) for text in texts])
    done = 0
    for number in range(1, epochs + 1):
        began, losses = time.perf_counter(), []
        network.train()
        order = np.argsort(lengths + random.normal(0, LENGTH_NOISE, len(lengths)))
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        random.shuffle(batches)
        for batch in batches:
            tokens = {key: value.to(device) for key, value in encoder.tokens([texts[i] for i in batch]).items()}
            if cached is not None:
                cached.replay(batch)
            with mixed_precision:
                logits = network(**tokens)
            chosen = torch.from_numpy(batch).to(device)
            entropy = -(y[chosen] * torch.log_softmax(logits.float(), dim=1)).sum(1)
            loss = (w[chosen] * entropy).sum() / w[chosen].sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
            done += 1
            on_progress(Progress("fine-tune", done=done, total=steps))
        network.eval()
        if cached is not None:
            cached.restore()
        if on_epoch(number, float(np.mean(losses)), time.perf_counter() - began):
            break
    network.requires_grad_(True).to("cpu").eval()


def predict_logits(encoder: Encoder, network: Network, texts: Sequence[str]) -> NDArray[np.float32]:
    """Logits of the texts, shape (texts, labels), computed on the network's device."""
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
    """Whether the processor has native bfloat16 arithmetic."""
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check())


def network_of(base: Encoder, task: Task, head: Head) -> Network:
    """A network with the encoder and this head, in evaluation mode."""
    network = base.network(len(task.labels))
    return with_head(network, head).eval()


def is_promising(
    base: Encoder, network_of_head: Callable[[Head], Network], train: Rows, seed: int, on_progress: ProgressCallback
) -> bool:
    """A trial: whether fine-tuning the upper layers on some of the rows makes the labels of others more likely.

    Both views are fitted to TRIAL_ROWS rows, and compared with the fine-tuned encoder view on TRIAL_HELD_OUT others. The
    gain has to exceed two standard errors.

    Args:
        network_of_head: the network with the frozen encoder and a head that was fitted to the rows' vectors.
        train: cleaned rows; too few of them promise nothing.
    """
    if len(train.texts) < TRIAL_ROWS + TRIAL_HELD_OUT:
        return False
    order = np.random.default_rng(seed).permutation(len(train.texts))
    rows, held_out = train.take(order[:TRIAL_ROWS]), train.take(order[TRIAL_ROWS:][:TRIAL_HELD_OUT])
    began = time.perf_counter()
    views = fit_views(rows, Stack())
    network = copy.deepcopy(network_of_head(views.head))
    targets = _smoothed(rows.targets)
    tune(
        base,
        network,
        rows.texts,
        targets,
        rows.weights,
        epochs=TRIAL_EPOCHS,
        seed=seed,
        on_epoch=_ignore,
        upper=UPPER,
        on_progress=on_progress,
    )
    gain = _gain(views, network, base, held_out, held_out.weights)
    promising = bool(gain.sum() > 2 * np.sqrt((gain**2).sum()))
    found = "promising" if promising else "not promising"
    message = f"trial of fine-tuning on {TRIAL_ROWS:,} rows: {found}, {gain.mean():+.3f} nats a row"
    on_progress(Progress(STEP, f"{message}, {time.perf_counter() - began:.0f} s"))
    return promising


def fine_tune(
    base: Encoder,
    frozen: Network,
    views: Views,
    train: Rows,
    dev: Rows,
    plausibility: Array,
    epochs: int,
    seed: int,
    on_progress: ProgressCallback,
) -> tuple[Network, list[TrainingStep]]:
    """Fine-tune a copy of the network, and keep its best epoch if that makes the dev labels more likely.

    On a processor only the upper layers are trained. The gain in log-likelihood, together with the lexical view, has to
    exceed its standard error. A dev row is weighted by the plausibility of its label, because matching implausible labels
    means copying mistakes. Training stops when the loss on dev rises.

    Args:
        frozen: the network with the frozen encoder and the fitted head.
        views: the fitted head and lexical view; both networks are compared together with the lexical view.
        plausibility: plausibility of the dev labels (0 to 1), shape (dev rows,).

    Returns:
        The fine-tuned network with one step per epoch up to the best one, or the frozen network and no steps.
    """
    network = copy.deepcopy(frozen)
    steps: list[TrainingStep] = []
    best: tuple[float, dict[str, torch.Tensor]] | None = None

    def on_epoch(number: int, train_loss: float, seconds: float) -> bool:
        nonlocal best
        logits = predict_logits(base, network, dev.texts)
        accuracy = float((logits.argmax(1) == dev.labels).mean())
        step = TrainingStep(number, epochs, train_loss, cross_entropy(logits, dev), accuracy, seconds)
        steps.append(step)
        left = f", about {seconds * (epochs - number):.0f} s left" if number < epochs else ""
        message = f"epoch {number} of {epochs}: loss {train_loss:.3f}, {accuracy:.3f} on dev, {seconds:.0f} s{left}"
        on_progress(Progress(STEP, message, number, epochs, data=step))
        if best is None or step.dev_loss < best[0]:
            best = step.dev_loss, {name: value.detach().clone() for name, value in network.state_dict().items()}
            return False
        on_progress(Progress(STEP, "the loss on dev rises: stopping"))
        return True

    upper = UPPER if best_device().type == "cpu" else None
    tune(
        base, network, train.texts, _smoothed(train.targets), train.weights,
        epochs=epochs, seed=seed, on_epoch=on_epoch, upper=upper, on_progress=on_progress,
    )  # fmt: skip
    assert best is not None
    network.load_state_dict(best[1])
    gain = _gain(views, network, base, dev, plausibility)
    if len(dev.texts) < MIN_DEV_ROWS or gain.sum() <= np.sqrt((gain**2).sum()):
        on_progress(Progress(STEP, "fine-tuning does not help on dev; keeping the linear head"))
        return frozen, []
    return network, steps[: 1 + min(range(len(steps)), key=lambda i: steps[i].dev_loss)]


def _smoothed(targets: Array) -> Array:
    """Targets with label smoothing (Szegedy et al. 2016), shape (rows, labels)."""
    result: Array = ((1 - LABEL_SMOOTHING) * targets + LABEL_SMOOTHING / targets.shape[1]).astype(np.float32)
    return result


def _gain(views: Views, network: Network, base: Encoder, rows: Rows, weights: Array) -> NDArray[np.float64]:
    """What the fine-tuned network gains over the head of the frozen encoder, each with the lexical view at its own best
    weights: weighted log-likelihood of each row in nats, shape (rows,).

    Args:
        rows: that neither was fitted to.
        weights: shape (rows,).
    """
    lexical = views.lexical_scores(rows)
    losses = []
    for scores in (views.head.logits(rows.vectors), predict_logits(base, network, rows.texts)):
        logits = fit_stack(scores, lexical, rows.targets, weights).combine(scores, lexical)
        losses.append(-(rows.targets * log_softmax(logits.astype(np.float64), axis=1)).sum(1))
    gain: NDArray[np.float64] = weights * (losses[0] - losses[1])
    return gain


def with_head(network: Network, head: Head) -> Network:
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(head.weights.T.copy()))
        network.head.bias.copy_(torch.from_numpy(head.bias))
    return network


def _ignore(*_: float) -> None:
    """Nothing to do after an epoch."""
