"""Exports chat JSONL for fine-tuning elsewhere, with the prompt that the teacher was asked with."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fingerpost.core.errors import InputError
from fingerpost.core.types import Question
from fingerpost.core.verdicts import LabelsFrom
from fingerpost.store.project import Store
from fingerpost.task.prompt import training_line
from fingerpost.task.settings import Task


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export.

    Attributes:
        train, validation: number of rows in each file.
        train_tokens: tokens of the training file, for one epoch.
        counted: how the tokens were counted.
    """

    train: int
    validation: int
    train_tokens: int
    counted: str


def export(
    task: Task,
    store: Store,
    train_file: Path,
    validation_file: Path,
    *,
    validation_fraction: float = 0.2,
    use: LabelsFrom = "best",
    seed: int = 0,
) -> Exported:
    """Write the labelled train and dev questions as chat JSONL.

    Test questions are not exported, because a model that is trained on them cannot be evaluated on them. Labels with an
    application code appear by their code in the prompt and the replies.

    Args:
        validation_fraction: fraction of each label's rows in the validation file; groups of similar questions are not
            split.
        use: whose labels to use.
        seed: seed of the choice of validation rows.

    Raises:
        InputError: no question has a label, or the folder of a file does not exist.
    """
    for file in (train_file, validation_file):
        if not file.parent.is_dir():
            raise InputError(f"there is no folder {file.parent}; create it first")
    labelled = [
        (question, label)
        for question, verdicts in store.labelled(task.answers, task.teacher_model, "train", "dev")
        if (label := verdicts.label(use))
    ]
    if not labelled:
        raise InputError("no question of train or dev has a label yet; run 'fingerpost label', or import labels")
    validation_groups = _validation_groups(labelled, validation_fraction, seed)
    train_lines: list[str] = []
    validation_lines: list[str] = []
    for question, label in labelled:
        lines = validation_lines if question.group in validation_groups else train_lines
        lines.append(training_line(task, question.messages, label))
    for file, lines in ((train_file, train_lines), (validation_file, validation_lines)):
        file.write_text("".join(lines), encoding="utf-8")
    tokens, counted = count_tokens(train_lines)
    return Exported(len(train_lines), len(validation_lines), tokens, counted)


def count_tokens(texts: list[str]) -> tuple[int, str]:
    """The number of tokens of the texts, and how they were counted.

    Exact for the encoding o200k_base with the extra `tokens`, else estimated at four bytes per token.
    """
    if find_spec("bpe_openai") is None:
        return round(sum(len(text.encode()) for text in texts) / 4), "estimated at 4 bytes per token"
    import bpe_openai

    encoding = bpe_openai.get_encoding("o200k_base")
    return sum(len(encoding.encode_ordinary(text)) for text in texts), "o200k_base"


def _validation_groups(labelled: list[tuple[Question, str]], fraction: float, seed: int) -> set[str]:
    """Choose groups for validation so that each label has about the same fraction of rows in them.

    A group counts for the label of its first question.
    """
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    label_of: dict[str, str] = {}
    for question, label in labelled:
        sizes = groups[label_of.setdefault(question.group, label)]
        sizes[question.group] = sizes.get(question.group, 0) + 1
    chosen: set[str] = set()
    missing = 0.0  # validation rows still to choose; what one label lacks, the next one adds
    for label in sorted(groups):
        order = sorted(groups[label])
        random.Random(f"{seed}/{label}").shuffle(order)
        missing += fraction * sum(groups[label].values())
        for group in order:
            if groups[label][group] <= missing + 0.5:
                chosen.add(group)
                missing -= groups[label][group]
            if missing < 0.5:
                break
    return chosen
