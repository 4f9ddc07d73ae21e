"""Run by alembic, on the connection that the engine module has opened and locked."""

from alembic import context

from fingerpost.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
