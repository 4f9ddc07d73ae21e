"""Chooses the cut-off of a cascade: the confidence from which on the student meets a target on dev rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from fingerpost.core.errors import InputError
from fingerpost.core.types import Question, Split
from fingerpost.core.verdicts import BULK, REVIEW, QuestionVerdicts
from fingerpost.store.project import Store
from fingerpost.students.cutoff import Cutoff, choose_cutoff, rows_needed
from fingerpost.students.folder import dev_answers
from fingerpost.task.settings import Task

Against: TypeAlias = Literal["human labels", "the teacher's answers", "its validation labels"]
"""The labels that a student's answers are compared with."""


MIN_UNSURE = 10
"""Rows below the cut-off with a human label and a teacher's answer, so that a warning says something."""


@dataclass(frozen=True, slots=True)
class CutoffChoice:
    """The confidence below which requests are forwarded to the teacher.

    Attributes:
        cutoff: None to forward nothing, `math.inf` to forward everything.
        found: the evidence from dev rows; None if the cut-off was given, or if no cut-off meets the target.
        against: the labels that the student's answers were compared with.
        rows: number of dev rows with a label, and of reviewed training rows.
        needed: where no cut-off was found, the rows that are needed at least.
        unsure: rows below the cut-off whose label and teacher's answer are known.
        student_right, teacher_right: of them, those that each of both has right.
    """

    cutoff: float | None = None
    found: Cutoff | None = None
    against: Against | Literal[""] = ""
    rows: int = 0
    needed: int | None = None
    unsure: int = 0
    student_right: int = 0
    teacher_right: int = 0

    @property
    def lowers_accuracy(self) -> bool:
        """Whether the teacher was right less often than the student where it would be asked."""
        return self.unsure >= MIN_UNSURE and self.teacher_right < self.student_right


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
    cross_validated: bool = False,
) -> CutoffChoice:
    """The lowest cut-off above which a model meets the target with a confidence of 95 %; see `choose_cutoff`.

    It is based on the model's answers to dev rows, which it gave before it was trained on them.

    Args:
        folder: the model folder.
        target: fraction of answers that must match the labels, from 0 to 1.
        against: what the labels are, for the description of the choice.
        labels: label by question id; default is the labels stored in the model folder.
        cross_validated: count training rows with a label, too, by the model's cross-validated answers.
    """
    answers = {answer.id: answer for answer in dev_answers(folder, cross_validated)}  # repeated texts count once
    if labels is None:
        labels = {answer.id: answer.label for answer in answers.values()}
    rows = [(answer, labels[key]) for key, answer in answers.items() if key in labels]
    found = choose_cutoff(
        [answer.confidence for answer, _ in rows], [answer.answer == label for answer, label in rows], target
    )
    cutoff = math.inf if found is None else found.value
    return CutoffChoice(cutoff, found, against, len(rows), None if found is not None else rows_needed(target))


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
        return _with_unsure(CutoffChoice(target.cutoff), task, store, folder, teacher)
    against: Against = "the teacher's answers" if target.accuracy is None else "human labels"
    fraction = target.agreement if target.accuracy is None else target.accuracy
    assert fraction is not None
    labels = dev_labels(task, store, against, teacher)
    by_humans = against == "human labels"
    choice = choose_for_folder(folder, fraction, against, labels, cross_validated=by_humans)
    return _with_unsure(choice, task, store, folder, teacher)


def _with_unsure(choice: CutoffChoice, task: Task, store: Store, folder: Path, teacher: str | None) -> CutoffChoice:
    """The choice, with how often student and teacher are right by human labels where the teacher would be asked.

    Reviews of training questions do not count here: the review queue selects what the teacher probably gets wrong.
    """
    if choice.cutoff is None:
        return choice
    answers = {answer.id: answer for answer in dev_answers(folder, cross_validated=True)}
    rows = [
        (answers[question.id].answer == label, guess == label)
        for question, verdicts in store.stream_labelled(task.answers, teacher or task.teacher_model, "train", "dev")
        if question.id in answers
        and answers[question.id].confidence < choice.cutoff
        and (label := _human_label(question, verdicts, (REVIEW, BULK))) is not None
        and (guess := verdicts.teacher_label) is not None
    ]
    return replace(
        choice,
        unsure=len(rows),
        student_right=sum(student for student, _ in rows),
        teacher_right=sum(guessed for _, guessed in rows),
    )


def describe_cutoff(choice: CutoffChoice, teacher: str, target: float | None) -> str:
    """One line that says which requests are forwarded to the teacher, and how often the others match.

    Args:
        teacher: the teacher's name.
        target: the required fraction of matching answers, if there is one.
    """
    if choice.cutoff == math.inf:
        required = f" {target:.1%}" if target is not None else ""
        missing = ""
        if choice.needed is not None and choice.needed > choice.rows:
            missing = f"; at least {choice.needed:,} are needed"
        remedy = "'fingerpost review --dev N' adds some" if choice.against == "human labels" else "add dev rows"
        return (
            f"{choice.rows:,} rows with {choice.against} do not show{required} agreement at any cut-off{missing}, so all "
            f"requests are forwarded to {teacher} ({remedy}, or lower the target)"
        )
    if choice.found is None:
        return f"requests with confidence below {choice.cutoff:.3f} are forwarded to {teacher}"
    found = choice.found
    return (
        f"requests with confidence below {choice.cutoff:.3f} are forwarded to {teacher}: {1 - found.coverage:.0%} of "
        f"{found.of} rows with {choice.against}; of the other {found.n}, {found.right} match {choice.against} (at least "
        f"{found.at_least:.1%} with 95 % confidence)"
    )


def dev_labels(task: Task, store: Store, against: Against, teacher: str | None = None) -> dict[str, str]:
    """The labels by question id: the teacher's of dev questions, or those of humans of dev and training questions.

    Labels that a human gave to a whole group do not count: there, the human agreed with the consensus that the student learnt.

    Args:
        teacher: the model whose answers are used; default is the task's teacher.
    """
    use: Literal["human", "teacher"] = "human" if against == "human labels" else "teacher"
    splits: tuple[Split, ...] = ("dev", "train") if use == "human" else ("dev",)
    found: dict[str, str] = {}
    for question, verdicts in store.stream_labelled(task.answers, teacher or task.teacher_model, *splits):
        label = _human_label(question, verdicts, (BULK,)) if use == "human" else verdicts.label("teacher")
        if label is not None:
            found[question.id] = label
    return found


def _human_label(question: Question, verdicts: QuestionVerdicts, left_out: Sequence[str]) -> str | None:
    """The human label of a question; of a training question, only if none of its labels has one of these origins."""
    origins = {verdict.origin for verdict in verdicts.valid if verdict.kind == "human"}
    return None if question.split == "train" and origins & set(left_out) else verdicts.label("human")
