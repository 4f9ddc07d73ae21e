"""The tables. A change here needs a migration beside it, and a new HEAD."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

HEAD = "0002"

metadata = MetaData()

questions = Table(
    "questions",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("messages", JSON, nullable=False),
    Column("source", String(64), nullable=False),
    Column("group_id", String(16), nullable=False),
    Column("split", String(8), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(80), nullable=False, unique=True),
    Column("question_id", String(16), ForeignKey("questions.id"), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("by", String(200), nullable=False),
    Column("label", Text),
    Column("origin", String(32), nullable=False),
    Column("prompt", String(16)),
    Column("order_no", Integer),
    Column("raw", Text),
    Column("logprob", Float),
    Column("prompt_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("cost_usd", Float),
    Column("latency_s", Float),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("mark", String(16)),
    Column("note", Text),
    Index("verdicts_by_question", "question_id"),
)

calls = Table(
    "calls",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("step", String(32), nullable=False),
    Column("model", String(200), nullable=False),
    Column("reserved_usd", Float, nullable=False),
    Column("cost_usd", Float),
    Column("outcome", String(8), nullable=False),
    Column("prompt_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("at", DateTime(timezone=True), nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("committed_usd", Float, nullable=False),
)
