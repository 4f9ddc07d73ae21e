"""Convert core types to rows of the tables, and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Connection, Row, Table
from sqlalchemy.dialects import postgresql, sqlite

from fingerpost.core.text import fingerprint
from fingerpost.core.types import Message, Question, Split, Usage, Verdict


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> int:
    """Insert the rows that violate no unique key; returns their number."""
    insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[connection.dialect.name]
    return int(connection.execute(insert(table).on_conflict_do_nothing(), list(rows)).rowcount) if rows else 0


def import_key(verdict: Verdict) -> str:
    """A key that is equal for equal verdicts, so that importing a file again adds nothing.

    Verdicts with a mark are identified by the mark and the question.
    """
    if verdict.mark is not None:
        return f"{verdict.origin}:{verdict.mark}:{verdict.question_id}"
    kind = "person" if verdict.kind == "human" else verdict.kind  # the value in stores of the first versions
    parts: tuple[Any, ...] = (verdict.question_id, kind, verdict.by, verdict.label, verdict.order, verdict.raw)
    if verdict.probabilities is not None:
        parts = (*parts, sorted(verdict.probabilities.items()))
    return f"{verdict.origin}:{fingerprint(map(str, parts))}"


def verdict_row(verdict: Verdict, key: str) -> dict[str, Any]:
    return {
        "key": key,
        "question_id": verdict.question_id,
        "kind": verdict.kind,
        "by": verdict.by,
        "label": verdict.label,
        "origin": verdict.origin,
        "prompt": verdict.prompt,
        "order_no": verdict.order,
        "raw": verdict.raw,
        "logprob": verdict.logprob,
        "prompt_tokens": verdict.usage.prompt,
        "cached_tokens": verdict.usage.cached,
        "completion_tokens": verdict.usage.completion,
        "cost_usd": verdict.usage.cost_usd,
        "latency_s": verdict.usage.latency_s,
        "at": verdict.at or now(),
        "mark": verdict.mark,
        "note": verdict.note,
        "draft": verdict.draft,
        "item": verdict.item,
        "probabilities": None if verdict.probabilities is None else dict(verdict.probabilities),
    }


def question_row(question: Question, at: datetime) -> dict[str, Any]:
    """A row of the table; `at` orders the questions."""
    return {
        "id": question.id,
        "messages": [[turn.role, turn.content] for turn in question.messages],
        "source": question.source,
        "group_id": question.group,
        "split": question.split,
        "at": at,
    }


def to_question(row: Row[Any]) -> Question:
    turns = tuple(Message(role, content) for role, content in row.messages)
    return Question(row.id, turns, row.source, row.group_id, cast(Split, row.split))


def to_verdict(row: Row[Any]) -> Verdict:
    usage = Usage(row.prompt_tokens, row.cached_tokens, row.completion_tokens, row.cost_usd, row.latency_s)
    return Verdict(
        row.question_id,
        row.kind,
        row.by,
        row.label,
        row.origin,
        row.prompt,
        row.order_no,
        row.raw,
        row.logprob,
        usage,
        row.at,
        row.mark,
        row.note,
        row.draft,
        row.item,
        row.probabilities,
    )


def now() -> datetime:
    return datetime.now(UTC)
