"""Measures whether the teacher prefers some positions of the label list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

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


def position_bias(task: Task, orders: int, answered: Iterable[Sequence[Verdict]]) -> PositionBias:
    """Compare the answers to the same question in different label orders.

    Args:
        orders: number of label orders that the task uses.
        answered: one teacher's verdicts on each question, oldest first. Of several in one order, the latest counts.
    """
    questions = changed = 0
    observed: Counter[int] = Counter()
    expected = [0.0] * QUARTERS

    @cache
    def quarter_of(order: int) -> dict[str, int]:
        names = label_order(task, order, orders)
        return {name: position * QUARTERS // len(task.labels) for position, name in enumerate(names)}

    for verdicts in answered:
        by_order = {
            verdict.order: str(verdict.label)
            for verdict in verdicts
            if verdict.label in task.answers and verdict.order is not None and verdict.prompt is not None
        }
        if len(by_order) < 2:
            continue
        questions += 1
        changed += len(set(by_order.values())) > 1
        for order, answer in by_order.items():
            for label in task.labels_in(answer):
                observed[quarter_of(order)[label]] += 1
                for other in by_order:
                    expected[quarter_of(other)[label]] += 1 / len(by_order)
    return PositionBias(questions, changed, tuple(observed[i] for i in range(QUARTERS)), tuple(expected))
