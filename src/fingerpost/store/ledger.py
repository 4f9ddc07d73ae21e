"""The ledger of paid requests, which enforces the budget.

Before a request is sent, its maximum cost is reserved. When it is answered, the real cost replaces the reservation, in
the same transaction that stores the result. So the committed sum is never below what was spent: not with requests in
flight, not with several processes, and not after a process was killed. The reservations of a killed process stay
committed, because the provider may have charged for its requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from sqlalchemy import Engine, case, func, select, update

from fingerpost.core.types import Usage, Verdict
from fingerpost.store.engine import writing
from fingerpost.store.rows import insert_new, now, verdict_row
from fingerpost.store.tables import calls, drafts, ledger, verdicts

Outcome: TypeAlias = Literal["paid", "lost", "unsent"]
"""How a call ended: answered; interrupted (it may have been charged, so its reservation counts in full); not charged."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request about to be sent, and its maximum cost in US dollars."""

    step: str
    model: str
    at_most_usd: float


@dataclass(frozen=True, slots=True)
class WriterReply:
    """A writer model's reply to a draft."""

    draft_id: int
    raw: str | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a reserved call ended.

    Attributes:
        result: the verdict or reply of an answered call; stored in the same transaction.
    """

    call_id: int
    outcome: Outcome
    usage: Usage = field(default_factory=Usage)
    result: Verdict | WriterReply | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """Sums over all calls of a project.

    Attributes:
        calls: number of calls.
        committed_usd: US dollars spent or reserved.
        uncertain: number of calls that were interrupted or are in flight; their reservations count in full.
        uncertain_usd: US dollars reserved for them.
        cached_tokens: part of `prompt_tokens`.
    """

    calls: int
    committed_usd: float
    uncertain: int
    uncertain_usd: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class StepCost:
    """Sums over the calls of one step to one model.

    Attributes:
        batch: whether these calls went through the batch API.
        cached_tokens: part of `prompt_tokens`.
        latency_s: sum of all calls, in seconds.
    """

    step: str
    model: str
    batch: bool
    calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_usd: float
    latency_s: float


class Ledger:
    """The ledger of paid calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(
        self,
        settlements: Sequence[Settlement],
        requested: Sequence[Call],
        budget_usd: float | None,
        batch_id: int | None = None,
    ) -> list[int | None]:
        """Settle calls and reserve new ones, in one transaction. A call that is settled already does not change.

        Args:
            settlements: how earlier calls ended.
            requested: the calls to reserve.
            budget_usd: maximum of all that the project has ever spent or reserved, not of one run.
            batch_id: the batch that the requested calls belong to.

        Returns:
            The id of each requested call; None where it would exceed the budget.
        """
        with writing(self._engine) as connection:
            committed = connection.execute(select(ledger.c.committed_usd)).scalar_one()
            before = committed
            answered = []
            for settlement in settlements:
                usage, result = settlement.usage, settlement.result
                ending = update(calls).where(calls.c.id == settlement.call_id, calls.c.cost_usd.is_(None))
                values = {
                    "cost_usd": calls.c.reserved_usd if settlement.outcome == "lost" else _charge(settlement),
                    "outcome": settlement.outcome,
                    "prompt_tokens": usage.prompt,
                    "cached_tokens": usage.cached,
                    "completion_tokens": usage.completion,
                    "latency_s": usage.latency_s,
                }
                row = connection.execute(
                    ending.values(values).returning(calls.c.reserved_usd, calls.c.cost_usd)
                ).first()
                if row is None:
                    continue  # settled before
                committed += row.cost_usd - row.reserved_usd
                if isinstance(result, Verdict):
                    verdict = replace(result, usage=replace(usage, cost_usd=row.cost_usd))
                    answered.append(verdict_row(verdict, f"call:{settlement.call_id}"))
                elif result is not None:
                    draft = update(drafts).where(drafts.c.id == result.draft_id, drafts.c.answered.is_(False))
                    connection.execute(draft.values(raw=result.raw, answered=True))
            insert_new(connection, verdicts, answered)
            ids: list[int | None] = []
            for call in requested:
                if budget_usd is not None and not committed + call.at_most_usd <= budget_usd:  # NaN allows nothing
                    ids.append(None)
                    continue
                committed += call.at_most_usd
                new = {"step": call.step, "model": call.model, "reserved_usd": call.at_most_usd, "posted": batch_id}
                inserted = connection.execute(
                    calls.insert().values(new | {"outcome": "open", "at": now()}).returning(calls.c.id)
                )
                ids.append(inserted.scalar_one())
            if committed != before:
                connection.execute(update(ledger).values(committed_usd=max(0.0, committed)))
            return ids

    def release(self) -> tuple[int, float]:
        """Give back the reservations of calls that were interrupted, except those of a batch.

        The provider may have charged for them. Call it only while no process is asking the teacher.

        Returns:
            Their number and their sum in US dollars.
        """
        uncertain = (calls.c.outcome.in_(["open", "lost"]), calls.c.posted.is_(None))
        with writing(self._engine) as connection:
            query = select(func.count(), func.coalesce(func.sum(calls.c.reserved_usd), 0.0)).where(*uncertain)
            number, usd = connection.execute(query).one()
            connection.execute(update(calls).where(*uncertain).values(outcome="unsent", cost_usd=0.0))
            committed = connection.execute(select(ledger.c.committed_usd)).scalar_one()
            connection.execute(update(ledger).values(committed_usd=max(0.0, committed - usd)))
        return int(number), float(usd)

    def reserved(self, call_id: int) -> float:
        """The US dollars that were reserved for a call."""
        with self._engine.connect() as connection:
            return float(connection.execute(select(calls.c.reserved_usd).where(calls.c.id == call_id)).scalar_one())

    def account(self) -> Account:
        """Sums over all calls so far."""
        uncertain = calls.c.outcome.in_(["open", "lost"])
        with self._engine.connect() as connection:
            row = connection.execute(
                select(
                    func.count(),
                    func.coalesce(func.sum(case((uncertain, 1), else_=0)), 0),
                    func.coalesce(func.sum(case((uncertain, calls.c.reserved_usd), else_=0.0)), 0.0),
                    func.coalesce(func.sum(calls.c.prompt_tokens), 0),
                    func.coalesce(func.sum(calls.c.cached_tokens), 0),
                    func.coalesce(func.sum(calls.c.completion_tokens), 0),
                )
            ).one()
            committed = connection.execute(select(ledger.c.committed_usd)).scalar_one()
        return Account(row[0], committed, row[1], row[2], row[3], row[4], row[5])

    def step_costs(self) -> list[StepCost]:
        """The costs by step, model and use of the batch API; reservations of interrupted calls count in full."""
        batch = calls.c.posted.is_not(None)
        cost = func.coalesce(calls.c.cost_usd, calls.c.reserved_usd)
        sums = [calls.c.prompt_tokens, calls.c.cached_tokens, calls.c.completion_tokens, cost, calls.c.latency_s]
        query = select(
            calls.c.step, calls.c.model, batch, func.count(), *(func.coalesce(func.sum(column), 0) for column in sums)
        )
        query = query.where(calls.c.outcome != "unsent").group_by(calls.c.step, calls.c.model, batch)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(func.min(calls.c.id))).all()
        return [StepCost(row[0], row[1], bool(row[2]), *row[3:]) for row in rows]


def _charge(settlement: Settlement) -> float:
    """The cost of a settled call in US dollars; 0 where it was not charged."""
    return (settlement.usage.cost_usd or 0.0) if settlement.outcome == "paid" else 0.0
