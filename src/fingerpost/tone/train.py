"""Trains a model to write in a person's voice, and measures it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fingerpost.core.errors import InputError
from fingerpost.core.types import ProgressCallback, no_progress
from fingerpost.data.dialogues import Dialogue
from fingerpost.students.folder import Manifest, read_manifest
from fingerpost.tone.evaluate import ToneReport, dialogue_of, measure
from fingerpost.tone.general import own_answers
from fingerpost.tone.project import ToneProject
from fingerpost.tone.requests import Pair, pairs
from fingerpost.tone.texts import lint, read_texts

LEAST_PAIRS = 10


@dataclass(frozen=True)
class TonePairs:
    """The pairs of a project, divided: some train, some choose the epoch, some measure."""

    train: list[Pair]
    dev: list[Pair]
    test: list[Pair]


def divided(project: ToneProject) -> TonePairs:
    """The project's pairs, divided by their texts.

    Raises:
        InputError: there are fewer than LEAST_PAIRS.
    """
    texts, _ = lint(read_texts(project.texts), project.task.excluded_names)
    with project.store() as store:
        found = pairs(store, texts)
    if len(found) < LEAST_PAIRS:
        raise InputError(
            f"{len(found)} texts have a request, at least {LEAST_PAIRS} are needed; run 'fingerpost tone requests {project.folder}'"
        )
    test = [pair for pair in found if pair.text.split_hash < project.task.test_share]
    rest = [pair for pair in found if pair.text.split_hash >= project.task.test_share]
    dev = sorted(rest, key=lambda pair: pair.text.split_hash)[: max(1, len(rest) // 10)]
    return TonePairs([pair for pair in rest if pair not in dev], dev, test)


def untuned(base: str, folder: Path) -> Any:
    """A generative student with an untrained adapter: the base model itself."""
    from fingerpost import students
    from fingerpost.students.lora.train_text import write_base

    write_base(base, folder)
    return students.load(folder)


def train(project: ToneProject, *, on_progress: ProgressCallback = no_progress) -> Manifest:
    """Train the model of a project.

    Raises:
        InputError: there are too few pairs.
        ModelError: the base model cannot be loaded.
    """
    from fingerpost.students.lora.train_text import fit_text
    from fingerpost.students.lora.tuning import Recipe

    data, settings = divided(project), project.task.student
    mixed: list[Dialogue] = []
    with tempfile.TemporaryDirectory() as scratch:
        if settings.general_per_ten:
            base = untuned(project.base, Path(scratch) / "base")
            mixed, _ = own_answers(base, -(-settings.general_per_ten * len(data.train) // 10), on_progress)
            del base  # the trained model takes its place in memory
    instructions = project.task.instructions
    return fit_text(
        [*(dialogue_of(instructions, pair) for pair in data.train), *mixed],
        [dialogue_of(instructions, pair) for pair in data.dev],
        project.model, base=project.base, recipe=Recipe(settings.epochs, seed=settings.seed),
        facts={"system": instructions, "training": {"general_rows": len(mixed)}}, on_progress=on_progress,
    )  # fmt: skip


def evaluate(
    project: ToneProject, *, max_samples: int = 60, on_progress: ProgressCallback = no_progress
) -> tuple[ToneReport, Sequence[Pair]]:
    """Measure the trained model against the prompted base model; also returns the training pairs.

    Raises:
        InputError: there are too few test texts.
        ModelError: there is no trained model, or the base model cannot be loaded.
    """
    from fingerpost import students

    read_manifest(project.model)
    data = divided(project)
    with tempfile.TemporaryDirectory() as scratch:
        base = untuned(project.base, Path(scratch) / "base")
        _, general = own_answers(base, 0, on_progress)
        tuned = students.load(project.model)
        report = measure(
            base, tuned, project.task.instructions, data.test, data.train, general,
            max_samples=max_samples, seed=project.task.student.seed, on_progress=on_progress,
        )  # fmt: skip
    report.save(project.reports / "tone.json")
    return report, data.train
