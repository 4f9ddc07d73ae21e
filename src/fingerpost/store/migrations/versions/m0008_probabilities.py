"""Verdicts with the probability of each label; the fixed panel of a decision, and prompts whose replies repeat."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("verdicts", sa.Column("probabilities", sa.JSON))
    op.add_column("decisions", sa.Column("upstream_alarm", sa.Text))
    op.add_column("decisions", sa.Column("upstream_announced", sa.Boolean, nullable=False, server_default=sa.true()))
    op.create_table(
        "panels",
        sa.Column("decision", sa.Integer, primary_key=True),
        sa.Column("panel", sa.JSON, nullable=False),
    )
    op.create_table(
        "repeated_prompts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String(64), nullable=False, unique=True),
        sa.Column("at", sa.Integer, nullable=False),
        sa.Column("model", sa.String(300), nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("replies", sa.Integer, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
    )
