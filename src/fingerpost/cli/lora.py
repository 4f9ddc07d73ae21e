"""`train --student lora`: a language model with an adapter, on labels, replies of several fields, or texts."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fingerpost.cli.console import next_step, say
from fingerpost.cli.evaluate import show_and_write
from fingerpost.cli.progress import showing_progress
from fingerpost.core.errors import InputError
from fingerpost.core.utils import require_extra
from fingerpost.core.verdicts import LabelsFrom
from fingerpost.data.chat import is_chat_file
from fingerpost.data.dialogues import read_dialogues
from fingerpost.data.rows import Columns
from fingerpost.labelled_file import train_on_file
from fingerpost.project import Project
from fingerpost.students.folder import Manifest
from fingerpost.task.reply_format import NoClassification
from fingerpost.task.reply_schema import schema_of_replies
from fingerpost.training.dataset import from_file, from_store
from fingerpost.training.train import LORA, train


@dataclass(frozen=True, slots=True)
class Tuning:
    """Options of the command; None where they were not given.

    Attributes:
        base: the base language model.
        vary_labels: train with changing codes and label lists.
        batch: replies that a step learns from.
        history: earlier turns of a conversation that a classifier reads.
    """

    base: str | None
    vary_labels: bool
    batch: int | None
    epochs: int | None
    seed: int | None
    history: int | None


def train_lora(
    file: Path | None,
    folder: Path,
    target: Path,
    use: LabelsFrom,
    columns: Columns,
    tuning: Tuning,
    test_share: float,
    json_file: Path | None,
    html: Path | None,
) -> None:
    """Train a language model on a file or a project, and show the result.

    Raises:
        MissingExtra: the extra `lora` is not installed.
        InputError: there is no base model, or the data cannot be used.
    """
    require_extra("lora", "training a language model")
    from fingerpost.students.lora import parallel

    if not parallel.is_first():  # the first process reports
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    settings = Project(folder).task.student if file is None else None
    base = tuning.base or (settings.base if settings else None)
    if base is None:
        raise InputError(
            "--student lora needs a base language model: give a GGUF file, a folder or a hub name with --base, such as "
            "--base HuggingFaceTB/SmolLM2-360M-Instruct"
        )
    if file is not None:
        try:
            data = from_file(file, columns, test_share)
        except NoClassification:
            _train_texts(file, target, base, tuning)
            return
        if data.task.multi and is_chat_file(file, columns):  # written as a list, because only single labels are scored
            _train_texts(file, target, base, tuning)
            return
    else:
        project = Project(folder)
        with project.store() as store:
            data = from_store(project.task, store, use, project.embed_for_consensus)
    history = tuning.history if tuning.history is not None else settings.history if settings else 2
    seed = tuning.seed if tuning.seed is not None else settings.seed if settings else 0
    options: dict[str, Any] = {
        "student": LORA, "base": base, "recipe": _recipe(tuning, seed, texts=False), "vary_labels": tuning.vary_labels,
        "history": history,
    }  # fmt: skip
    if not parallel.is_first():
        train(data, target, **options)
        return
    with showing_progress("train") as show:
        done = train_on_file(data, target, on_progress=show, **options)
    _show(
        target,
        done.manifest,
        f"{len(done.manifest.labels)} labels, dev accuracy {done.manifest.training['dev_accuracy']:.3f}",
    )
    if done.report is not None:
        show_and_write(done.report, json_file, html)
    next_step(f'fingerpost predict {target} "..."', f"fingerpost serve {target}", f"fingerpost export {target}")


def _train_texts(file: Path, target: Path, base: str, tuning: Tuning) -> None:
    """Train on the replies of chat JSONL that are no labels."""
    from fingerpost.students.lora import parallel
    from fingerpost.students.lora.train_text import fit_text

    dialogues = read_dialogues(file, least=2)
    schema = schema_of_replies([dialogue.reply for dialogue in dialogues])
    what = f"JSON of {len(schema['properties'])} fields" if schema else "texts"
    say(f"{file}: {len(dialogues):,} conversations, whose replies are {what}")
    with showing_progress("train") as show:
        manifest = fit_text(
            dialogues, [], target, base=base, recipe=_recipe(tuning, tuning.seed or 0, texts=True), reply_schema=schema,
            facts={"training": {"calls": any(dialogue.calls for dialogue in dialogues)}}, on_progress=show,
        )  # fmt: skip
    if not parallel.is_first():
        return
    training = manifest.training
    _show(
        target,
        manifest,
        f"loss on held-out replies {training['dev_loss']:.3f}, {training['base_dev_loss']:.3f} before training",
    )
    next_step(f"fingerpost serve {target}", f"fingerpost export {target}")


def _recipe(tuning: Tuning, seed: int, *, texts: bool) -> Any:
    from fingerpost.students.lora import train, train_text
    from fingerpost.students.lora.tuning import BATCH, PATIENCE, Recipe

    usual = train_text.EPOCHS if texts else train.EPOCHS
    patience = PATIENCE if tuning.epochs is None else None
    return Recipe(
        usual if tuning.epochs is None else tuning.epochs, batch=tuning.batch or BATCH, seed=seed, patience=patience
    )


def _show(target: Path, manifest: Manifest, measured: str) -> None:
    training = manifest.training
    size = sum(file.stat().st_size for file in target.iterdir()) / 1e6
    say(
        f"{target}: an adapter for {manifest.encoder['name']}, {training['train_rows']:,} training rows, {measured} "
        f"(n = {training['dev_rows']:,}), {size:.0f} MB, {training['tuning_seconds']:.0f} s"
    )
