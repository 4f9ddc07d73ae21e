"""The tables. Every change needs a migration and a new HEAD."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    true,
)

HEAD = "0008"

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
    Index("questions_in_order", "at", "id"),
    Index("questions_by_group", "group_id"),
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
    Column("draft", Integer),
    Column("item", Integer),
    Column("probabilities", JSON(none_as_null=True)),
    Index("verdicts_by_question", "question_id"),
)

sketches = Table(
    "sketches",
    metadata,
    Column("question_id", String(16), ForeignKey("questions.id"), primary_key=True),
    Column("sketch", LargeBinary, nullable=False),
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
    Column("latency_s", Float),
    Column("posted", Integer),
    Column("key", String(16)),
    Column("holder", String(16)),
    Column("settled", Integer),
    Index("calls_by_key", "key"),
)

# Batches of requests at a provider: see ProviderBatch.
posted = Table(
    "posted",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("step", String(32), nullable=False),
    Column("model", String(200), nullable=False),
    Column("base_url", Text),
    Column("jobs", JSON, nullable=False),
    Column("file", String(100)),
    Column("batch", String(100)),
    Column("state", String(16), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

# Requests to write questions: planned, then answered (`raw`), then filtered (`outcomes`). See Draft.
drafts = Table(
    "drafts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("round", Integer, nullable=False),
    Column("brief", JSON, nullable=False),
    Column("task", String(16), nullable=False),
    Column("model", String(200), nullable=False),
    Column("answered", Boolean, nullable=False),
    Column("raw", Text),
    Column("outcomes", JSON),
)

ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("committed_usd", Float, nullable=False),
    Column("settled", Integer, nullable=False, server_default="0"),
)

# --- tables of the server. Times are in seconds since 1970, as in the API.

files = Table(
    "files",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", String(40), nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("expires_at", Integer),
)

jobs = Table(
    "jobs",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("status", String(24), nullable=False),
    Column("paused", Boolean, nullable=False, default=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("interrupted", Integer, nullable=False, server_default="0"),
    Column("request", JSON, nullable=False),
    Column("estimated_finish", Integer),
    Column("finished_at", Integer),
    Column("error", JSON),
    Column("model", String(300), index=True),
    Column("result_file", String(40)),
    Column("trained_tokens", Integer),
    Column("announced", Boolean, nullable=False, default=False),
)

job_events = Table(
    "job_events",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("job_id", String(40), nullable=False, index=True),
    Column("created_at", Integer, nullable=False),
    Column("level", String(8), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON),
)

batches = Table(
    "batches",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("status", String(24), nullable=False),
    Column("request", JSON, nullable=False),
    Column("counts", JSON, nullable=False),
    Column("times", JSON, nullable=False),
    Column("output_file", String(40)),
    Column("error_file", String(40)),
    Column("errors", JSON),
    Column("announced", Boolean, nullable=False, default=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("hint", String(16), nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("revoked_at", Integer),
)

requests = Table(
    "requests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("request_id", String(40), nullable=False),
    Column("at", Integer, nullable=False, index=True),
    Column("key", String(100)),
    Column("model", String(300), nullable=False),
    Column("messages", JSON, nullable=False),
    Column("label", Text),
    Column("confidence", Float, nullable=False),
    Column("by", String(200), nullable=False),
    Column("latency_s", Float, nullable=False),
    Column("teacher", JSON),
    Column("decision", Integer),
    Column("student", Text),
    Index("requests_by_decision", "decision", "id"),
)

# Decisions that pass by on the way to an upstream endpoint: see DecisionRow.
decisions = Table(
    "decisions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("share", Float, nullable=False),
    Column("place", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("model", String(300), nullable=False),
    Column("reply_template", JSON),
    Column("user_template", JSON),
    Column("imported", Integer, nullable=False),
    Column("training", JSON, nullable=False),
    Column("monitor", JSON, nullable=False),
    Column("alarm", Text),
    Column("announced", Boolean, nullable=False, default=True),
    Column("upstream_alarm", Text),
    Column("upstream_announced", Boolean, nullable=False, server_default=true()),
)

# The fixed panels of decisions: see `fingerpost.server.loop.panel.Panel`.
panels = Table(
    "panels",
    metadata,
    Column("decision", Integer, primary_key=True),
    Column("panel", JSON, nullable=False),
)

# Prompts on the way to an upstream endpoint whose replies repeat: see RepeatedPrompt.
repeated_prompts = Table(
    "repeated_prompts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(64), nullable=False, unique=True),
    Column("at", Integer, nullable=False),
    Column("model", String(300), nullable=False),
    Column("prompt", Text, nullable=False),
    Column("replies", Integer, nullable=False),
    Column("labels", JSON, nullable=False),
)

responses = Table(
    "responses",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("created_at", Integer, nullable=False, index=True),
    Column("input", JSON, nullable=False),
    Column("response", JSON, nullable=False),
    Column("previous", String(300)),
)
