"""costs: what every step cost, and what the same work would have cost without a thought for the price."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.console import console
from fingerpost.project import Project

if TYPE_CHECKING:
    from fingerpost.store.ledger import StepCost
    from fingerpost.task.settings import Task


WIDE = 160  # characters, for a file or another program


def costs(folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path()) -> None:
    """What every step cost, by model, and what the same work would have cost naively."""
    from rich.table import Table

    project = Project(folder)
    with project.store() as store:
        lines = store.ledger.step_costs()
        account = store.ledger.account()
    if not lines:
        print("nothing was asked yet")
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
            line.model,
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
        out.width = WIDE
    out.print(table)
    print(f"in all ${account.committed_usd:.4f}", end="")
    print(
        f", of it ${account.uncertain_usd:.4f} for {account.uncertain} calls that are open or were cut off"
        if account.uncertain
        else ""
    )
    print("uncached, cached and reply: tokens")
    print("naively: a label order for each request, so that no prompt is cached, and no batches; at today's prices")


def naively(task: Task, line: StepCost) -> float | None:
    """The cost of the same calls in US dollars, had nothing been cached or batched; None where no price is known."""
    from fingerpost.core.errors import TeacherError
    from fingerpost.core.types import Usage
    from fingerpost.llm.prices import cost

    known = [each for each in (task.teacher, *task.generate.writers) if each is not None and each.model == line.model]
    if not known:
        return None
    try:
        return cost(known[0], Usage(prompt=line.prompt_tokens, cached=0, completion=line.completion_tokens))
    except TeacherError:
        return None
