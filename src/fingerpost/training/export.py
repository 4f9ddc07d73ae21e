"""Chat JSONL for fine-tuning anywhere: system, user, assistant, in the words that the teacher was asked in."""

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
    """Rows written to each file, their tokens for one epoch, and how those were counted."""

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
    """Write the labelled questions of train and dev, `validation_fraction` of each label's to validation, groups kept whole.

    Test questions are not exported: a model that is tuned on them could not be measured. Where labels have codes
    of the application's own, these stand in the prompt and the replies.

    Raises:
        InputError: nothing is labelled, or the folder is not there.
    """
    for file in (train_file, validation_file):
        if not file.parent.is_dir():
            raise InputError(f"there is no folder {file.parent}; make it first")
    labelled = [
        (question, label)
        for question, verdicts in store.labelled(task.names, task.teacher_model, "train", "dev")
        if (label := verdicts.label(use))
    ]
    if not labelled:
        raise InputError("no question of train or dev has a label yet; run 'fingerpost label', or import labels")
    held_out = _held_out(labelled, validation_fraction, seed)
    sides: dict[bool, list[str]] = {True: [], False: []}
    for question, label in labelled:
        sides[question.group in held_out].append(training_line(task, question.messages, label))
    for file, lines in ((train_file, sides[False]), (validation_file, sides[True])):
        file.write_text("".join(lines), encoding="utf-8")
    tokens, counted = count_tokens(sides[False])
    return Exported(len(sides[False]), len(sides[True]), tokens, counted)


def count_tokens(texts: list[str]) -> tuple[int, str]:
    """Tokens of the texts and how they were counted: exactly with the extra `tokens`, else four bytes a token."""
    if find_spec("bpe_openai") is None:
        return round(sum(len(text.encode()) for text in texts) / 4), "estimated, 4 bytes a token"
    import bpe_openai

    encoding = bpe_openai.get_encoding("o200k_base")
    return sum(len(encoding.encode_ordinary(text)) for text in texts), "o200k_base"


def _held_out(labelled: list[tuple[Question, str]], fraction: float, seed: int) -> set[str]:
    """Groups for validation: of each label (a group has that of its first question) the same share of rows."""
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    label_of: dict[str, str] = {}
    for question, label in labelled:
        mine = groups[label_of.setdefault(question.group, label)]
        mine[question.group] = mine.get(question.group, 0) + 1
    chosen: set[str] = set()
    owed = 0.0
    for label in sorted(groups):
        order = sorted(groups[label])
        random.Random(f"{seed}/{label}").shuffle(order)
        owed += fraction * sum(groups[label].values())
        for group in order:
            if groups[label][group] <= owed + 0.5:
                chosen.add(group)
                owed -= groups[label][group]
            if owed < 0.5:
                break
    return chosen
