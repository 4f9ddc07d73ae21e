"""import: bring questions and labels into a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.console import show_rejected
from fingerpost.cli.options import SERVED, Folder, splits_of
from fingerpost.project import Project

if TYPE_CHECKING:
    from fingerpost.data.rows import Columns


def import_(
    files: Annotated[
        list[Path] | None, typer.Argument(help="CSV, JSONL, Parquet, OpenAI chat JSONL, or plain text.")
    ] = None,
    folder: Path = Folder,
    text: Annotated[str | None, typer.Option(help="The column of texts.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of labels.")] = None,
    teacher: Annotated[str | None, typer.Option(help="The labels are the answers of this model, not people's.")] = None,
    by: Annotated[str, typer.Option(help="Who gave the labels.")] = "import",
    source: Annotated[
        str | None, typer.Option(help="Where the questions come from: user (as without it), synthetic, ...")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Take only rows whose split column says this: train, dev or test."),
    ] = None,
    from_log: Annotated[
        bool, typer.Option("--from-log", help="What 'fingerpost serve' was asked; FILES: its folder, else 'served'.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Of the log, only so many: those the student was least sure of.")
    ] = None,
) -> None:
    """Bring in questions, with labels if they have any. Importing again changes nothing."""
    from fingerpost.core.errors import InputError
    from fingerpost.data.rows import Columns

    project = Project(folder)
    if from_log:
        for each in files or [folder / SERVED]:
            _import_log(project, each, source or "served", limit)
        return
    if not files:
        raise InputError("which file? name it, or give --from-log for what 'fingerpost serve' was asked")
    columns = Columns(text, label, teacher, by, source or "user", splits_of(only))
    for file in files:
        import_one(project, file, columns)


def _import_log(project: Project, served: Path, source: str, limit: int | None) -> None:
    from fingerpost.core.errors import InputError
    from fingerpost.data.importer import import_log
    from fingerpost.store.server import DATABASE, ServerStore

    if not (served / DATABASE).is_file():
        raise InputError(f"{served} is no folder of 'fingerpost serve'; name the one that it was given with --data")
    log = ServerStore(served / DATABASE)
    with project.store() as store:
        done = import_log(store, project.task, log.log_entries(), source, limit)
    log.close()
    print(f"{served}: {done.rows:,} requests, {done.new:,} new questions, {done.verdicts:,} new answers of the teacher")
    if done.verdicts and limit is None:
        print(
            "  the teacher was asked what the student was unsure of; 'fingerpost label' asks it the others, for a fair test"
        )
    if done.excluded:
        print(f"  {done.excluded} excluded from all splits: near-duplicates of questions in another split")


def import_one(project: Project, file: Path, columns: Columns) -> None:
    """Import a file, and say what came of it."""
    from fingerpost.data.importer import import_file

    with project.store() as store:
        done = import_file(store, project.task, file, columns)
    print(f"{file}: {done.rows:,} rows, {done.new:,} new questions, {done.verdicts:,} new labels")
    if done.excluded:
        print(f"  {done.excluded} excluded from all splits: near-duplicates of questions in another split")
    show_rejected(file, done.rejected, done.rows)
