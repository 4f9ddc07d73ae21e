"""The task's teacher as a predictor that sends requests."""

from __future__ import annotations

from pathlib import Path

from fingerpost.core.text import question_id
from fingerpost.core.types import Conversation
from fingerpost.labelling.requests import label_request, order_count
from fingerpost.llm.completion import Chat, Schema
from fingerpost.llm.predictor import ChatPredictor
from fingerpost.llm.requests import teacher_of
from fingerpost.store.ledger import Ledger
from fingerpost.students.folder import manifest_of
from fingerpost.task.prompt import label_order, order_number
from fingerpost.task.settings import Task


class LiveTeacher(ChatPredictor):
    """Predicts with the task's teacher, using the prompt and the label orders of `fingerpost label`.

    Args:
        folder: the project's folder, which a recording is relative to.
        ledger: records calls and their costs; without it there is no budget limit.
        budget_usd: limit in US dollars on the total of the ledger.

    Raises:
        TaskError: the task has no teacher.
    """

    def __init__(self, task: Task, folder: Path, ledger: Ledger | None = None, budget_usd: float | None = None) -> None:
        settings, count = teacher_of(task), order_count(task)
        orders = [label_order(task, number, count) for number in range(count)]

        def request(messages: Conversation) -> tuple[Chat, Schema]:
            return label_request(task, messages, orders[order_number(question_id(messages), 0, count)])

        manifest = manifest_of("teacher", settings.model, task)
        super().__init__(settings.model, manifest, task, settings, folder, request, ledger, budget_usd)
