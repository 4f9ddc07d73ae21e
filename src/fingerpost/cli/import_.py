"""import: bring questions and labels into a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.console import say, show_rejected
from fingerpost.cli.options import Delimiter, Encoding, Folder, LabelColumn, Quote, TextColumn, splits_of
from fingerpost.core.errors import InputError
from fingerpost.data.formats import format_of_options
from fingerpost.data.importer import ImportResult
from fingerpost.data.rows import Columns
from fingerpost.project import Project
from fingerpost.store.server import SERVED


def import_(
    files: Annotated[
        list[Path] | None, typer.Argument(help="CSV, JSONL, Parquet, OpenAI chat JSONL, or plain text.")
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
    project = Project(folder)
    if from_log:
        for served in files or [folder / SERVED]:
            _import_log(project, served, source or "served", limit)
        return
    if not files:
        raise InputError("which file? name it, or give --from-log for the requests of 'fingerpost serve'")
    columns = Columns(
        text,
        label,
        teacher,
        by,
        source or "user",
        splits_of(only),
        format=format_of_options(quote, encoding, delimiter),
    )
    for file in files:
        show_imported(file, project.import_file(file, columns))


def show_imported(file: Path, done: ImportResult) -> None:
    """Print what an import did; fails where rows were rejected."""
    say(f"{file}: {done.rows:,} rows, {done.new:,} new questions, {done.verdicts:,} new labels")
    _show_excluded(done)
    show_rejected(file, done.rejected, done.rows)


def _import_log(project: Project, served: Path, source: str, limit: int | None) -> None:
    done = project.import_log(served, source, limit)
    say(f"{served}: {done.rows:,} requests, {done.new:,} new questions, {done.verdicts:,} new teacher answers")
    if done.verdicts and limit is None:
        print("  the teacher was asked only where the student was unsure; 'fingerpost label' asks about the rest")
    _show_excluded(done)


def _show_excluded(done: ImportResult) -> None:
    if done.excluded:
        print(f"  {done.excluded} excluded from all splits: near-duplicates of questions in another split")
