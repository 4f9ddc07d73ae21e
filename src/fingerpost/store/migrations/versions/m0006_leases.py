"""Leases of calls, the order in which they were settled, indices of questions, interruptions of jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("calls", sa.Column("key", sa.String(16)))
    op.add_column("calls", sa.Column("holder", sa.String(16)))
    op.add_column("calls", sa.Column("settled", sa.Integer))
    op.create_index("calls_by_key", "calls", ["key"])
    op.add_column("ledger", sa.Column("settled", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("interrupted", sa.Integer, nullable=False, server_default="0"))
    op.create_index("questions_in_order", "questions", ["at", "id"])
    op.create_index("questions_by_group", "questions", ["group_id"])
