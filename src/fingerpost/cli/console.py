"""Output that several commands share: tables, progress, price confirmation, rejected rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fingerpost.cli.exit_codes import FAILED
from fingerpost.core.errors import InputError
from fingerpost.core.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from fingerpost.data.formats import FileFormat
    from fingerpost.data.rows import Rejected
    from fingerpost.task.settings import Task, TeacherSettings

MAX_SHOWN = 20  # rejected rows
FEW_REJECTED, FEW_REJECTED_SHARE, MANY_REJECTED_SHARE = 3, 0.02, 0.25
"""Up to the first number, or the first share of the rows, rejected ones are few; from the second share on, they are many."""


def console() -> Console:
    """A console for tables and progress bars on standard output."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def say(text: str) -> None:
    """Print text that may hold words from outside: replies, labels, sources, names of models."""
    print(printable(text))


def confirm(question: str) -> None:
    """Ask for confirmation in the terminal.

    Raises:
        Exit: the user does not confirm; nothing is done.
    """
    if not typer.confirm(question):
        print("nothing was done", file=sys.stderr)
        raise typer.Exit(FAILED)


def next_step(*lines: str) -> None:
    """Print what to do next: one command a line."""
    for number, line in enumerate(lines):
        say(f"{'next:' if number == 0 else '  or:'} {line}")


def confirm_price(
    task: Task, about_usd: float | None, at_most_usd: float, budget: float | None = None, yes: bool = False
) -> None:
    """As `confirm_teacher_price`, for the task's teacher; nothing is printed or asked where it has none."""
    if task.teacher is not None:
        confirm_teacher_price(task.teacher, about_usd, at_most_usd, budget, yes)


def confirm_teacher_price(
    teacher: TeacherSettings,
    about_usd: float | None,
    at_most_usd: float,
    budget: float | None = None,
    yes: bool = False,
) -> None:
    """Print the expected cost of a teacher's requests, and ask for confirmation unless they are free.

    Args:
        about_usd: the estimated cost in US dollars, if there is an estimate.
        at_most_usd: an upper bound of the cost in US dollars.
        budget: the project's budget in US dollars, to print it.
        yes: do not ask.

    Raises:
        InputError: confirmation is needed but there is no terminal.
        Exit: the user does not confirm.
    """
    from fingerpost.llm.prices import is_local, price_source

    if at_most_usd == 0:
        print("no cost: the teacher runs on this machine" if is_local(teacher) else "no cost, according to task.toml")
        return
    source = "task.toml" if teacher.prices else price_source()
    cap = f"; the budget is ${budget:g}" if budget is not None else ""
    about = "" if about_usd is None else f"about ${about_usd:.4f}, "
    print(f"{about}at most ${at_most_usd:.4f} (prices: {source}){cap}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError("nothing was asked, because it costs money; add --yes to confirm, and --budget for a limit")
    confirm("Continue?")


def require_folders(*files: Path | None) -> None:
    """Check that output files can be created, so that a command fails before its work and not after it.

    Raises:
        InputError: the folder of one of the files does not exist.
    """
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise InputError(f"there is no folder {file.parent}; create it first")


def show_rejected(file: Path, rejected: Sequence[Rejected], total: int) -> None:
    """Print rejected rows to standard error."""
    for row in rejected[:MAX_SHOWN]:
        print(printable(f"{file}, line {row.line}: {row.reason}"), file=sys.stderr)
    if len(rejected) > MAX_SHOWN:
        print(f"... and {len(rejected) - MAX_SHOWN:,} more", file=sys.stderr)
    if rejected:
        print(
            printable(
                f"{len(rejected):,} of {total:,} rows of {file} cannot be used; correct them and run the command again"
            ),
            file=sys.stderr,
        )


def too_many_rejected(rejected: Sequence[Rejected], total: int) -> bool:
    """Whether so many rows are rejected that the file or the options are probably wrong."""
    count = len(rejected)
    return count > max(FEW_REJECTED, FEW_REJECTED_SHARE * total) or count > MANY_REJECTED_SHARE * total


def show_format(file: Path, form: FileFormat) -> None:
    """Say which encoding a text file is read as, if it was recognised and is not UTF-8."""
    from fingerpost.data.files import TEXT_FILES
    from fingerpost.data.formats import UTF_8, with_detected_encoding

    if form.encoding is None and file.suffix.lower() in TEXT_FILES and file.is_file() and file.stat().st_size:
        encoding = with_detected_encoding(file, form).encoding
        if encoding != UTF_8:
            say(f"{file}: read as {encoding}; if words look wrong, name the encoding with --encoding")
