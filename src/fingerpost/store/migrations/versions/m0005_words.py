"""Clearer values and columns (human, excluded, outcomes); the draft and item of a writer's verdict; sketches of questions."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_TRIGGERS = ("verdicts_are_never_edited", "questions_never_change")


def upgrade() -> None:
    op.add_column("verdicts", sa.Column("draft", sa.Integer))
    op.add_column("verdicts", sa.Column("item", sa.Integer))
    op.execute("ALTER TABLE drafts RENAME COLUMN fates TO outcomes")
    op.create_table(
        "sketches",
        sa.Column("question_id", sa.String(16), sa.ForeignKey("questions.id"), primary_key=True),
        sa.Column("sketch", sa.LargeBinary, nullable=False),
    )
    definitions = _drop_triggers()
    op.execute("UPDATE verdicts SET kind = 'human' WHERE kind = 'person'")
    op.execute(
        "UPDATE verdicts SET draft = CAST(prompt AS INTEGER), item = order_no, prompt = NULL, order_no = NULL "
        "WHERE kind = 'writer'"
    )
    op.execute("UPDATE questions SET split = 'excluded' WHERE split = 'aside'")
    for definition in definitions:
        op.execute(definition)


def _sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _drop_triggers() -> list[str]:
    """Drop the triggers that forbid edits, for this migration only; returns the statements that create them again."""
    if not _sqlite():
        return []
    definitions = []
    for name in _TRIGGERS:
        query = sa.text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = :name")
        found = op.get_bind().execute(query, {"name": name}).scalar()
        if found is not None:
            definitions.append(str(found))
            op.execute(f"DROP TRIGGER {name}")
    return definitions
