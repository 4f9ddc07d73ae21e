"""What was paid, and the cap that holds whatever happens.

Before a request is sent, the most that it can cost is reserved; when it is answered, the reservation becomes
the real cost in the same transaction that stores the verdict. So at any moment the committed sum is at least
what was spent: with requests in flight, several processes, or a process that was killed (its open reservations
stay committed, as the provider may have charged for them).
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
"""How a call ended: answered; cut off (it may have been charged, so it counts in full); never charged."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request about to be sent, and the most it can cost in US dollars."""

    step: str
    model: str
    at_most_usd: float


@dataclass(frozen=True, slots=True)
class Written:
    """A writer's reply to a draft."""

    draft_id: int
    raw: str | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a reserved call ended. Of an answered one, what came of it is stored with it."""

    call_id: int
    outcome: Outcome
    usage: Usage = field(default_factory=Usage)
    kept: Verdict | Written | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """Sums over a project's calls, in US dollars. `uncertain` of them were cut off and count in full."""

    calls: int
    committed_usd: float
    uncertain: int
    uncertain_usd: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Line:
    """Sums over the calls of one step to one model, at once or in batches. `cached_tokens` are part of the prompt's."""

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
    """The book of paid calls. All changes of one `book` are one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def book(
        self,
        settled: Sequence[Settlement],
        wanted: Sequence[Call],
        budget_usd: float | None,
        posted: int | None = None,
    ) -> list[int | None]:
        """Settle calls and reserve new ones. Returns a call id for each wanted one, None where the budget ends.

        `budget_usd` caps all that this project ever spent or reserved, not one run. `posted` is the batch that the
        wanted calls go with.
        """
        with writing(self._engine) as connection:
            committed = connection.execute(select(ledger.c.committed_usd)).scalar_one()
            before = committed
            answered = []
            for each in settled:
                ending = update(calls).where(calls.c.id == each.call_id, calls.c.cost_usd.is_(None))
                values = {
                    "cost_usd": calls.c.reserved_usd if each.outcome == "lost" else _charge(each),
                    "outcome": each.outcome,
                    "prompt_tokens": each.usage.prompt,
                    "cached_tokens": each.usage.cached,
                    "completion_tokens": each.usage.completion,
                    "latency_s": each.usage.latency_s,
                }
                row = connection.execute(
                    ending.values(values).returning(calls.c.reserved_usd, calls.c.cost_usd)
                ).first()
                if row is None:
                    continue  # settled before
                committed += row.cost_usd - row.reserved_usd
                if isinstance(each.kept, Verdict):
                    verdict = replace(each.kept, usage=replace(each.usage, cost_usd=row.cost_usd))
                    answered.append(verdict_row(verdict, f"call:{each.call_id}"))
                elif each.kept is not None:
                    reply = update(drafts).where(drafts.c.id == each.kept.draft_id, drafts.c.answered.is_(False))
                    connection.execute(reply.values(raw=each.kept.raw, answered=True))
            insert_new(connection, verdicts, answered)
            ids: list[int | None] = []
            for call in wanted:
                if budget_usd is not None and committed + call.at_most_usd > budget_usd:
                    ids.append(None)
                    continue
                committed += call.at_most_usd
                new = {"step": call.step, "model": call.model, "reserved_usd": call.at_most_usd, "posted": posted}
                inserted = connection.execute(
                    calls.insert().values(new | {"outcome": "open", "at": now()}).returning(calls.c.id)
                )
                ids.append(inserted.scalar_one())
            if committed != before:
                connection.execute(update(ledger).values(committed_usd=max(0.0, committed)))
            return ids

    def reserved(self, call_id: int) -> float:
        """What was reserved for a call, in US dollars."""
        with self._engine.connect() as connection:
            return float(connection.execute(select(calls.c.reserved_usd).where(calls.c.id == call_id)).scalar_one())

    def account(self) -> Account:
        """Sums over all calls so far."""
        cut_off = calls.c.outcome.in_(["open", "lost"])
        with self._engine.connect() as connection:
            row = connection.execute(
                select(
                    func.count(),
                    func.coalesce(func.sum(case((cut_off, 1), else_=0)), 0),
                    func.coalesce(func.sum(case((cut_off, calls.c.reserved_usd), else_=0.0)), 0.0),
                    func.coalesce(func.sum(calls.c.prompt_tokens), 0),
                    func.coalesce(func.sum(calls.c.cached_tokens), 0),
                    func.coalesce(func.sum(calls.c.completion_tokens), 0),
                )
            ).one()
            committed = connection.execute(select(ledger.c.committed_usd)).scalar_one()
        return Account(row[0], committed, row[1], row[2], row[3], row[4], row[5])

    def lines(self) -> list[Line]:
        """What each step cost, by model; reservations of calls that were cut off count in full."""
        batch = calls.c.posted.is_not(None)
        cost = func.coalesce(calls.c.cost_usd, calls.c.reserved_usd)
        sums = [calls.c.prompt_tokens, calls.c.cached_tokens, calls.c.completion_tokens, cost, calls.c.latency_s]
        query = select(calls.c.step, calls.c.model, batch, func.count(), *(func.coalesce(func.sum(c), 0) for c in sums))
        query = query.where(calls.c.outcome != "unsent").group_by(calls.c.step, calls.c.model, batch)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(func.min(calls.c.id))).all()
        return [Line(row[0], row[1], bool(row[2]), *row[3:]) for row in rows]


def _charge(settlement: Settlement) -> float:
    """What an answered call cost; nothing where it was never charged."""
    return (settlement.usage.cost_usd or 0.0) if settlement.outcome == "paid" else 0.0
