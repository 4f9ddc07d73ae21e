"""run: every step that is not done yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.evaluate import evaluate_project, report_inputs
from fingerpost.cli.import_ import import_one
from fingerpost.cli.label import label_project
from fingerpost.cli.options import Budget, Yes
from fingerpost.cli.status import inputs_of
from fingerpost.cli.train import STUDENT, train_project, trained_on_these
from fingerpost.project import Project


def run(
    folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path(),
    budget: float | None = Budget,
    yes: bool = Yes,
    votes: Annotated[int, typer.Option(min=1, help="Ask each question in so many label orders.")] = 1,
    learning_curve: Annotated[bool, typer.Option("--learning-curve", help="Also train on fewer examples.")] = False,
) -> None:
    """Import, label, train, evaluate: whatever of it is not done yet."""
    from fingerpost.data.rows import Columns
    from fingerpost.labelling.requests import LabelSelection

    project = Project(folder)
    for number, data in enumerate(project.task.data, 1):
        _heading(f"import {number} of {len(project.task.data)}")
        import_one(project, project.folder / data.file, Columns(data.text, data.label, source=data.source))
    if project.task.teacher is not None:
        _heading("label")
        label_project(project, LabelSelection(votes), budget, yes)
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
        done = report.is_file() and inputs_of(report) == report_inputs(project, store)
    if done:
        print(f"{report.with_suffix('.html')} is up to date")
    else:
        evaluate_project(project, [], None, None, learning_curve, yes)
    print(f'\ntry it: fingerpost predict {project.models / STUDENT} "..."')
    print(f"use it: fingerpost serve {project.models / STUDENT} -C {project.folder}")


def _heading(text: str) -> None:
    print(f"\n== {text}", flush=True)
