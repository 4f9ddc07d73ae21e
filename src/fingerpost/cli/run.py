"""run: every step that is not done yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fingerpost.cli.evaluate import show_report
from fingerpost.cli.import_ import show_imported
from fingerpost.cli.label import label_project
from fingerpost.cli.options import Budget, Yes
from fingerpost.cli.train import show_trained
from fingerpost.data.formats import format_of_options
from fingerpost.data.rows import Columns
from fingerpost.labelling.requests import LabelSelection
from fingerpost.project import STUDENT, Project


def run(
    folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path(),
    budget: float | None = Budget,
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
    student = project.models / STUDENT
    for number, data in enumerate(project.task.data, 1):
        _heading(f"import {number} of {len(project.task.data)}")
        file = project.folder / data.file
        show_imported(
            file,
            project.import_file(
                file,
                Columns(
                    data.text,
                    data.label,
                    source=data.source,
                    format=format_of_options(data.quote, data.encoding, data.delimiter),
                ),
            ),
        )
    if project.task.teacher is not None:
        _heading("label")
        label_project(project, LabelSelection(votes), budget, yes)
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
    print(f'\ntry it: fingerpost predict {student} "..."')
    print(f"use it: fingerpost serve {student} -C {project.folder}")


def _heading(text: str) -> None:
    print(f"\n== {text}", flush=True)
