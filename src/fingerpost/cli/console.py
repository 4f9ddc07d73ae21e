"""What commands print: tables, progress, prices to agree to, rows that were not taken."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from fingerpost.data.rows import Rejected
    from fingerpost.task.settings import Task

SHOWN = 20


def console() -> Console:
    """For what people read: tables and progress, on standard output."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def price_agreed(
    task: Task, about_usd: float | None, at_most_usd: float, budget: float | None = None, yes: bool = False
) -> None:
    """Say what the teacher will cost, and go on only where whoever pays agrees.

    Raises:
        BudgetError: there is nobody to ask.
    """
    from fingerpost.core.errors import BudgetError
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
    if not typer.confirm("Go on?"):
        raise typer.Exit(1)


def require_folders(*files: Path | None) -> None:
    """Fail before the work, not after it, where a file could not be written."""
    from fingerpost.core.errors import InputError

    for file in files:
        if file is not None and not file.parent.is_dir():
            raise InputError(f"there is no folder {file.parent}; make it first")


def show_step(text: str) -> None:
    """One line about where a long step is, on standard error."""
    print(f"  {text}", file=sys.stderr, flush=True)


def show_rejected(file: Path, rejected: Sequence[Rejected], total: int) -> None:
    """List the rows that were not taken, and fail: what was good has been kept."""
    from fingerpost.core.errors import InputError

    if not rejected:
        return
    for each in rejected[:SHOWN]:
        print(f"{file}, line {each.line}: {each.reason}", file=sys.stderr)
    if len(rejected) > SHOWN:
        print(f"... and {len(rejected) - SHOWN} more", file=sys.stderr)
    raise InputError(
        f"{len(rejected)} of {total} rows of {file} were not taken, the others are kept; mend them and run this again"
    )
