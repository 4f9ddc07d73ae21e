"""Generated questions, and batches of requests at a provider."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("calls", sa.Column("latency_s", sa.Float))
    op.add_column("calls", sa.Column("posted", sa.Integer))
    op.create_table(
        "posted",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("step", sa.String(32), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("base_url", sa.Text),
        sa.Column("jobs", sa.JSON, nullable=False),
        sa.Column("file", sa.String(100)),
        sa.Column("batch", sa.String(100)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "drafts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("brief", sa.JSON, nullable=False),
        sa.Column("task", sa.String(16), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("answered", sa.Boolean, nullable=False),
        sa.Column("raw", sa.Text),
        sa.Column("fates", sa.JSON),
    )
