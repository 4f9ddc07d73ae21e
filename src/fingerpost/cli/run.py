"""run: every step that is not done yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fingerpost.cli.console import next_step, too_many_rejected
from fingerpost.cli.evaluate import show_report
from fingerpost.cli.exit_codes import BUDGET, DONE, INTERRUPTED, PARTLY
from fingerpost.cli.import_ import import_one
from fingerpost.cli.label import label_project
from fingerpost.cli.options import Budget as BudgetOption
from fingerpost.cli.options import Yes
from fingerpost.cli.train import show_trained
from fingerpost.core.errors import InputError
from fingerpost.data.formats import format_of_options
from fingerpost.data.rows import Columns
from fingerpost.labelling.requests import LabelSelection
from fingerpost.project import STUDENT, Project


def run(
    folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path(),
    budget: float | None = BudgetOption,
    yes: bool = Yes,
    votes: Annotated[int, typer.Option(min=1, help="Ask each question in this many label orders.")] = 1,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=0, help="Epochs of fine-tuning; 0 for none. Default: 3, 2 on a CPU, if a trial promises a gain."
        ),
    ] = None,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Also measure training on fewer examples.")
    ] = False,
) -> None:
    """Import, label, train and evaluate: every step that is not done yet."""
    project = Project(folder)
    code = DONE
    student = project.models / STUDENT
    for number, data in enumerate(project.task.data, 1):
        _heading(f"import {number} of {len(project.task.data)}")
        file = project.folder / data.file
        form = format_of_options(data.quote, data.encoding, data.delimiter)
        done = import_one(project, file, Columns(data.text, data.label, source=data.source, format=form))
        if too_many_rejected(done.rejected, done.rows):
            raise InputError(
                "stopped before the teacher is asked, because so many rows cannot be used; correct the file, or import it "
                "with the options that it needs"
            )
        code = max(code, PARTLY if done.rejected else DONE)
    if project.task.teacher is not None:
        _heading("label")
        labelled = label_project(project, LabelSelection(votes), budget, yes)
        if labelled in (BUDGET, INTERRUPTED):
            raise typer.Exit(labelled)
        code = max(code, labelled)
    _heading("train")
    options: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    if project.is_trained():
        print(f"{student} is trained on these labels already")
    else:
        show_trained(project, options)
    _heading("evaluate")
    if project.report_is_current():
        print(f"{project.reports / 'report.html'} is up to date")
    else:
        show_report(project, learning_curve=learning_curve)
    print()
    next_step(*project.next_steps(), f'fingerpost predict {student} "..."')
    raise typer.Exit(code)


def _heading(text: str) -> None:
    print(f"\n== {text}", flush=True)
