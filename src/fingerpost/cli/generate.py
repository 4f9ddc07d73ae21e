"""generate: the teacher writes questions, sifted and measured before the eyes of whoever pays."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.console import confirm_price, console, show_message
from fingerpost.cli.options import Budget, Folder, Yes
from fingerpost.project import STUDENT, Project

if TYPE_CHECKING:
    from fingerpost.generation.generate import Generated
    from fingerpost.generation.plan import Error
    from fingerpost.generation.rounds import Round
    from fingerpost.store.project import Store


def generate(
    folder: Path = Folder,
    count: Annotated[
        int | None,
        typer.Option(
            min=1, help="Until so many written questions can be learnt from; without it, until more bring nothing."
        ),
    ] = None,
    from_errors: Annotated[
        bool,
        typer.Option("--from-errors", help="More like the dev questions that the student gets wrong or is unsure of."),
    ] = False,
    model: Annotated[Path | None, typer.Option(help="The student, if it is not models/student.")] = None,
    seed: Annotated[int, typer.Option(help="Draws labels, styles and first words.")] = 0,
    budget: float | None = Budget,
    yes: bool = Yes,
    batch: Annotated[bool, typer.Option("--batch", help="As batches: half the price, within a day.")] = False,
) -> None:
    """Have the teacher write questions, from the labels and their descriptions alone or in the manner of your users."""
    from fingerpost.core.utils import locked
    from fingerpost.generation import generate as step
    from fingerpost.generation.rounds import trusted

    project = Project(folder)
    with project.store() as store, locked(folder / ".generate.lock", "another 'fingerpost generate' works here"):
        errors = _errors(project, store, model or project.models / STUDENT) if from_errors else []
        wanted = count or (len(errors) if errors else None)
        there = 0 if errors else len(trusted(project.task, store))
        lacking = max(0, (wanted or step.MOST) - there) + step.open_questions(project.task, store)
        if lacking:
            planned = step.estimate(project.task, lacking, batch=batch)
            writers = ", ".join(each.model for each in step.writers_of(project.task))
            print(f"about {planned.calls:,} requests to {writers} for questions, and one for the label of each")
            confirm_price(project.task, planned.about_usd, planned.at_most_usd, budget, yes)
        done = _run(project, store, wanted, errors, seed, budget, batch)
    _tell(done, budget)


def _run(
    project: Project,
    store: Store,
    count: int | None,
    errors: list[Error],
    seed: int,
    budget: float | None,
    batch: bool,
) -> Generated:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from fingerpost.generation import generate as step
    from fingerpost.llm.requests import RunProgress

    out = console()
    with Bar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=out, disable=not sys.stdout.isatty(), transient=True,
    ) as bar:  # fmt: skip
        line = bar.add_task("planning", total=None)

        def show(what: str, progress: RunProgress) -> None:
            bar.update(line, description=what, total=progress.total, completed=progress.done)

        return step.generate(
            project.task,
            store,
            project.folder,
            project.embed,
            count=count,
            errors=errors,
            seed=seed,
            budget_usd=budget,
            batch=batch,
            on_progress=show,
            on_round=lambda each: out.print(_line(each)),
            show=show_message,
        )


def _line(each: Round) -> str:
    parts = [f"round {each.number}: {each.asked} asked for, {each.kept} kept"]
    if each.kept:
        parts.append(f"{each.confirmed} of them confirmed blind, {each.border} border cases")
    if each.gap:
        parts.append(f"synthetic gap {each.gap.value:.2f} (n = {each.gap.n} of each, p = {each.gap.p:.2g})")
    if each.curve:
        parts.append(f"learning curve {each.curve.half:.2f} to {each.curve.full:.2f}")
    return "; ".join(parts)


def _tell(done: Generated, budget: float | None) -> None:
    from fingerpost.generation.filters import KEPT, REASONS

    fates: Counter[str] = Counter()
    for each in done.rounds:
        fates.update(each.fates)
    rejected = [(n, reason) for reason, n in fates.most_common() if reason != KEPT]
    border, none = sum(each.border for each in done.rounds), sum(each.unanswered for each in done.rounds)
    confirmed = sum(each.confirmed for each in done.rounds)
    print(f"{fates[KEPT]:,} questions kept, {confirmed:,} of them confirmed; {sum(n for n, _ in rejected):,} not kept:")
    for n, reason in rejected:
        print(f"  {n:6,}  {reason}: {REASONS[reason]}")
    if border:
        print(
            f"{border:,} border cases: the teacher, asked blind, says another label; 'fingerpost review' decides them"
        )
    if none:
        print(f"{none:,} have no label yet; 'fingerpost label' asks for it")
    if done.stopped == "budget":
        print(f"stopped: the next request could exceed the budget of ${budget:g}; raise it to go on")
    elif done.stopped == "interrupted":
        print("stopped; run the command again to go on")
    else:
        print(f"ended: {done.why}")


def _errors(project: Project, store: Store, model: Path) -> list[Error]:
    from fingerpost.core.errors import InputError
    from fingerpost.generation.generate import errors_of

    found = errors_of(project.task, store, model)
    if not found:
        raise InputError(f"{model} gets no dev question wrong and is sure of all: there is nothing to write more of")
    print(f"{len(found):,} dev questions that {model} gets wrong or is unsure of")
    return found
