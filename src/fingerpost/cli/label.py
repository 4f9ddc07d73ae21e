"""label: the teacher at work, with its cost before the eyes of whoever pays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.project import Budget, Folder, Project, Yes, console, require_folders

if TYPE_CHECKING:
    from fingerpost.label import Plan, Progress
    from fingerpost.store import Store
    from fingerpost.types import Task


def label(
    folder: Path = Folder,
    votes: Annotated[int, typer.Option(min=1, help="Ask each question in so many label orders.")] = 1,
    budget: float | None = Budget,
    yes: bool = Yes,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask at most so many questions now.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only these: train, dev, test.")] = None,
    retry: Annotated[bool, typer.Option(help="Ask again what was answered without a label.")] = False,
    again: Annotated[bool, typer.Option(help="Ask again what was answered under an earlier prompt.")] = False,
    record: Annotated[Path | None, typer.Option(help="Keep the answers in this file, to be played back.")] = None,
) -> None:
    """Have the teacher label what has no label yet."""
    require_folders(record)
    project = Project(folder)
    label_project(project, votes, budget, yes, limit, split, retry, again, record)


def label_project(
    project: Project,
    votes: int = 1,
    budget: float | None = None,
    yes: bool = False,
    limit: int | None = None,
    split: list[str] | None = None,
    retry: bool = False,
    again: bool = False,
    record: Path | None = None,
) -> None:
    """Plan, ask whether to go on, label, and say what came of it."""
    from fingerpost import label as step
    from fingerpost.cli.questions import splits_of

    task = project.task
    with project.store() as store:
        splits = splits_of(split) or ("train", "dev", "test")
        planned = step.plan(task, store, votes=votes, splits=splits, limit=limit, retry=retry, again=again)
        if not planned.jobs:
            print(f"{step.teacher_of(task).model} has answered everything; nothing to ask")
        else:
            _confirm(task, planned, budget, yes)
            done = _show_progress(project, store, planned, budget, record)
            _tell(done, budget)
        _tell_bias(task, store, planned)


def _confirm(task: Task, planned: Plan, budget: float | None, yes: bool) -> None:
    from fingerpost.errors import BudgetError
    from fingerpost.label import teacher_of
    from fingerpost.llm.prices import is_local, price_source

    teacher = teacher_of(task)
    print(f"{len(planned.jobs):,} requests to {teacher.model}, about {planned.prompt_tokens:,} prompt tokens")
    if planned.at_most_usd == 0:
        print("no cost: it runs on this machine" if is_local(teacher) else "no cost, by task.toml")
        return
    source = "task.toml" if teacher.prices else price_source()
    cap = f"; the budget is ${budget:g}" if budget is not None else ""
    print(f"about ${planned.about_usd:.4f}, at most ${planned.at_most_usd:.4f} (prices: {source}){cap}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise BudgetError("nothing was asked: this costs money; add --yes, and --budget for a cap")
    if not typer.confirm("Go on?"):
        raise typer.Exit(1)


def _show_progress(
    project: Project, store: Store, planned: Plan, budget: float | None, record: Path | None
) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from fingerpost import label as step

    with Bar(
        TextColumn("labelling"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f}/s  ${task.fields[cost]:.4f}  {task.fields[none]} without a label "),
        TimeRemainingColumn(),
        console=console(),
        disable=not sys.stdout.isatty(),
    ) as bar:
        line = bar.add_task("label", total=len(planned.jobs), rate=0.0, cost=0.0, none=0)

        def show(progress: Progress) -> None:
            bar.update(
                line,
                completed=progress.done,
                rate=progress.rate,
                cost=progress.cost_usd,
                none=progress.no_answer,
            )

        return step.label(
            project.task, store, planned, project.folder, budget_usd=budget, record=record, on_progress=show
        )


def _tell(done: Progress, budget: float | None) -> None:
    cached = f", {done.cached_tokens / done.prompt_tokens:.0%} of prompt tokens cached" if done.prompt_tokens else ""
    print(
        f"{done.labelled:,} labelled, {done.no_answer:,} without a label, ${done.cost_usd:.4f}, {done.rate:.1f}/s{cached}"
    )
    if done.no_answer:
        print(f"  for instance: '{done.example}'; 'fingerpost label --retry' asks those again")
    if done.stopped == "budget":
        print(f"stopped: the next request could exceed the budget of ${budget:g}; raise it to go on")
    if done.stopped == "interrupted":
        print("stopped; run the command again to go on")


def _tell_bias(task: Task, store: Store, planned: Plan) -> None:
    from fingerpost.bias import position_bias
    from fingerpost.label import teacher_of

    name = teacher_of(task).model
    verdicts = [each for mine in store.verdicts().values() for each in mine if each.by == name]
    bias = position_bias(task, planned.orders, verdicts)
    if not bias.questions:
        return
    places = "  ".join(f"{seen}/{due:.0f}" for seen, due in zip(bias.observed, bias.expected, strict=True))
    print(
        f"position bias: {bias.changed} of {bias.questions} questions asked in several orders changed their answer; "
        f"answers from each quarter of the list, found/expected: {places}"
    )
