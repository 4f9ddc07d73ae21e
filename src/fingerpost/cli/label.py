"""label: the teacher at work, with its cost before the eyes of whoever pays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.console import console, price_agreed, require_folders, show_step
from fingerpost.cli.options import Budget, Folder, Yes
from fingerpost.project import Project

if TYPE_CHECKING:
    from fingerpost.labelling.label import Plan
    from fingerpost.labelling.requests import LabelSelection
    from fingerpost.llm.requests import RunProgress
    from fingerpost.store.project import Store
    from fingerpost.task.settings import Task


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
    batch: Annotated[bool, typer.Option("--batch", help="As a batch: half the price, within a day.")] = False,
) -> None:
    """Have the teacher label what has no label yet."""
    from fingerpost.cli.options import splits_of
    from fingerpost.core.errors import InputError
    from fingerpost.labelling.requests import SIDES, LabelSelection

    require_folders(record)
    if record and batch:
        raise InputError("--record keeps the answers of a teacher that is asked at once; leave out --batch")
    project = Project(folder)
    wanted = LabelSelection(votes, splits_of(split) or SIDES, limit, retry, again)
    label_project(project, wanted, budget, yes, record, batch)


def label_project(
    project: Project,
    wanted: LabelSelection,
    budget: float | None = None,
    yes: bool = False,
    record: Path | None = None,
    batch: bool = False,
) -> None:
    """Plan, ask whether to go on, label, and say what came of it."""
    from fingerpost.labelling import label as step
    from fingerpost.labelling.requests import STEP
    from fingerpost.llm.requests import teacher_of

    task = project.task
    with project.store() as store:
        planned = step.plan(task, store, wanted, batch=batch)
        out = len(store.batch_keys(STEP, teacher_of(task).model))
        if out:
            how = "it is fetched now" if batch else "'fingerpost label --batch' fetches it"
            print(f"a batch of {out:,} requests is at the provider; {how}")
        if planned.jobs:
            print(
                f"{len(planned.jobs):,} requests to {teacher_of(task).model}, about {planned.prompt_tokens:,} prompt tokens"
            )
            price_agreed(task, planned.about_usd, planned.at_most_usd, budget, yes)
        elif not out:
            print(f"{teacher_of(task).model} has answered everything; nothing to ask")
        if planned.jobs or (out and batch):
            _tell(_show_progress(project, store, planned, budget, record, batch), budget)
        _tell_bias(task, store)


def _show_progress(
    project: Project, store: Store, planned: Plan, budget: float | None, record: Path | None, batch: bool
) -> RunProgress:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from fingerpost.labelling import label as step

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

        def show(progress: RunProgress) -> None:
            bar.update(
                line,
                completed=progress.done,
                rate=progress.rate,
                cost=progress.cost_usd,
                none=progress.useless,
            )

        return step.label(
            project.task,
            store,
            planned,
            project.folder,
            budget_usd=budget,
            record=record,
            batch=batch,
            on_progress=show,
            show=show_step,
        )


def _tell(done: RunProgress, budget: float | None) -> None:
    cached = f", {done.cached_tokens / done.prompt_tokens:.0%} of prompt tokens cached" if done.prompt_tokens else ""
    print(
        f"{done.useful:,} labelled, {done.useless:,} without a label, ${done.cost_usd:.4f}, {done.rate:.1f}/s{cached}"
    )
    if done.useless:
        print(f"  for instance: '{done.example}'; 'fingerpost label --retry' asks those again")
    if not done.stopped and done.done < done.total:
        print(
            f"{done.total - done.done:,} came back unanswered and cost nothing; run the command again to ask for them"
        )
    if done.stopped == "budget":
        print(f"stopped: the next request could exceed the budget of ${budget:g}; raise it to go on")
    if done.stopped == "interrupted":
        print("stopped; run the command again to go on")


def _tell_bias(task: Task, store: Store) -> None:
    from fingerpost.labelling.position_bias import position_bias
    from fingerpost.labelling.requests import order_count
    from fingerpost.llm.requests import teacher_of

    name = teacher_of(task).model
    verdicts = [
        each for mine in store.verdicts().values() for each in mine if each.kind == "teacher" and each.by == name
    ]
    bias = position_bias(task, order_count(task), verdicts)
    if not bias.questions:
        return
    places = "  ".join(f"{seen}/{due:.0f}" for seen, due in zip(bias.observed, bias.expected, strict=True))
    print(
        f"position bias: {bias.changed} of {bias.questions} questions asked in several orders changed their answer; "
        f"answers from each quarter of the list, found/expected: {places}"
    )
