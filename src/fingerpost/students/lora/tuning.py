"""Trains a LoRA adapter: the loop over packed sequences, checkpoints, early stopping."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError, safe_open

from fingerpost.core.types import Progress, ProgressCallback, no_progress
from fingerpost.students.folder import CHECKPOINT_WRITTEN
from fingerpost.students.lora import parallel
from fingerpost.students.lora.base import CHECKPOINTING_FROM, Base, quiet
from fingerpost.students.lora.dialogues import Item
from fingerpost.students.lora.packing import losses, pack
from fingerpost.students.lora.runner import save_tensors

STEP = "train"
RANK, DROPOUT, BATCH = 16, 0.05, 8
WARM_UP = 0.1
PATIENCE = 2
CHECKPOINT_S = 30.0
"""Seconds between two checkpoints."""
PACKED_TOKENS = {"cpu": 1024, "mps": 2048, "cuda": 4096}
"""The most tokens of a packed sequence, by the kind of device."""
STATE = "state.safetensors"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an adapter is trained.

    Attributes:
        epochs: passes over the data at most; 0 leaves the base model as it is.
        batch: replies that a step learns from.
        rate_multiplier: multiplies the learning rate, which depends on the model's width.
        rank: of the adapter's matrices.
        seed: of all random choices.
        patience: epochs in a row without a lower dev loss after which training ends; None goes on to the last epoch. The best
            epoch is kept either way.
    """

    epochs: int
    batch: int = BATCH
    rate_multiplier: float = 1.0
    rank: int = RANK
    seed: int = 0
    patience: int | None = PATIENCE


@dataclass(frozen=True, slots=True)
class LoraStep:
    """Metrics of an optimiser's step; at the end of an epoch also those on dev rows.

    Attributes:
        step, total: number of the step from 1, and of all steps that are planned.
        epoch: number of its epoch, from 1.
        train_loss: mean cross-entropy of the learnt tokens, in nats.
        train_accuracy: fraction of the learnt tokens that are the most probable ones.
        dev_loss, dev_accuracy: as `evaluate` gives them; None within an epoch.
        seconds, mean_seconds: that the step took, and that all steps took so far on average.
    """

    step: int
    total: int
    epoch: int
    train_loss: float
    train_accuracy: float
    dev_loss: float | None = None
    dev_accuracy: float | None = None
    seconds: float = 0.0
    mean_seconds: float = 0.0


@dataclass
class State:
    """What a checkpoint holds beside tensors.

    Attributes:
        step: steps done.
        best_loss, best_step: the lowest dev loss, and the step after which it was measured.
        worse: epochs since then.
        seconds: spent on training so far, over all attempts.
        resumed: how often training went on from a checkpoint.
        stopped: training has ended early.
    """

    step: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    worse: int = 0
    seconds: float = 0.0
    resumed: int = 0
    stopped: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


def learning_rate(width: int) -> float:
    """The adapter's learning rate for a model of this width.

    It is half of that of Schulman et al. (2025, "LoRA Without Regret"), which overfits on a few hundred rows.
    """
    return float(2.5e-4 * (2000 / width) ** 0.781)


def with_adapter(base: Base, recipe: Recipe) -> Any:
    """The base model with a new adapter on all of its linear layers, as a `peft` model. Untrained, it changes nothing."""
    torch.manual_seed(recipe.seed)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=2 * recipe.rank,
        lora_dropout=DROPOUT,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with quiet():
        model = get_peft_model(base.model, config)
    if base.parameters > CHECKPOINTING_FROM:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model.eval()


def tune(
    base: Base,
    model: Any,
    recipe: Recipe,
    batches: Callable[[int], list[list[Item]]],
    evaluate: Callable[[], tuple[float, float]],
    checkpoint: Path,
    *,
    key: str,
    on_epoch: Callable[[LoraStep], None] = lambda _: None,
    checkpoint_s: float = CHECKPOINT_S,
    on_progress: ProgressCallback = no_progress,
) -> State:
    """Train the adapter with AdamW (Loshchilov and Hutter 2019), linear warm-up and linear decay, and keep the best epoch's.

    It goes on from a checkpoint, if an earlier run with the same key left one.

    Args:
        model: from `with_adapter`; changed in place.
        batches: the items of each step of an epoch, counted from 0. It must depend on the epoch alone.
        evaluate: the loss and the accuracy on dev rows.
        checkpoint: folder of the checkpoint.
        key: what the checkpoint belongs to: data, base model and recipe.
        on_epoch: called with the last step of each epoch.
        checkpoint_s: seconds between two checkpoints.
        on_progress: receives a `LoraStep` for each step, and CHECKPOINT_WRITTEN as `detail`.

    Raises:
        OSError: a checkpoint cannot be written.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rate = learning_rate(int(base.model.config.hidden_size)) * recipe.rate_multiplier
    optimiser = torch.optim.AdamW(weights, lr=rate)
    best = [weight.detach().clone() for weight in weights]
    state = _read(checkpoint / STATE, key, weights, optimiser, best)
    if state.step:
        state.resumed += 1
        on_progress(Progress(STEP, f"resumed from the checkpoint after step {state.step}"))
    limit = PACKED_TOKENS.get(base.device.type, PACKED_TOKENS["cpu"])
    per_epoch = len(batches(0)) if recipe.epochs else 0
    total = recipe.epochs * per_epoch
    warm_up = max(1, round(WARM_UP * total))
    began = saved_at = time.monotonic()
    spent, here = state.seconds, state.step
    while state.step < total and not state.stopped:
        at = time.monotonic()
        epoch, place = divmod(state.step, per_epoch)
        for group in optimiser.param_groups:
            group["lr"] = rate * min((state.step + 1) / warm_up, (total - state.step) / max(1, total - warm_up))
        torch.manual_seed(recipe.seed * 1_000_003 + state.step)  # the same dropout, wherever training was resumed
        model.train()
        loss, accuracy = _step(model, batches(epoch)[place], limit, optimiser, weights)
        state.step += 1
        model.eval()
        at_end = place == per_epoch - 1
        dev_loss, dev_accuracy = evaluate() if at_end else (None, None)
        now = time.monotonic()
        state.seconds = spent + now - began
        figures = LoraStep(
            state.step, total, epoch + 1, loss, accuracy, dev_loss, dev_accuracy, now - at,
            (now - began) / (state.step - here),
        )  # fmt: skip
        state.history.append(asdict(figures))
        if dev_loss is not None:
            _compare(state, dev_loss, recipe.patience, weights, best)
            on_epoch(figures)
        on_progress(Progress(STEP, done=state.step, total=total, data=figures))
        if parallel.is_first() and (at_end or now - saved_at >= checkpoint_s):
            _write(checkpoint / STATE, key, state, weights, optimiser, best)
            saved_at = time.monotonic()
            on_progress(Progress(STEP, done=state.step, total=total, detail=CHECKPOINT_WRITTEN))
    with torch.no_grad():
        for kept, weight in zip(best, weights, strict=True):
            weight.copy_(kept)
    model.eval()
    return state


def _compare(
    state: State, dev_loss: float, patience: int | None, weights: Sequence[Any], best: Sequence[torch.Tensor]
) -> None:
    """Keep an epoch's weights if they are the best so far; after `patience` epochs that are not, training stops."""
    if dev_loss < state.best_loss:
        state.best_loss, state.best_step, state.worse = dev_loss, state.step, 0
        for kept, weight in zip(best, weights, strict=True):
            kept.copy_(weight.detach())
    else:
        state.worse += 1
        state.stopped = patience is not None and state.worse >= patience


def _step(
    model: Any, items: Sequence[Item], limit: int, optimiser: torch.optim.Optimizer, weights: list[Any]
) -> tuple[float, float]:
    """One optimiser's step; returns the loss and the accuracy over the learnt tokens."""
    whole = sum(item.weight * len(item.reply) for item in items)
    optimiser.zero_grad(set_to_none=False)
    totals = torch.zeros(3, device=model.device)  # loss, hits, tokens
    for sequence in pack(parallel.share_of(items), limit, model.dtype):
        nll, hits = losses(model, sequence)
        part = nll.sum() / whole
        part.backward()
        totals += torch.stack([part.detach(), hits.sum(), torch.tensor(len(hits), device=model.device)])
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    parallel.add_up([totals, *(weight.grad for weight in weights)])
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimiser.step()
    loss, right, count = totals.tolist()
    return loss, right / max(1.0, count)


def _write(
    file: Path,
    key: str,
    state: State,
    weights: Sequence[Any],
    optimiser: torch.optim.Optimizer,
    best: Sequence[torch.Tensor],
) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for number, (weight, kept) in enumerate(zip(weights, best, strict=True)):
        tensors[f"weight{number}"], tensors[f"best{number}"] = weight.detach(), kept
        moments = optimiser.state.get(weight, {})
        for name in ("exp_avg", "exp_avg_sq", "step"):
            if name in moments:
                tensors[f"{name}{number}"] = moments[name]
    file.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(file, tensors, {"key": key, "state": json.dumps(asdict(state))})


def _read(
    file: Path, key: str, weights: Sequence[Any], optimiser: torch.optim.Optimizer, best: Sequence[torch.Tensor]
) -> State:
    """Load a checkpoint of this key; a new state where there is none."""
    try:
        with safe_open(file, "pt") as stored:
            about = stored.metadata() or {}
            if about.get("key") != key:
                return State()
            names = set(stored.keys())
            with torch.no_grad():
                for number, (weight, kept) in enumerate(zip(weights, best, strict=True)):
                    weight.copy_(stored.get_tensor(f"weight{number}"))
                    kept.copy_(stored.get_tensor(f"best{number}"))
                    moments = {
                        name: stored.get_tensor(f"{name}{number}")
                        for name in ("exp_avg", "exp_avg_sq", "step")
                        if f"{name}{number}" in names
                    }
                    if moments:
                        device = {
                            name: one if name == "step" else one.to(weight.device) for name, one in moments.items()
                        }
                        optimiser.state[weight] = device
            return State(**json.loads(about["state"]))
    except (OSError, SafetensorError):
        return State()
