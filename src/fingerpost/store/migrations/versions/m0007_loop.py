"""Stored responses of the Responses wire; decisions on the way to an upstream endpoint, and their requests."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "responses",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("input", sa.JSON, nullable=False),
        sa.Column("response", sa.JSON, nullable=False),
        sa.Column("previous", sa.String(300)),
    )
    op.create_index("ix_responses_created_at", "responses", ["created_at"])
    op.add_column("requests", sa.Column("decision", sa.Integer))
    op.add_column("requests", sa.Column("student", sa.Text))
    op.create_index("requests_by_decision", "requests", ["decision", "id"])
    op.create_table(
        "decisions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("share", sa.Float, nullable=False),
        sa.Column("place", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("model", sa.String(300), nullable=False),
        sa.Column("reply_template", sa.JSON),
        sa.Column("user_template", sa.JSON),
        sa.Column("imported", sa.Integer, nullable=False),
        sa.Column("training", sa.JSON, nullable=False),
        sa.Column("monitor", sa.JSON, nullable=False),
        sa.Column("alarm", sa.Text),
        sa.Column("announced", sa.Boolean, nullable=False),
    )
