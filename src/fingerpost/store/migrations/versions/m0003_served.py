"""Tables of the server: files, jobs and their events, batches, keys, requests."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.String(40), nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Integer),
    )
    op.create_table(
        "jobs",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("status", sa.String(24), nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("estimated_finish", sa.Integer),
        sa.Column("finished_at", sa.Integer),
        sa.Column("error", sa.JSON),
        sa.Column("model", sa.String(300), index=True),
        sa.Column("result_file", sa.String(40)),
        sa.Column("trained_tokens", sa.Integer),
        sa.Column("announced", sa.Boolean, nullable=False),
    )
    op.create_table(
        "job_events",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.String(40), nullable=False, index=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", sa.JSON),
    )
    op.create_table(
        "batches",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("status", sa.String(24), nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("counts", sa.JSON, nullable=False),
        sa.Column("times", sa.JSON, nullable=False),
        sa.Column("output_file", sa.String(40)),
        sa.Column("error_file", sa.String(40)),
        sa.Column("errors", sa.JSON),
        sa.Column("announced", sa.Boolean, nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(100), nullable=False, unique=True),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("hint", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("revoked_at", sa.Integer),
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("request_id", sa.String(40), nullable=False),
        sa.Column("at", sa.Integer, nullable=False, index=True),
        sa.Column("key", sa.String(100)),
        sa.Column("model", sa.String(300), nullable=False),
        sa.Column("messages", sa.JSON, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("latency_s", sa.Float, nullable=False),
        sa.Column("teacher", sa.JSON),
    )
