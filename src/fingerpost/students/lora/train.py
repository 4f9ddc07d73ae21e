"""Trains the generative student: from examples or conversations to a model folder."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from fingerpost.core.errors import InputError
from fingerpost.core.text import fingerprint
from fingerpost.core.types import Example, Progress, ProgressCallback, no_progress
from fingerpost.core.utils import chunks, locked
from fingerpost.students.encoder.calibrate import MIN_DEV_ROWS, calibrate
from fingerpost.students.encoder.predict import softmax
from fingerpost.students.folder import (
    DEV_ANSWERS,
    TRAINED_ON,
    DevAnswer,
    Manifest,
    checkpoint_folder,
    manifest_of,
    require_free,
    write_answers,
    write_manifest,
    write_steps,
    writing,
)
from fingerpost.students.lora import parallel
from fingerpost.students.lora.base import Base, open_base
from fingerpost.students.lora.dialogues import Item, reply_tokens
from fingerpost.students.lora.label_prompts import LabelPrompt
from fingerpost.students.lora.predict import prompt_of, prompt_tokens
from fingerpost.students.lora.runner import save_adapter
from fingerpost.students.lora.scoring import PromptCache, ReplyTree, score_replies
from fingerpost.students.lora.tuning import STEP, Recipe, State, tune, with_adapter
from fingerpost.task.prompt import system_prompt
from fingerpost.task.reply_format import json_template
from fingerpost.task.settings import Task

EPOCHS = 5
MAX_TOKENS = 2048
"""The most tokens of a conversation with its prompt; longer ones are cut."""
SCORED = 8
"""Dev rows that are scored at once."""


def fit(
    examples: Sequence[Example],
    dev: Sequence[Example],
    task: Task,
    folder: Path,
    *,
    base: str,
    recipe: Recipe,
    vary_labels: bool = False,
    history: int = 2,
    facts: Mapping[str, Any] = MappingProxyType({}),
    checkpoint_s: float = 30.0,
    on_progress: ProgressCallback = no_progress,
) -> Manifest:
    """Train a classifier that reads its labels from the prompt, calibrate it on `dev`, and write the model folder.

    Each step draws another order of the prompt's list of labels.

    Args:
        folder: the model folder. A checkpoint lies beside it until it is written.
        base: the base model: a GGUF file, a folder, or a hub name.
        vary_labels: each step also drops labels that its rows do not need, and about half of the steps replace the names in the
            prompt by integer codes, so that codes and new labels can be used later.
        history: number of earlier turns of a conversation that the student reads.
        facts: additional fields of the manifest; those under "training" are added to the training figures.
        checkpoint_s: seconds between two checkpoints.
        on_progress: receives a `LoraStep` for each step.

    Raises:
        InputError: fewer than two labels, no dev rows, a multi-label task, or `folder` is no model folder.
        ModelError: the base model cannot be loaded.
    """
    began = time.perf_counter()
    if task.multi:
        raise InputError("--student lora gives one label; for several labels of a text, use --student encoder")
    if len({example.label for example in examples}) < 2:
        raise InputError(f"the {len(examples)} training rows have fewer than two labels; label more questions")
    if not dev:
        raise InputError("there are no dev rows to calibrate on; label more questions, or raise dev in [split]")
    require_free(folder)
    opened = open_reported(base, on_progress)
    fields = dict(facts)
    figures = fields.pop("training", {})
    template = fields.pop("reply_template", None) or json_template(
        task.answer_field, any(label.code is not None for label in task.labels)
    )
    system = fields.pop("system", "") or system_prompt(task, codes=template.codes)
    manifest = manifest_of(
        "lora", folder.name, task, history=history, max_tokens=min(opened.context, MAX_TOKENS), encoder=opened.origin, seed=recipe.seed,
        system=system, reply_template=template, requested={"base": base}, versions=versions(), **fields,
    )  # fmt: skip
    prompt = prompt_of(manifest)
    if not prompt.is_listed and vary_labels:
        raise InputError(
            "--vary-labels needs a system prompt that lists the labels, one in each line, such as '- refund: ...'"
        )
    if not prompt.is_listed:
        on_progress(Progress(STEP, "the system prompt does not list the labels: they are learnt by heart"))
    draws = _LabelDraws(opened, prompt, examples, manifest, recipe, vary_labels)
    tokens = [prompt_tokens(opened.tokenizer, prompt, example.messages, manifest) for example in dev]
    labels = [label.name for label in manifest.labels]
    tree = ReplyTree.of([reply_tokens(opened.tokenizer, prompt.reply(label)) for label in labels])
    targets = np.array([[example.target.get(label, 0.0) for label in labels] for example in dev], dtype=np.float32)
    targets /= targets.sum(1, keepdims=True)
    weights = np.array([example.weight for example in dev], dtype=np.float32)
    model = with_adapter(opened, recipe)
    scored: dict[str, Any] = {}

    def evaluate() -> tuple[float, float]:
        inner = model.get_base_model()
        cache = PromptCache()
        parts = [score_replies(inner, cache, part, tree) for part in chunks(tokens, SCORED)]
        scored["logits"] = logits = torch.cat(parts).numpy()
        rows = np.log(softmax(logits) + 1e-12)
        loss = float(-(weights * (targets * rows).sum(1)).sum() / weights.sum())
        return loss, float((logits.argmax(1) == targets.argmax(1)).mean())

    with training_folder(folder) as checkpoint:
        rows_of_data = [f"{one.id}/{sorted(one.target.items())}/{one.weight}" for one in (*examples, *dev)]
        key = checkpoint_key(manifest, recipe, [str(vary_labels), *rows_of_data])
        state = tune(
            opened, model, recipe, draws.batches, evaluate, checkpoint,
            key=key, checkpoint_s=checkpoint_s, on_progress=on_progress,
        )  # fmt: skip
        loss, accuracy = evaluate()
        temperature = calibrate(scored["logits"], targets, weights)
        rows = softmax(scored["logits"] / temperature)
        if not parallel.is_first():
            return manifest
        with writing(folder) as staging:
            save_adapter(model, staging, opened.name)
            ids = sorted({example.id for example in (*examples, *dev)})
            (staging / TRAINED_ON).write_text("\n".join(ids) + "\n", encoding="ascii")
            answers = [
                DevAnswer(example.id, example.label, labels[int(row.argmax())], round(float(row.max()), 6))
                for example, row in zip(dev, rows, strict=True)
            ]
            write_answers(staging / DEV_ANSWERS, answers)
            write_steps(staging, state.history)
            training = {
                "train_rows": len(examples), "dev_rows": len(dev), "dev_accuracy": round(accuracy, 4),
                "dev_loss": round(loss, 4), "calibrated": len(dev) >= MIN_DEV_ROWS, "vary_labels": vary_labels,
                **figures_of(recipe, state, began), **figures,
            }  # fmt: skip
            update = {"temperature": temperature, "training": training}
            manifest = write_manifest(staging, manifest.model_copy(update=update))
    return manifest


def write_untuned(manifest: Manifest, folder: Path) -> Manifest:
    """Write a model folder that answers as the base model of another one does, with the same prompt.

    Raises:
        ModelError: the base model cannot be loaded.
    """
    opened = open_base(manifest.encoder["name"])
    with writing(folder) as staging:
        save_adapter(with_adapter(opened, Recipe(0)), staging, opened.name)
        update = {"name": folder.name, "temperature": 1.0, "training": {}}
        return write_manifest(staging, manifest.model_copy(update=update))


class _LabelDraws:
    """The items of each step, with a prompt of their own: another order of the labels, and where asked for other names."""

    def __init__(
        self,
        base: Base,
        prompt: LabelPrompt,
        examples: Sequence[Example],
        manifest: Manifest,
        recipe: Recipe,
        vary: bool,
    ) -> None:
        self._base, self._prompt, self._examples, self._manifest = base, prompt, examples, manifest
        self._recipe, self._vary = recipe, vary
        self._drawn: tuple[int, list[list[Item]]] = (-1, [])

    def batches(self, epoch: int) -> list[list[Item]]:
        """The items of each step of an epoch; the same for the same epoch."""
        if self._drawn[0] != epoch:
            self._drawn = (epoch, self._draw(epoch))
        return self._drawn[1]

    def _draw(self, epoch: int) -> list[list[Item]]:
        draw = random.Random(f"{self._recipe.seed}/{epoch}")
        order = draw.sample(range(len(self._examples)), len(self._examples))
        return [self._items([self._examples[i] for i in part], draw) for part in chunks(order, self._recipe.batch)]

    def _items(self, examples: Sequence[Example], draw: random.Random) -> list[Item]:
        prompt = self._prompt.shuffled(draw)
        if self._vary:
            prompt = prompt.varied(draw, [example.label for example in examples])
        tokenizer = self._base.tokenizer
        return [
            Item(
                prompt_tokens(tokenizer, prompt, example.messages, self._manifest),
                reply_tokens(tokenizer, prompt.reply(example.label)),
                example.weight,
            )
            for example in examples
        ]


def open_reported(base: str, on_progress: ProgressCallback) -> Base:
    """Load a base model, and report its size."""
    on_progress(Progress(STEP, f"loading the base model {base}"))
    opened = open_base(base)
    how = {torch.bfloat16: "bfloat16", torch.float16: "float16"}.get(opened.model.dtype, "float32")
    on_progress(Progress(STEP, f"{opened.parameters / 1e6:,.0f} million weights in {how} on {opened.device.type}"))
    return opened


@contextmanager
def training_folder(folder: Path) -> Iterator[Path]:
    """A folder for checkpoints beside a model's folder, kept if training is interrupted and deleted when it is done.

    Raises:
        InputError: another run trains this model.
    """
    checkpoint = checkpoint_folder(folder)
    if not parallel.is_first():
        parallel.wait_for_all()  # for the first process' folder
        yield checkpoint
        parallel.wait_for_all()
        return
    checkpoint.mkdir(parents=True, exist_ok=True)
    with locked(checkpoint / "lock", f"another run is training {folder}; let it finish first"):
        parallel.wait_for_all()
        yield checkpoint
    parallel.wait_for_all()
    shutil.rmtree(checkpoint, ignore_errors=True)


def checkpoint_key(manifest: Manifest, recipe: Recipe, parts: Iterable[str]) -> str:
    """What a checkpoint belongs to: the base model, the recipe, the prompt and the data."""
    return fingerprint([manifest.encoder["sha256"], repr(recipe), manifest.system, str(manifest.history), *parts])


def figures_of(recipe: Recipe, state: State, began: float) -> dict[str, Any]:
    """Training figures for the manifest. `seconds` includes the time before training was resumed."""
    return {
        "epochs": recipe.epochs, "batch": recipe.batch, "rank": recipe.rank, "rate_multiplier": recipe.rate_multiplier,
        "steps": state.step, "best_step": state.best_step, "resumed": state.resumed,
        "tuning_seconds": round(state.seconds, 1), "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of the packages that a model depends on."""
    return {package: version(package) for package in ("torch", "transformers", "peft")}
