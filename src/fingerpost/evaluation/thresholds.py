"""The cut-off of a model: from a target, and the dev rows that show whether the target is met."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from fingerpost.core.errors import InputError
from fingerpost.store.project import Store
from fingerpost.students.cutoff import Cutoff, choose_cutoff
from fingerpost.students.folder import dev_answers
from fingerpost.task.settings import Task

Against: TypeAlias = Literal["human labels", "the teacher's answers", "its validation labels"]


@dataclass(frozen=True, slots=True)
class CutoffChoice:
    """The confidence below which a model's requests go to the teacher.

    Attributes:
        cutoff: None where nothing goes to the teacher, `math.inf` where everything does.
        found: what the dev rows show of it; None where the cut-off was given, or where they show it for none.
        against: the labels that the dev rows were compared with.
        rows: number of dev rows.
    """

    cutoff: float | None = None
    found: Cutoff | None = None
    against: Against | Literal[""] = ""
    rows: int = 0


@dataclass(frozen=True, slots=True)
class CascadeTarget:
    """What the student's own answers must reach in a cascade; what they do not goes to the teacher. Give one of them.

    Attributes:
        accuracy: share of dev questions on which the student must match the human label.
        agreement: share of dev questions on which it must match the teacher's answer.
        cutoff: the confidence itself.
    """

    accuracy: float | None = None
    agreement: float | None = None
    cutoff: float | None = None


def choose_for_folder(
    folder: Path,
    target: float,
    against: Against = "its validation labels",
    labels: dict[str, str] | None = None,
) -> CutoffChoice:
    """The lowest cut-off above which a model meets the target, shown by its answers to dev rows.

    The answers are those that the model gave before it learnt from the rows.

    Args:
        folder: the model folder.
        target: share of dev rows on which the model must match, from 0 to 1.
        labels: label by question id; without it, the labels in the model's own validation rows.
    """
    answers = {answer.id: answer for answer in dev_answers(folder)}  # a text that comes twice counts once
    if labels is None:
        labels = {answer.id: answer.label for answer in answers.values()}
    rows = [(answer, labels[key]) for key, answer in answers.items() if key in labels]
    found = choose_cutoff(
        [answer.confidence for answer, _ in rows], [answer.answer == label for answer, label in rows], target
    )
    return CutoffChoice(math.inf if found is None else found.value, found, against, len(rows))


def choose_for_project(
    task: Task, store: Store, folder: Path, target: CascadeTarget, teacher: str | None = None
) -> CutoffChoice:
    """The cut-off of a project's model: the given one, or the one that the project's dev questions show.

    Args:
        teacher: the model whose answers count; the task's own by default.

    Raises:
        InputError: the target names none or several of accuracy, agreement and cut-off.
    """
    if sum(value is not None for value in (target.accuracy, target.agreement, target.cutoff)) != 1:
        raise InputError("give one of --accuracy, --agreement and --cutoff: each of them sets the cut-off")
    if target.cutoff is not None:
        return CutoffChoice(target.cutoff)
    against: Against = "the teacher's answers" if target.accuracy is None else "human labels"
    share = target.agreement if target.accuracy is None else target.accuracy
    assert share is not None
    return choose_for_folder(folder, share, against, dev_labels(task, store, against, teacher))


def describe_cutoff(choice: CutoffChoice, teacher: str, target: float | None) -> str:
    """One line on what goes to the teacher, and what dev rows show of the rest."""
    if choice.cutoff == math.inf:
        wanted = f" {target:.1%}" if target is not None else ""
        return (
            f"{choice.rows:,} dev rows do not show{wanted} agreement with {choice.against} on any part: "
            f"everything goes to {teacher} (more dev rows help, or a lower target)"
        )
    if choice.found is None:
        return f"below {choice.cutoff:.3f} goes to {teacher}"
    found = choice.found
    return (
        f"below {choice.cutoff:.3f} goes to {teacher}: on dev {1 - found.coverage:.0%} of {found.of}; the others match "
        f"{choice.against} on {found.right} of {found.n}, at least {found.at_least:.1%} with 95 % confidence"
    )


def dev_labels(task: Task, store: Store, against: Against, teacher: str | None = None) -> dict[str, str]:
    """The label of each dev question of a project by question id: the human one, or the teacher's."""
    use: Literal["human", "teacher"] = "human" if against == "human labels" else "teacher"
    labelled = store.labelled(task.names, teacher or task.teacher_model, "dev")
    return {question.id: label for question, verdicts in labelled if (label := verdicts.label(use))}
