"""Whose label counts: the one owner of that rule.

Training data, exports, test rows, label quality, cut-offs, generation and descriptions all ask `QuestionVerdicts`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from fingerpost.core.label_sets import includes
from fingerpost.core.types import Question, Verdict

LabelsFrom: TypeAlias = Literal["consensus", "best", "teacher", "human"]
"""`best`: human labels, and the teacher's where no human has decided. `consensus`: also what human labels imply for
similar questions."""
REVIEW, BULK = "review", "bulk"
"""Origins of verdicts from the review queue, and of those given to a whole group of questions."""
WITH_EXAMPLES = "examples"
"""Origin of a teacher's verdicts that were asked for with reviewed questions as examples."""
WITHDRAWN = "withdrawn"
"""Origin of a verdict that takes back those with the same author and mark on the same question."""


def active(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The latest verdict of each author, oldest first; of a teacher, the latest of each label order.

    Of a human, the latest that was not taken back counts, including "no label fits". Of a teacher, the latest that names
    a label counts: a reply without a label is no verdict.
    """
    taken_back = {(verdict.by, verdict.mark) for verdict in verdicts if verdict.origin == WITHDRAWN}
    found: dict[tuple[str, str, int | None], Verdict] = {}
    for verdict in verdicts:
        key = (verdict.kind, verdict.by, verdict.order)
        if verdict.kind == "human":
            if verdict.origin == WITHDRAWN or (verdict.mark is not None and (verdict.by, verdict.mark) in taken_back):
                continue
        elif verdict.label is None:
            continue
        found.pop(key, None)
        found[key] = verdict
    return list(found.values())


class QuestionVerdicts:
    """The verdicts on one question that count, for a task with these labels.

    Args:
        verdicts: all verdicts on the question, oldest first.
        labels: the task's possible answers. Verdicts that give another one do not count.
        teacher: the model whose answers count alone where it has answered; without it, all teachers count.

    Attributes:
        valid: the active verdicts that name one of the labels, or are a human's "no label fits".
    """

    __slots__ = ("_labels", "_teacher", "valid")

    def __init__(self, verdicts: Sequence[Verdict], labels: Container[str], teacher: str | None = None) -> None:
        self.valid = [
            _with_known_labels(verdict, labels)
            for verdict in active(verdicts)
            if verdict.label is None or verdict.label in labels
        ]
        self._labels, self._teacher = labels, teacher

    @property
    def human(self) -> list[Verdict]:
        """The humans' verdicts."""
        return [verdict for verdict in self.valid if verdict.kind == "human"]

    @property
    def none_fits(self) -> bool:
        """Whether at least half of the humans who decided say that no label fits."""
        human = self.human
        return bool(human) and 2 * sum(verdict.label is None for verdict in human) >= len(human)

    @property
    def disputed(self) -> bool:
        """Whether this is an undecided border case of `generate`: the teacher gives a label it was not written for."""
        intended = {str(verdict.label) for verdict in self.valid if verdict.kind == "writer"}
        if not intended or self.human:
            return False
        answer = self.teacher_label
        return answer is not None and not any(includes(self._labels, label, answer) for label in intended)

    @property
    def teacher_label(self) -> str | None:
        """The label that most of the teacher's answers name, whatever humans say."""
        return _top(self.votes("teacher"))

    def votes(self, use: LabelsFrom = "best") -> dict[str, float] | None:
        """The share of each label among the verdicts of `use`, or None where none names a label. Nothing is excluded."""
        human = [verdict for verdict in self.human if verdict.label is not None]
        teachers = [verdict for verdict in self.valid if verdict.kind == "teacher"]
        teachers = [verdict for verdict in teachers if verdict.by == self._teacher] or teachers
        counted = {"human": human, "teacher": teachers}.get(use, human or teachers)
        found: dict[str, float] = {}
        for verdict in counted:
            for label, share in verdict.label_shares.items():
                found[label] = found.get(label, 0.0) + share / len(counted)
        return found or None

    def label_distribution(self, use: LabelsFrom = "best") -> dict[str, float] | None:
        """The label that may be learnt from or measured against, as a probability per label.

        None where there is none: no verdict names a label, the question is disputed, or, unless only the teacher
        counts, humans say that no label fits.
        """
        if self.disputed or (use != "teacher" and self.none_fits):
            return None
        return self.votes(use)

    def label(self, use: LabelsFrom = "best") -> str | None:
        """The most probable label of `label_distribution`."""
        return _top(self.label_distribution(use))


def by_question(
    questions: Iterable[Question],
    verdicts: Mapping[str, Sequence[Verdict]],
    labels: Container[str],
    teacher: str | None = None,
) -> dict[str, QuestionVerdicts]:
    """The verdicts that count on each question, by question id; questions without verdicts are included."""
    return {question.id: QuestionVerdicts(verdicts.get(question.id, ()), labels, teacher) for question in questions}


def _with_known_labels(verdict: Verdict, labels: Container[str]) -> Verdict:
    """The verdict without the probabilities of labels that the task no longer has."""
    given = verdict.probabilities
    if given is None or all(label in labels for label in given):
        return verdict
    known = {label: share for label, share in given.items() if label in labels}
    total = sum(known.values())
    return replace(verdict, probabilities={label: share / total for label, share in known.items()} if total else None)


def _top(distribution: Mapping[str, float] | None) -> str | None:
    return max(distribution, key=distribution.__getitem__) if distribution else None
