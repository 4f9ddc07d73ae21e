"""A project folder: task.toml, the database, models and reports."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from fingerpost.intake import Rejected
    from fingerpost.store import Store
    from fingerpost.types import Question, StudentSettings, Task

Folder = typer.Option(Path(), "-C", "--project", help="The project's folder.", show_default="here")
Yes = typer.Option(False, "--yes", "-y", help="Do not ask before money is spent.")
Budget = typer.Option(
    None,
    "--budget",
    min=0,
    help="US dollars that this project may cost in all, what it has cost so far included.",
)
SHOWN = 20
SERVED = "served"  # the folder of a project's server


class Project:
    """Where the parts of a project lie. Opening it reads and checks task.toml."""

    def __init__(self, folder: Path) -> None:
        from fingerpost.task import TASK_FILE, load_task

        self.folder = folder
        self.task: Task = load_task(folder / TASK_FILE)
        self.models = folder / "models"
        self.reports = folder / "reports"

    def embed(
        self, questions: Sequence[Question], settings: StudentSettings | None = None, quiet: bool = False
    ) -> NDArray[np.float32]:
        """Unit vectors of questions, (questions, width), kept in the project's folder `cache`."""
        from fingerpost.train import require_training

        require_training("comparing texts")
        from fingerpost.students.encoder.vectors import vectors_of

        missing = "embedding what is new" if (self.folder / "cache").is_dir() else f"embedding {len(questions):,} texts"
        if not quiet:
            show_step(missing)
        return vectors_of(questions, settings or self.task.student, self.folder / "cache")

    def store(self) -> Store:
        """The project's database, made on first use."""
        from fingerpost.store import Store

        return Store(self.folder / "fingerpost.db")


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
    from fingerpost.errors import BudgetError
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
    from fingerpost.errors import InputError

    for file in files:
        if file is not None and not file.parent.is_dir():
            raise InputError(f"there is no folder {file.parent}; make it first")


def show_step(text: str) -> None:
    """One line about where a long step is, on standard error."""
    print(f"  {text}", file=sys.stderr, flush=True)


def show_rejected(file: Path, rejected: Sequence[Rejected], total: int) -> None:
    """List the rows that were not taken, and fail: what was good has been kept."""
    from fingerpost.errors import InputError

    if not rejected:
        return
    for each in rejected[:SHOWN]:
        print(f"{file}, line {each.line}: {each.reason}", file=sys.stderr)
    if len(rejected) > SHOWN:
        print(f"... and {len(rejected) - SHOWN} more", file=sys.stderr)
    raise InputError(
        f"{len(rejected)} of {total} rows of {file} were not taken, the others are kept; mend them and run this again"
    )
