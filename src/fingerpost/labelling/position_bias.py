"""Measures whether the teacher prefers some positions of the label list."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from fingerpost.core.types import Verdict
from fingerpost.task.prompt import label_order
from fingerpost.task.settings import Task

QUARTERS = 4


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How a teacher's answers depend on the position of a label in the list.

    Attributes:
        questions: number of questions that were answered in at least two label orders.
        changed: how many of them got different answers.
        observed: number of answers that name a label in the i-th quarter of the list.
        expected: the same number if the answers did not depend on the order.
    """

    questions: int
    changed: int
    observed: tuple[int, ...]
    expected: tuple[float, ...]


def position_bias(task: Task, orders: int, verdicts: Iterable[Verdict]) -> PositionBias:
    """Compare the answers to the same question in different label orders.

    Args:
        orders: number of label orders that the task uses.
        verdicts: of one teacher, oldest first. Of several in one order, the latest counts.
    """
    answers: dict[str, dict[int, str]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.label in task.answers and verdict.order is not None and verdict.prompt is not None:
            answers[verdict.question_id][verdict.order] = str(verdict.label)
    compared = [by_order for by_order in answers.values() if len(by_order) > 1]
    used = {order for by_order in compared for order in by_order}
    quarter = {
        (order, name): position * QUARTERS // len(task.labels)
        for order in used
        for position, name in enumerate(label_order(task, order, orders))
    }
    observed: Counter[int] = Counter()
    expected = [0.0] * QUARTERS
    for by_order in compared:
        for order, answer in by_order.items():
            for label in task.labels_in(answer):
                observed[quarter[order, label]] += 1
                for other in by_order:
                    expected[quarter[other, label]] += 1 / len(by_order)
    return PositionBias(
        questions=len(compared),
        changed=sum(len(set(by_order.values())) > 1 for by_order in compared),
        observed=tuple(observed[i] for i in range(QUARTERS)),
        expected=tuple(expected),
    )
