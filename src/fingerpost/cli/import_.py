"""import: bring questions and labels into a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.console import next_step, say, show_format, show_rejected
from fingerpost.cli.exit_codes import PARTLY
from fingerpost.cli.options import (
    Delimiter,
    Encoding,
    Folder,
    LabelColumn,
    Quote,
    TextColumn,
    project_and_files,
    splits_of,
)
from fingerpost.cli.progress import showing_progress
from fingerpost.core.errors import InputError
from fingerpost.data.formats import format_of_options
from fingerpost.data.importer import ImportResult
from fingerpost.data.rows import Columns
from fingerpost.project import Project
from fingerpost.store.server import SERVED


def import_(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="CSV, Excel, JSONL, Parquet, OpenAI chat JSONL, or plain text; and the project's folder."),
    ] = None,
    folder: Path = Folder,
    text: str | None = TextColumn,
    label: str | None = LabelColumn,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The labels are answers of this model, not of humans.")
    ] = None,
    encoding: str | None = Encoding,
    delimiter: str | None = Delimiter,
    quote: str = Quote,
    by: Annotated[str, typer.Option(help="The name of the human who gave the labels.")] = "import",
    source: Annotated[
        str | None, typer.Option(help="Where the questions come from, such as user or synthetic. Default: user.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Import only rows whose split column says train, dev or test. Can be given several times."),
    ] = None,
    from_log: Annotated[
        bool,
        typer.Option(
            "--from-log", help="Import the request log of 'fingerpost serve'. FILES is its folder; default: served."
        ),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="With --from-log: import at most this many questions, the least confident first."),
    ] = None,
) -> None:
    """Import questions, with labels if they have any. Importing a file again changes nothing."""
    folder, paths = project_and_files(files or [], folder)
    project = Project(folder)
    if from_log:
        for served in paths or [folder / SERVED]:
            _import_log(project, served, source or "served", limit)
    elif not paths:
        raise InputError("which file? name it, or give --from-log for the requests of 'fingerpost serve'")
    form = format_of_options(quote, encoding, delimiter)
    columns = Columns(text, label, teacher, by, source or "user", splits_of(only), format=form)
    done = [] if from_log else [import_one(project, file, columns) for file in paths]
    next_step(*project.next_steps())
    if any(result.rejected for result in done):
        raise typer.Exit(PARTLY)


def import_one(project: Project, file: Path, columns: Columns) -> ImportResult:
    """Import a file, and print what that did."""
    show_format(file, columns.format)
    with showing_progress("import") as show:
        done = project.import_file(file, columns, show)
    say(f"{file}: {done.rows:,} rows, {done.new:,} new questions, {done.verdicts:,} new labels")
    _show_excluded(done)
    show_rejected(file, done.rejected, done.rows)
    return done


def _import_log(project: Project, served: Path, source: str, limit: int | None) -> None:
    done = project.import_log(served, source, limit)
    say(f"{served}: {done.rows:,} requests, {done.new:,} new questions, {done.verdicts:,} new teacher answers")
    if done.verdicts and limit is None:
        print("  the teacher was asked only where the student was unsure; 'fingerpost label' asks about the rest")
    _show_excluded(done)


def _show_excluded(done: ImportResult) -> None:
    if done.excluded:
        print(f"  {done.excluded} excluded from all splits: near-duplicates of questions in another split")
