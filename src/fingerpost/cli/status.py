"""status: what a project has, what it cost, what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.console import next_step, say
from fingerpost.project import Project
from fingerpost.store.ledger import Account


def status(folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path()) -> None:
    """Show what the project has, what it cost and what to do next."""
    found = Project(folder).status()
    task = found.task
    say(f"{task.name}: {len(task.labels)} labels, teacher {task.teacher_model or '(none)'}")
    for source, splits in found.questions.items():
        parts = ", ".join(f"{count:,} {split}" for split, count in splits.items())
        say(f"questions, {source}: {sum(splits.values()):,}  ({parts})")
    for kind, by, questions, verdicts, none in found.verdicts:
        if kind == "writer":
            say(f"written by {by}: {questions:,} questions")
            continue
        answers = f" in {verdicts:,} answers" if verdicts != questions else ""
        without = f", {none:,} without a label" if none else ""
        say(f"labels by {kind} {by}: {questions:,} questions{answers}{without}")
    _show_cost(found.account)
    print(f"student: {found.student or 'none trained on the present labels'}")
    print(f"report: {found.report or 'none of the present state'}")
    next_step(*found.next_steps)


def _show_cost(account: Account) -> None:
    if not account.calls:
        return
    uncertain = (
        f"; ${account.uncertain_usd:.4f} of it for {account.uncertain} calls that were cut off, counted in full"
        if account.uncertain
        else ""
    )
    print(
        f"cost: ${account.committed_usd:.4f} for {account.calls:,} calls, {account.prompt_tokens:,} prompt tokens "
        f"({account.cached_tokens:,} cached), {account.completion_tokens:,} reply tokens{uncertain}"
    )
