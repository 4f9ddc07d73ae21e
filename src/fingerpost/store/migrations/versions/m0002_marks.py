"""Marks, by which verdicts can be withdrawn together, and notes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("verdicts", sa.Column("mark", sa.String(16)))
    op.add_column("verdicts", sa.Column("note", sa.Text))
