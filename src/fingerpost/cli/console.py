"""What commands print: tables, progress, prices to agree to, rows that were not imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fingerpost.core.errors import BudgetError, InputError
from fingerpost.core.types import Progress

if TYPE_CHECKING:
    from rich.console import Console

    from fingerpost.data.rows import Rejected
    from fingerpost.task.settings import Task

MAX_SHOWN = 20  # rejected rows


def console() -> Console:
    """For tables and progress bars, on standard output."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def show_message(progress: Progress) -> None:
    """A progress callback: prints the messages of a long step on standard error."""
    if progress.message:
        print(f"  {progress.message}", file=sys.stderr, flush=True)


def confirm_price(
    task: Task, about_usd: float | None, at_most_usd: float, budget: float | None = None, yes: bool = False
) -> None:
    """Show what the teacher will cost, and ask for confirmation.

    Raises:
        BudgetError: there is no terminal to ask on.
        Exit: the user says no.
    """
    from fingerpost.llm.prices import is_local, price_source

    teacher = task.teacher
    if teacher is None:
        return
    if at_most_usd == 0:
        print("no cost: it runs on this machine" if is_local(teacher) else "no cost, by task.toml")
        return
    source = "task.toml" if teacher.prices else price_source()
    cap = f"; the budget is ${budget:g}" if budget is not None else ""
    about = "" if about_usd is None else f"about ${about_usd:.4f}, "
    print(f"{about}at most ${at_most_usd:.4f} (prices: {source}){cap}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise BudgetError("nothing was asked: this costs money; add --yes, and --budget for a cap")
    if not typer.confirm("Continue?"):
        raise typer.Exit(1)


def require_folders(*files: Path | None) -> None:
    """Fail before the work, not after it, where a file could not be written.

    Raises:
        InputError: the folder of one of the files does not exist.
    """
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise InputError(f"there is no folder {file.parent}; create it first")


def show_rejected(file: Path, rejected: Sequence[Rejected], total: int) -> None:
    """List the rows that were rejected, and fail; the good rows have been taken.

    Raises:
        InputError: there are any.
    """
    if not rejected:
        return
    for row in rejected[:MAX_SHOWN]:
        print(f"{file}, line {row.line}: {row.reason}", file=sys.stderr)
    if len(rejected) > MAX_SHOWN:
        print(f"... and {len(rejected) - MAX_SHOWN} more", file=sys.stderr)
    raise InputError(
        f"{len(rejected)} of {total} rows of {file} were rejected, the others were taken; fix them and run this again"
    )
