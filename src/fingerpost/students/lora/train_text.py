"""Trains the generative student on conversations whose replies are texts, or JSON objects of several fields."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fingerpost.core.errors import InputError
from fingerpost.core.text import fingerprint, hash_fraction
from fingerpost.core.types import Progress, ProgressCallback, no_progress
from fingerpost.core.utils import chunks
from fingerpost.core.version import __version__
from fingerpost.data.dialogues import Dialogue
from fingerpost.students.folder import (
    EPOCH_NAME,
    Manifest,
    epoch_folders,
    require_free,
    write_manifest,
    write_steps,
    writing,
)
from fingerpost.students.lora import parallel
from fingerpost.students.lora.base import Base, open_base
from fingerpost.students.lora.dialogues import Item, items_of
from fingerpost.students.lora.packing import dev_losses
from fingerpost.students.lora.runner import save_adapter
from fingerpost.students.lora.train import (
    MAX_TOKENS,
    checkpoint_key,
    figures_of,
    open_reported,
    training_folder,
    versions,
)
from fingerpost.students.lora.tuning import PACKED_TOKENS, STEP, LoraStep, Recipe, tune, with_adapter
from fingerpost.task.reply_schema import canonical_reply

EPOCHS = 3


def fit_text(
    dialogues: Sequence[Dialogue],
    dev: Sequence[Dialogue],
    folder: Path,
    *,
    base: str,
    recipe: Recipe,
    reply_schema: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] = MappingProxyType({}),
    keep_epochs: int = 0,
    checkpoint_s: float = 30.0,
    on_progress: ProgressCallback = no_progress,
) -> Manifest:
    """Train on the replies of conversations, keep the epoch with the lowest loss on `dev`, and write the model folder.

    Args:
        dev: without any, a tenth of the conversations is held out.
        reply_schema: of replies that are JSON objects, their schema.
        facts: additional fields of the manifest.
        keep_epochs: of how many of the last epochs a model folder of its own is kept, named `FOLDER~step-N`.
        checkpoint_s: seconds between two checkpoints.
        on_progress: receives a `LoraStep` for each step.

    Raises:
        InputError: there is nothing to learn, or `folder` is no model folder.
        ModelError: the base model cannot be loaded.
    """
    began = time.perf_counter()
    require_free(folder)
    opened = open_reported(base, on_progress)
    if reply_schema is not None:
        dialogues, dev = (_canonical(part, reply_schema) for part in (dialogues, dev))
    train, held = _held_out(dialogues, dev)
    limit = min(opened.context, MAX_TOKENS)
    items = [item for dialogue in train for item in items_of(opened.tokenizer, dialogue, limit)]
    dev_items = [item for dialogue in held for item in items_of(opened.tokenizer, dialogue, limit)]
    if not items or not dev_items:
        raise InputError("there is no reply to learn, or none to measure on; give more conversations")
    tokens = sum(len(item.prompt) + len(item.reply) for item in items)
    cut = sum(item.cut for item in items)
    if cut:
        on_progress(Progress(STEP, f"{cut:,} conversations have more than {limit:,} tokens and are cut"))
    fields = dict(facts)
    figures = fields.pop("training", {})
    manifest = _manifest(opened, folder).model_copy(
        update={
            "max_tokens": limit, "seed": recipe.seed, "reply_schema": dict(reply_schema) if reply_schema else None,
            "data_fingerprint": fingerprint(repr(dialogue) for dialogue in (*train, *held)), **fields,
        }
    )  # fmt: skip
    model = with_adapter(opened, recipe)
    packed_tokens = PACKED_TOKENS.get(opened.device.type, PACKED_TOKENS["cpu"])

    def evaluate() -> tuple[float, float]:
        return dev_losses(model, dev_items, packed_tokens, opened.model.dtype)

    base_loss, base_accuracy = evaluate()
    on_progress(Progress(STEP, f"before training, the loss on the validation replies is {base_loss:.3f}"))

    def write(target: Path, figures_now: Mapping[str, Any], steps: Sequence[Mapping[str, Any]] = ()) -> Manifest:
        if not parallel.is_first():
            return manifest
        with writing(target) as staging:
            save_adapter(model, staging, opened.name)
            write_steps(staging, steps)
            training = {
                "train_rows": len(train), "dev_rows": len(held), "base_dev_loss": round(base_loss, 4),
                "base_dev_accuracy": round(base_accuracy, 4), **figures_now, **figures,
            }  # fmt: skip
            return write_manifest(staging, manifest.model_copy(update={"name": target.name, "training": training}))

    def on_epoch(step: LoraStep) -> None:
        if keep_epochs and parallel.is_first():
            write(folder.with_name(f"{folder.name}{EPOCH_NAME}{step.step}"), {"last_step": asdict(step)})
            for old in epoch_folders(folder)[:-keep_epochs]:
                shutil.rmtree(old, ignore_errors=True)

    with training_folder(folder) as checkpoint:
        key = checkpoint_key(manifest, recipe, [manifest.data_fingerprint])
        state = tune(
            opened, model, recipe, _draws(items, recipe), evaluate, checkpoint,
            key=key, on_epoch=on_epoch, checkpoint_s=checkpoint_s, on_progress=on_progress,
        )  # fmt: skip
        loss, accuracy = evaluate()
        measured = {
            "dev_loss": round(loss, 4), "dev_accuracy": round(accuracy, 4), "tokens": round(tokens * state.step / -(-len(items) // recipe.batch)),
            **figures_of(recipe, state, began),
        }  # fmt: skip
        return write(folder, measured, state.history)


def write_base(base: str, folder: Path) -> Manifest:
    """Write a model folder with an untrained adapter, which answers as the base model does.

    Raises:
        ModelError: the base model cannot be loaded.
    """
    opened = open_base(base)
    manifest = _manifest(opened, folder)
    with writing(folder) as staging:
        save_adapter(with_adapter(opened, Recipe(0)), staging, opened.name)
        return write_manifest(staging, manifest)


def _canonical(dialogues: Sequence[Dialogue], schema: Mapping[str, Any]) -> list[Dialogue]:
    """Conversations whose learnt replies are written as they will be scored."""
    return [
        replace(
            dialogue,
            turns=tuple(
                replace(turn, content=canonical_reply(turn.content, schema)) if turn.weight else turn
                for turn in dialogue.turns
            ),
        )
        for dialogue in dialogues
    ]


def _manifest(base: Base, folder: Path) -> Manifest:
    """The manifest of a model that writes its replies."""
    fields: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"), "fingerpost": __version__, "labels": [],
        "answer_field": "", "history": 0, "max_tokens": base.context, "task_fingerprint": "", "encoder": base.origin,
        "requested": {"base": base.name}, "versions": versions(),
    }  # fmt: skip
    return Manifest(kind="lora", name=folder.name, **fields)


def _held_out(dialogues: Sequence[Dialogue], dev: Sequence[Dialogue]) -> tuple[list[Dialogue], list[Dialogue]]:
    """Conversations to train and to measure on; those in both are only measured on."""
    keys = {id(dialogue): repr(dialogue) for dialogue in (*dialogues, *dev)}
    if dev:
        measured = {keys[id(dialogue)] for dialogue in dev}
    else:
        shares = sorted({key: hash_fraction(f"dev/{key}") for key in keys.values()}.items(), key=lambda item: item[1])
        measured = {key for key, _ in shares[: max(1, len(shares) // 10)]}
    train = [dialogue for dialogue in dialogues if keys[id(dialogue)] not in measured]
    return train, list(dev) or [dialogue for dialogue in dialogues if keys[id(dialogue)] in measured]


def _draws(items: Sequence[Item], recipe: Recipe) -> Callable[[int], list[list[Item]]]:
    """The items of each step of an epoch: another order in each epoch."""

    def batches(epoch: int) -> list[list[Item]]:
        order = random.Random(f"{recipe.seed}/{epoch}").sample(range(len(items)), len(items))
        return [[items[i] for i in part] for part in chunks(order, recipe.batch)]

    return batches
