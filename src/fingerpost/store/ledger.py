"""The ledger of paid requests, which enforces the budget and leases what is asked.

Before a request is sent, its maximum cost is reserved. When it is answered, the real cost replaces the reservation, in
the same transaction that stores the result. So the committed sum is never below what was spent: not with requests in
flight, not with several processes, and not after a process was killed. The reservations of a killed process stay
committed, because the provider may have charged for its requests.

A reservation is also a lease: as long as its process lives and the call is open, no other process gets one for a call
with the same key. So several processes share the work, and none asks what another one is asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from sqlalchemy import ColumnElement, Connection, Engine, case, func, select, update

from fingerpost.core.types import Usage, Verdict
from fingerpost.core.utils import chunks
from fingerpost.store.engine import writing
from fingerpost.store.holders import LeaseHolders
from fingerpost.store.rows import insert_new, now, verdict_row
from fingerpost.store.tables import calls, drafts, ledger, posted, verdicts

Outcome: TypeAlias = Literal["paid", "lost", "unsent"]
"""How a call ended: answered; interrupted (it may have been charged, so its reservation counts in full); not charged."""
Refusal: TypeAlias = Literal["budget", "answered", "leased"]
"""Why a call is not reserved: it would exceed the budget; the same was answered since the plan, or is in a batch at the
provider; another process is asking it."""
CHUNK = 500
"""Calls that are updated by one statement."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request about to be sent.

    Attributes:
        at_most_usd: its maximum cost in US dollars.
        key: equal for requests that ask the same of the same model; None for requests that may be repeated at any time.
        planned_at: `Ledger.settled` when the request was planned.
    """

    step: str
    model: str
    at_most_usd: float
    key: str | None = None
    planned_at: int = 0


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
        idempotent: the provider charges once for all calls with this call's key, so that the reservations of interrupted
            ones are given back.
    """

    call_id: int
    outcome: Outcome
    usage: Usage = field(default_factory=Usage)
    result: Verdict | WriterReply | None = None
    idempotent: bool = False


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
    """The ledger of paid calls.

    Args:
        holders: the processes that use the database.
    """

    def __init__(self, engine: Engine, holders: LeaseHolders) -> None:
        self._engine, self._holders = engine, holders

    def record(
        self,
        settlements: Sequence[Settlement],
        requested: Sequence[Call],
        budget_usd: float | None,
        batch_id: int | None = None,
    ) -> list[int | Refusal]:
        """Settle calls and reserve new ones, in one transaction. A call that is settled already does not change.

        Args:
            settlements: how earlier calls ended.
            requested: the calls to reserve.
            budget_usd: maximum of all that the project has ever spent or reserved, not of one run.
            batch_id: the batch that the requested calls belong to.

        Returns:
            The id of each requested call, or why it may not be sent.
        """
        with writing(self._engine) as connection:
            before, number = connection.execute(select(ledger.c.committed_usd, ledger.c.settled)).one()
            committed = before + self._settle(connection, settlements, number + 1)
            taken = self._taken(connection, requested)
            ids: list[int | Refusal] = []
            for call in requested:
                if call.key in taken:
                    ids.append(taken[call.key])
                    continue
                if budget_usd is not None and not committed + call.at_most_usd <= budget_usd:  # NaN allows nothing
                    ids.append("budget")
                    continue
                committed += call.at_most_usd
                new = {"step": call.step, "model": call.model, "reserved_usd": call.at_most_usd, "posted": batch_id}
                new |= {"key": call.key, "holder": self._holders.own_id, "outcome": "open", "at": now()}
                ids.append(connection.execute(calls.insert().values(new).returning(calls.c.id)).scalar_one())
                if call.key is not None:
                    taken[call.key] = "leased"
            changes = {"settled": number + len(settlements), "committed_usd": max(0.0, committed)}
            if committed != before or settlements:
                connection.execute(update(ledger).values(changes))
            return ids

    def _settle(self, connection: Connection, settlements: Sequence[Settlement], first: int) -> float:
        """Settle calls, numbered from `first`, and store their results; returns the change of what is committed."""
        change = 0.0
        answered = []
        for number, settlement in enumerate(settlements, first):
            usage, result = settlement.usage, settlement.result
            ending = update(calls).where(calls.c.id == settlement.call_id, calls.c.cost_usd.is_(None))
            values = {
                "cost_usd": calls.c.reserved_usd if settlement.outcome == "lost" else _charge(settlement),
                "outcome": settlement.outcome,
                "prompt_tokens": usage.prompt,
                "cached_tokens": usage.cached,
                "completion_tokens": usage.completion,
                "latency_s": usage.latency_s,
                "settled": number,
            }
            row = connection.execute(
                ending.values(values).returning(calls.c.reserved_usd, calls.c.cost_usd, calls.c.key)
            ).first()
            if row is None:
                continue  # settled before
            change += row.cost_usd - row.reserved_usd
            if settlement.idempotent and row.key is not None:
                change -= self._uncharge(connection, calls.c.key == row.key)[1]
            if isinstance(result, Verdict):
                verdict = replace(result, usage=replace(usage, cost_usd=row.cost_usd))
                answered.append(verdict_row(verdict, f"call:{settlement.call_id}"))
            elif result is not None:
                draft = update(drafts).where(drafts.c.id == result.draft_id, drafts.c.answered.is_(False))
                connection.execute(draft.values(raw=result.raw, answered=True))
        insert_new(connection, verdicts, answered)
        return change

    def _taken(self, connection: Connection, requested: Sequence[Call]) -> dict[str | None, Refusal]:
        """Why the requested calls with these keys may not be sent."""
        planned = {call.key: call.planned_at for call in requested if call.key is not None}
        if not planned:
            return {}
        query = select(calls.c.key, calls.c.outcome, calls.c.holder, calls.c.settled, posted.c.state)
        query = query.outerjoin(posted, posted.c.id == calls.c.posted)
        query = query.where(calls.c.key.in_(planned), calls.c.outcome.in_(["open", "paid"]))
        taken: dict[str | None, Refusal] = {}
        for row in connection.execute(query).all():
            pending_batch_requests = row.outcome == "open" and row.state in ("creating", "out", "short")
            if pending_batch_requests or (row.outcome == "paid" and (row.settled or 0) > planned[row.key]):
                taken[row.key] = "answered"
            elif row.outcome == "open" and self._is_alive(row.holder):
                taken.setdefault(row.key, "leased")
        return taken

    def _is_alive(self, holder: str | None) -> bool:
        return holder is not None and self._holders.is_alive(holder)

    @property
    def settled(self) -> int:
        """How many calls were settled so far: a point in the ledger's time."""
        with self._engine.connect() as connection:
            return int(connection.execute(select(ledger.c.settled)).scalar_one())

    def times_answered(self, key: str) -> int:
        """How many calls with this key were answered so far."""
        query = select(func.count()).where(calls.c.key == key, calls.c.outcome == "paid")
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def release(self) -> tuple[int, float]:
        """Give back the reservations of interrupted calls, except those of batches and of processes that still run.

        The provider may have charged for them.

        Returns:
            Their number and their sum in US dollars.
        """
        with writing(self._engine) as connection:
            number, usd = self._uncharge(connection)
            committed = connection.execute(select(ledger.c.committed_usd)).scalar_one()
            connection.execute(update(ledger).values(committed_usd=max(0.0, committed - usd)))
        return number, usd

    def _uncharge(self, connection: Connection, *which: ColumnElement[bool]) -> tuple[int, float]:
        """Settle interrupted calls as not charged; returns their number and the sum of their reservations."""
        query = select(calls.c.id, calls.c.holder, calls.c.outcome, calls.c.reserved_usd)
        query = query.where(calls.c.outcome.in_(["open", "lost"]), calls.c.posted.is_(None), *which)
        rows = connection.execute(query).all()
        alive = {holder: self._is_alive(holder) for holder in {row.holder for row in rows if row.outcome == "open"}}
        ended = [row for row in rows if row.outcome == "lost" or not alive[row.holder]]
        for part in chunks(ended, CHUNK):
            ids = [row.id for row in part]
            connection.execute(update(calls).where(calls.c.id.in_(ids)).values(outcome="unsent", cost_usd=0.0))
        return len(ended), sum(row.reserved_usd for row in ended)

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
