"""run and status: the whole path in one command, and where on it a project stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.label import label_project
from fingerpost.cli.learn import STUDENT, evaluate_project, report_inputs, train_project, trained_on_these
from fingerpost.cli.project import Budget, Project, Yes
from fingerpost.cli.questions import import_one

if TYPE_CHECKING:
    from fingerpost.store import Store


def run(
    folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path(),
    budget: float | None = Budget,
    yes: bool = Yes,
    votes: Annotated[int, typer.Option(min=1, help="Ask each question in so many label orders.")] = 1,
    learning_curve: Annotated[bool, typer.Option("--learning-curve", help="Also train on fewer examples.")] = False,
) -> None:
    """Import, label, train, evaluate: whatever of it is not done yet."""
    from fingerpost.deciding import Wanted
    from fingerpost.intake import Columns

    project = Project(folder)
    for number, data in enumerate(project.task.data, 1):
        _heading(f"import {number} of {len(project.task.data)}")
        import_one(project, project.folder / data.file, Columns(data.text, data.label, source=data.source))
    if project.task.teacher is not None:
        _heading("label")
        label_project(project, Wanted(votes), budget, yes)
    _heading("train")
    with project.store() as store:
        done = trained_on_these(project, store, project.models / STUDENT, "consensus")
    if done:
        print(f"{project.models / STUDENT} is trained on these labels already")
    else:
        train_project(project, "consensus", None, {})
    _heading("evaluate")
    with project.store() as store:
        report = project.reports / "report.json"
        done = report.is_file() and _inputs_of(report) == report_inputs(project, store)
    if done:
        print(f"{report.with_suffix('.html')} is up to date")
    else:
        evaluate_project(project, [], None, None, learning_curve, yes)
    print(f'\ntry it: fingerpost predict {project.models / STUDENT} "..."')
    print(f"use it: fingerpost serve {project.models / STUDENT} -C {project.folder}")


def status(folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path()) -> None:
    """What is there, what it cost, what to do next."""
    project = Project(folder)
    task = project.task
    print(f"{task.name}: {len(task.labels)} labels, teacher {task.teacher.model if task.teacher else '(none)'}")
    with project.store() as store:
        counts = store.counts()
        for source in sorted({each for each, _ in counts}):
            sides = {side: n for (each, side), n in sorted(counts.items()) if each == source}
            print(
                f"questions, {source}: {sum(sides.values()):,}  ({', '.join(f'{n:,} {side}' for side, n in sides.items())})"
            )
        for kind, by, questions, verdicts, none in store.verdict_counts():
            if kind == "writer":
                print(f"written by {by}: {questions:,} questions")
                continue
            more = f" in {verdicts:,} answers" if verdicts != questions else ""
            print(
                f"labels by {kind} {by}: {questions:,} questions{more}{f', {none:,} without a label' if none else ''}"
            )
        _account(store)
        trained = trained_on_these(project, store, project.models / STUDENT, "consensus")
        report = project.reports / "report.json"
        measured = report.is_file() and _inputs_of(report) == report_inputs(project, store)
        asked = _open_questions(project, store)
    print(f"student: {project.models / STUDENT if trained else 'none trained on these labels'}")
    print(f"report: {report.with_suffix('.html') if measured else 'none of this state'}")
    next_step = (
        "fingerpost import FILE, or fingerpost generate --count 400"
        if not counts
        else f"fingerpost label   ({asked:,} questions have no answer)"
        if asked
        else "fingerpost train"
        if not trained
        else "fingerpost evaluate"
        if not measured
        else f"fingerpost serve {project.models / STUDENT}"
    )
    print(f"next: {next_step}")


def _account(store: Store) -> None:
    account = store.ledger.account()
    if account.calls:
        unsure = (
            f"; ${account.uncertain_usd:.4f} of it for {account.uncertain} calls that were cut off, counted in full"
            if account.uncertain
            else ""
        )
        print(
            f"cost: ${account.committed_usd:.4f} for {account.calls:,} calls, {account.prompt_tokens:,} prompt tokens "
            f"({account.cached_tokens:,} cached), {account.completion_tokens:,} reply tokens{unsure}"
        )


def _open_questions(project: Project, store: Store) -> int:
    from fingerpost.deciding import open_jobs

    return len(open_jobs(project.task, store)) if project.task.teacher else 0


def _inputs_of(report: Path) -> str:
    import json

    try:
        return str(json.loads(report.read_text(encoding="utf-8")).get("inputs"))
    except ValueError:
        return ""


def _heading(text: str) -> None:
    print(f"\n== {text}", flush=True)
