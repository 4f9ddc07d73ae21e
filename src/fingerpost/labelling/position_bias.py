"""Does the teacher prefer some places of the label list to others?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from fingerpost.core.types import Verdict
from fingerpost.task.prompt import label_order
from fingerpost.task.settings import Task

PARTS = 4


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How a teacher's answers depend on where a label stands in the list.

    `questions` were asked in at least two orders; `changed` of them got different answers. `observed[i]` and
    `expected[i]` are the numbers of answers that name a label of the i-th quarter of the list: found, and to be
    expected if the same answers had nothing to do with the order they were given in.
    """

    questions: int
    changed: int
    observed: tuple[int, ...]
    expected: tuple[float, ...]


def position_bias(task: Task, orders: int, verdicts: Iterable[Verdict]) -> PositionBias:
    """Measured on the questions that one teacher answered in several label orders; the latest answer of each."""
    votes: dict[str, dict[int, str]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.label in task.names and verdict.order is not None and verdict.prompt is not None:
            votes[verdict.question_id][verdict.order] = str(verdict.label)
    several = [answers for answers in votes.values() if len(answers) > 1]
    asked = {order for answers in several for order in answers}
    part = {
        (order, name): place * PARTS // len(task.labels)
        for order in asked
        for place, name in enumerate(label_order(task, order, orders))
    }
    observed: Counter[int] = Counter()
    expected = [0.0] * PARTS
    for answers in several:
        for order, label in answers.items():
            observed[part[order, label]] += 1
            for other in answers:
                expected[part[other, label]] += 1 / len(answers)
    return PositionBias(
        questions=len(several),
        changed=sum(len(set(answers.values())) > 1 for answers in several),
        observed=tuple(observed[i] for i in range(PARTS)),
        expected=tuple(expected),
    )
