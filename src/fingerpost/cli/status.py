"""status: what a project has, what it cost, what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.evaluate import report_inputs
from fingerpost.cli.train import STUDENT, trained_on_these
from fingerpost.project import Project

if TYPE_CHECKING:
    from fingerpost.store.project import Store


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
        measured = report.is_file() and inputs_of(report) == report_inputs(project, store)
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
    from fingerpost.labelling.requests import open_jobs

    return len(open_jobs(project.task, store)) if project.task.teacher else 0


def inputs_of(report: Path) -> str:
    import json

    try:
        return str(json.loads(report.read_text(encoding="utf-8")).get("inputs"))
    except ValueError:
        return ""
