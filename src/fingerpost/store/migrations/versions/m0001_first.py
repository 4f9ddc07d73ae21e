"""Questions, verdicts, and the ledger of paid calls."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "questions",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("messages", sa.JSON, nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("group_id", sa.String(16), nullable=False),
        sa.Column("split", sa.String(8), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "verdicts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String(80), nullable=False, unique=True),
        sa.Column("question_id", sa.String(16), sa.ForeignKey("questions.id"), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("origin", sa.String(32), nullable=False),
        sa.Column("prompt", sa.String(16)),
        sa.Column("order_no", sa.Integer),
        sa.Column("raw", sa.Text),
        sa.Column("logprob", sa.Float),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("cached_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("cost_usd", sa.Float),
        sa.Column("latency_s", sa.Float),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("verdicts_by_question", "verdicts", ["question_id"])
    op.create_table(
        "calls",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("step", sa.String(32), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("reserved_usd", sa.Float, nullable=False),
        sa.Column("cost_usd", sa.Float),
        sa.Column("outcome", sa.String(8), nullable=False),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("cached_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("committed_usd", sa.Float, nullable=False),
    )
    op.execute("INSERT INTO ledger (id, committed_usd) VALUES (1, 0)")
    if op.get_bind().dialect.name == "sqlite":  # the database itself enforces that verdicts and questions never change
        op.execute(
            "CREATE TRIGGER verdicts_are_never_edited BEFORE UPDATE ON verdicts "
            "BEGIN SELECT RAISE(ABORT, 'a verdict is never edited: append another'); END"
        )
        op.execute(
            "CREATE TRIGGER verdicts_are_never_removed BEFORE DELETE ON verdicts "
            "BEGIN SELECT RAISE(ABORT, 'a verdict is never removed: append another'); END"
        )
        op.execute(
            "CREATE TRIGGER questions_never_change BEFORE UPDATE ON questions "
            "BEGIN SELECT RAISE(ABORT, 'a question, its group and its split never change'); END"
        )
