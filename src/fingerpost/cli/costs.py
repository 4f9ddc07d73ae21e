"""The command `costs`: the cost of every step, and what it would have cost without prompt caching and batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fingerpost.cli.console import console
from fingerpost.core.errors import TeacherError
from fingerpost.core.printable import printable
from fingerpost.core.types import Usage
from fingerpost.llm.prices import cost
from fingerpost.project import Project
from fingerpost.store.ledger import Account, StepCost
from fingerpost.store.server import DATABASE, SERVED, ServerStore
from fingerpost.task.settings import Task

WIDTH = 160  # characters per line if the output is not a terminal


def costs(
    folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path(),
    release: Annotated[
        bool,
        typer.Option("--release", help="Give back what is reserved for interrupted calls."),
    ] = False,
) -> None:
    """Show the cost of every step by model, and what it would have cost without caching and batches."""
    project = Project(folder)
    if release:
        with project.store() as store:
            number, usd = store.ledger.release()
        print(
            f"released ${usd:.4f} of {number:,} interrupted calls; the provider may have charged for them: see its bill"
        )
    with project.store() as store:
        lines, account = store.ledger.step_costs(), store.ledger.account()
    served, served_account = _of_server(project.folder / SERVED / DATABASE)
    lines += served
    if not lines:
        print("no requests yet")
        return
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("step", no_wrap=True)
    table.add_column("model", overflow="fold")
    for name in ("calls", "uncached", "cached", "reply", "seconds", "cost", "naively"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        naive = naively(project.task, line)
        table.add_row(
            f"{line.step} (batch)" if line.batch else line.step,
            Text(printable(line.model)),
            f"{line.calls:,}",
            f"{line.prompt_tokens - line.cached_tokens:,}",
            f"{line.cached_tokens:,}",
            f"{line.completion_tokens:,}",
            f"{line.latency_s:,.0f}" if line.latency_s else "–",
            f"${line.cost_usd:.4f}",
            "–" if naive is None else f"${naive:.4f}",
        )
    out = console()
    if not out.is_terminal:
        out.width = WIDTH
    out.print(table)
    total = account.committed_usd + (served_account.committed_usd if served_account else 0.0)
    print(f"total ${total:.4f}", end="")
    print(f", ${served_account.committed_usd:.4f} of it by the server's cascade" if served_account else "")
    if account.uncertain:
        print(
            f"  including ${account.uncertain_usd:.4f} for {account.uncertain} calls that are open, were interrupted, or failed "
            "in a way that may have been charged; 'costs --release' gives back what no running command holds"
        )
    print("uncached, cached, reply: numbers of prompt and reply tokens")
    print("naively: the cost at today's prices without prompt caching and batches")


def _of_server(database: Path) -> tuple[list[StepCost], Account | None]:
    """The calls of the server in the project's folder `served`, which asks the teacher when the student is unsure."""
    if not database.is_file():
        return [], None
    server = ServerStore(database)
    try:
        return server.ledger.step_costs(), server.ledger.account()
    finally:
        server.close()


def naively(task: Task, line: StepCost) -> float | None:
    """The cost of the same calls in US dollars without prompt caching and batches; None if no price is known."""
    models = [settings for settings in (task.teacher, *task.generate.writers) if settings is not None]
    known = [settings for settings in models if settings.model == line.model]
    if not known:
        return None
    try:
        return cost(known[0], Usage(prompt=line.prompt_tokens, cached=0, completion=line.completion_tokens))
    except TeacherError:
        return None
