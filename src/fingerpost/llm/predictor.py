"""A predictor that sends each conversation to a chat endpoint, with concurrent requests within its rate limits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from fingerpost.core.errors import BudgetError, TeacherError
from fingerpost.core.predictor import BasePredictor
from fingerpost.core.types import Conversation, Prediction
from fingerpost.core.utils import run_async
from fingerpost.llm import prices
from fingerpost.llm.client import ChatModel
from fingerpost.llm.completion import Chat, Reply, RequestLost, Schema, request_bytes, usage_with_cost
from fingerpost.store.ledger import Call, Ledger, Settlement
from fingerpost.task.replies import label_probabilities, parse
from fingerpost.task.settings import Task, TeacherSettings

STEP = "predict"
LOST_ATTEMPTS = 3

Render: TypeAlias = Callable[[Conversation], tuple[Chat, Schema | None]]
"""Turns a conversation into the chat messages that ask for a label, and the JSON schema of the reply."""


class ChatPredictor(BasePredictor):
    """Predicts labels by asking a language model.

    The confidence is the probability of the reply's tokens if the endpoint returns log-probabilities, else NaN.

    Args:
        name: the model's name in reports.
        manifest: the model's `fingerpost.students.folder.Manifest`.
        task: the task whose labels and answer field are used to parse replies.
        settings: endpoint, model and limits.
        folder: the folder that a recording named in the settings is relative to.
        render: turns a conversation into a request.
        ledger: records calls and their costs; without it there is no record and no budget limit.
        budget_usd: limit in US dollars on the total of the ledger.
    """

    def __init__(
        self,
        name: str,
        manifest: Any,
        task: Task,
        settings: TeacherSettings,
        folder: Path,
        render: Render,
        ledger: Ledger | None = None,
        budget_usd: float | None = None,
    ) -> None:
        self.name, self.manifest, self.labels = name, manifest, task.names
        self._task, self._settings, self._folder, self._render = task, settings, folder, render
        self._ledger, self._budget = ledger, budget_usd

    def _predict(self, conversations: Sequence[Conversation]) -> list[Prediction]:
        """One prediction for each conversation, in order; the label is None if the reply names none.

        Raises:
            TeacherError: the endpoint cannot be reached, refuses the request, or repeatedly does not answer it.
            BudgetError: the next request could exceed the budget.
        """
        return run_async(self._answers(conversations)) if conversations else []

    async def _answers(self, conversations: Sequence[Conversation]) -> list[Prediction]:
        slots = asyncio.Semaphore(self._settings.concurrency)
        async with ChatModel(self._settings, self._folder) as model:

            async def answer(messages: Conversation) -> Prediction:
                async with slots:
                    return await self._answer(model, *self._render(messages))

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_catch_errors(answer(messages))) for messages in conversations]
        for task in tasks:
            if isinstance(found := task.result(), TeacherError | BudgetError):
                raise found
        return [found for task in tasks if isinstance(found := task.result(), Prediction)]

    async def _answer(self, model: ChatModel, messages: Chat, schema: Schema | None) -> Prediction:
        for attempt in range(1, LOST_ATTEMPTS + 1):
            call = await self._reserve(messages, schema)
            settlement = Settlement(call or 0, "lost")
            try:
                reply = await model.ask(messages, schema)
                usage = usage_with_cost(self._settings, reply, 0.0) if self._has_price else reply.usage
                settlement = Settlement(call or 0, "paid", usage)
            except RequestLost as error:
                if attempt == LOST_ATTEMPTS:
                    raise TeacherError(
                        f"{model.where} did not answer {attempt} times ({error}); try again later or raise timeout_s"
                    ) from None
                continue
            except TeacherError:
                settlement = Settlement(call or 0, "unsent")
                raise
            finally:
                if self._ledger is not None:
                    await asyncio.to_thread(self._ledger.record, [settlement], [], self._budget)
            return self._prediction(reply, settlement)
        raise AssertionError("unreachable")

    @property
    def _has_price(self) -> bool:
        """Whether the model's price is known. With a ledger it must be.

        Raises:
            TeacherError: there is a ledger, but the price is not known.
        """
        try:
            prices.at_most(self._settings, 1)
        except TeacherError:
            if self._ledger is not None:
                raise
            return False
        return True

    async def _reserve(self, messages: Chat, schema: Schema | None) -> int | None:
        if self._ledger is None:
            return None
        at_most = prices.at_most(self._settings, request_bytes(messages, schema))
        call = Call(STEP, self._settings.model, at_most)
        (number,) = await asyncio.to_thread(self._ledger.record, [], [call], self._budget)
        if not isinstance(number, int):
            raise BudgetError(
                f"the next request could exceed the budget of ${self._budget:g}; raise the budget to continue"
            )
        return number

    def _prediction(self, reply: Reply, settlement: Settlement) -> Prediction:
        label = parse(self._task, reply.text)
        confidence = math.nan if reply.logprob is None else math.exp(min(0.0, reply.logprob))
        multi = self._task.multi
        shares = label_probabilities(self._task, reply.probabilities)
        if shares is not None:
            return Prediction(label, confidence, shares, self.name, settlement.usage)
        scores = {label: confidence} if label is not None and reply.logprob is not None and not multi else {}
        return Prediction(label, confidence, scores, self.name, settlement.usage, multi=multi)


async def _catch_errors(prediction: Any) -> Prediction | TeacherError | BudgetError:
    """Await a prediction and return its error as a result, so that callers do not get an exception group."""
    try:
        found: Prediction = await prediction
    except (TeacherError, BudgetError) as error:
        return error
    return found
