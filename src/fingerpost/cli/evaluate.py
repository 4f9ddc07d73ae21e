"""evaluate: measure base, teacher and students on the same test rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.console import next_step, require_folders, show_format
from fingerpost.cli.options import Delimiter, Encoding, Folder, LabelColumn, Quote, TextColumn, Yes, project_and_files
from fingerpost.cli.progress import showing_progress
from fingerpost.core.errors import InputError
from fingerpost.data.formats import format_of_options
from fingerpost.data.rows import Columns
from fingerpost.evaluation.results import Report
from fingerpost.project import Project


def evaluate(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Model folders, and a file of test rows. Default: the project's.")
    ] = None,
    folder: Path = Folder,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report as JSON to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML file.")] = None,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Also measure training on fewer examples.")
    ] = False,
    cascade: Annotated[
        bool,
        typer.Option("--cascade", help="Also measure student and teacher together, as 'fingerpost serve' runs them."),
    ] = False,
    accuracy: Annotated[
        float | None,
        typer.Option(min=0.5, max=1, help="With --cascade: target accuracy of the student's own answers, e.g. 0.95."),
    ] = None,
    agreement: Annotated[
        float | None,
        typer.Option(min=0.5, max=1, help="With --cascade: target agreement of the student with the teacher."),
    ] = None,
    cutoff: Annotated[
        float | None, typer.Option(min=0, max=1, help="With --cascade: the confidence below which the teacher answers.")
    ] = None,
    text: str | None = TextColumn,
    label: str | None = LabelColumn,
    teacher: Annotated[str | None, typer.Option(help="The file's column of a teacher's answers.")] = None,
    encoding: str | None = Encoding,
    delimiter: str | None = Delimiter,
    quote: str = Quote,
    yes: bool = Yes,
) -> None:
    """Measure base, teacher and students on the same test rows."""
    require_folders(json_file, html)
    folder, paths = project_and_files(paths or [], folder)
    files = [path for path in paths if path.is_file()]
    models = [path for path in paths if path not in files]
    targets = [value for value in (accuracy, agreement, cutoff) if value is not None]
    if len(files) > 1:
        raise InputError("give one file of test rows")
    if bool(targets) != cascade or len(targets) > 1:
        raise InputError("--cascade takes one target: give one of --accuracy, --agreement and --cutoff with it")
    if files:
        if cascade:
            raise InputError("--cascade needs a project, whose dev questions choose the cut-off; name it with -C")
        form = format_of_options(quote, encoding, delimiter)
        show_format(files[0], form)
        _evaluate_file(
            files[0],
            models,
            Columns(text, label, format=form),
            teacher,
            learning_curve,
            yes,
            json_file,
            html,
        )
        return
    project = Project(folder)
    show_report(
        project, models, json_file, html, learning_curve, (accuracy, agreement, cutoff) if cascade else None, yes
    )
    next_step(*project.next_steps())


def show_report(
    project: Project,
    models: Sequence[Path] = (),
    json_file: Path | None = None,
    html: Path | None = None,
    learning_curve: bool = False,
    target: tuple[float | None, float | None, float | None] | None = None,
    yes: bool = True,
) -> None:
    """Measure the project's models, and show the report."""
    from fingerpost.cli.hosted import confirm_requests
    from fingerpost.evaluation.thresholds import CascadeTarget

    confirm_requests(models or project.students(), "the test questions", yes)
    cascade = None if target is None else CascadeTarget(*target)
    with showing_progress("evaluate") as show:
        project.on_progress = show
        report = project.evaluate(models, learning_curve=learning_curve, cascade=cascade, on_progress=show)
    show_and_write(report, json_file or project.reports / "report.json", html or project.reports / "report.html")


def _evaluate_file(
    file: Path,
    models: Sequence[Path],
    columns: Columns,
    teacher: str | None,
    learning_curve: bool,
    yes: bool,
    json_file: Path | None,
    html: Path | None,
) -> None:
    from fingerpost.cli.hosted import confirm_requests
    from fingerpost.evaluation import evaluate as step
    from fingerpost.evaluation.file import evaluate_file
    from fingerpost.students.folder import read_manifest
    from fingerpost.training.dataset import from_file, training_examples

    confirm_requests(models, f"the test rows of {file}", yes)
    training = training_examples(read_manifest(models[0])) if models else []
    with showing_progress("evaluate") as show:
        report, task, rows = evaluate_file(file, models, columns, teacher=teacher, training=training, on_progress=show)
    if learning_curve:
        examples = [example for example in from_file(file, columns).train if example.label in task.names]
        report = report.model_copy(update={"learning_curve": step.learning_curve(task, examples, rows)})
    show_and_write(report, json_file, html)


def show_and_write(report: Report, json_file: Path | None, html: Path | None) -> None:
    from fingerpost.evaluation.report import page, tables

    tables.show(report)
    if json_file is not None:
        json_file.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
        print(f"numbers: {json_file}")
    if html is not None:
        html.write_text(page.render(report), encoding="utf-8")
        print(f"report:  {html}")
