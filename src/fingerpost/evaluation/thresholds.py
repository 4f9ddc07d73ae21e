"""Chooses the cut-off of a cascade: the confidence from which on the student meets a target on dev rows."""

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
"""The labels that a student's answers are compared with."""


@dataclass(frozen=True, slots=True)
class CutoffChoice:
    """The confidence below which requests are forwarded to the teacher.

    Attributes:
        cutoff: None to forward nothing, `math.inf` to forward everything.
        found: the evidence from dev rows; None if the cut-off was given, or if no cut-off meets the target.
        against: the labels that the student's answers were compared with.
        rows: number of dev rows.
    """

    cutoff: float | None = None
    found: Cutoff | None = None
    against: Against | Literal[""] = ""
    rows: int = 0


@dataclass(frozen=True, slots=True)
class CascadeTarget:
    """The target for the answers that the student gives itself in a cascade. Set exactly one attribute.

    Attributes:
        accuracy: fraction of answers that must match the human label.
        agreement: fraction of answers that must match the teacher's label.
        cutoff: the cut-off itself, a confidence from 0 to 1.
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
    """The lowest cut-off above which a model meets the target with a confidence of 95 %; see `choose_cutoff`.

    It is based on the model's answers to dev rows, which it gave before it was trained on them.

    Args:
        folder: the model folder.
        target: fraction of answers that must match the labels, from 0 to 1.
        against: what the labels are, for the description of the choice.
        labels: label by question id; default is the labels stored in the model folder.
    """
    answers = {answer.id: answer for answer in dev_answers(folder)}  # repeated texts count once
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
    """The cut-off of a project's model: the one in the target, or one chosen on the project's dev questions.

    Args:
        teacher: the model whose answers are used; default is the task's teacher.

    Raises:
        InputError: the target does not set exactly one of accuracy, agreement and cut-off.
    """
    if sum(value is not None for value in (target.accuracy, target.agreement, target.cutoff)) != 1:
        raise InputError("give one of --accuracy, --agreement and --cutoff, because each of them sets the cut-off")
    if target.cutoff is not None:
        return CutoffChoice(target.cutoff)
    against: Against = "the teacher's answers" if target.accuracy is None else "human labels"
    fraction = target.agreement if target.accuracy is None else target.accuracy
    assert fraction is not None
    return choose_for_folder(folder, fraction, against, dev_labels(task, store, against, teacher))


def describe_cutoff(choice: CutoffChoice, teacher: str, target: float | None) -> str:
    """One line that says which requests are forwarded to the teacher, and how often the others match.

    Args:
        teacher: the teacher's name.
        target: the required fraction of matching answers, if there is one.
    """
    if choice.cutoff == math.inf:
        required = f" {target:.1%}" if target is not None else ""
        return (
            f"{choice.rows:,} dev rows do not show{required} agreement with {choice.against} at any cut-off; all requests "
            f"are forwarded to {teacher} (add dev rows or lower the target)"
        )
    if choice.found is None:
        return f"requests with confidence below {choice.cutoff:.3f} are forwarded to {teacher}"
    found = choice.found
    return (
        f"requests with confidence below {choice.cutoff:.3f} are forwarded to {teacher}: {1 - found.coverage:.0%} of "
        f"{found.of} dev rows; of the other {found.n}, {found.right} match {choice.against} (at least "
        f"{found.at_least:.1%} with 95 % confidence)"
    )


def dev_labels(task: Task, store: Store, against: Against, teacher: str | None = None) -> dict[str, str]:
    """The labels of a project's dev questions by question id, from humans or from the teacher.

    Args:
        teacher: the model whose answers are used; default is the task's teacher.
    """
    use: Literal["human", "teacher"] = "human" if against == "human labels" else "teacher"
    labelled = store.labelled(task.answers, teacher or task.teacher_model, "dev")
    return {question.id: label for question, verdicts in labelled if (label := verdicts.label(use))}
