"""evaluate: measure base, teacher and students on the same rows."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.console import require_folders, show_step
from fingerpost.cli.hosted import agree_to_ask
from fingerpost.cli.options import Folder, Yes
from fingerpost.cli.train import BASE, HOSTED
from fingerpost.project import Project

if TYPE_CHECKING:
    from fingerpost.core.types import Example
    from fingerpost.data.rows import Columns
    from fingerpost.evaluation.evaluate import Contestant
    from fingerpost.evaluation.results import Report
    from fingerpost.evaluation.rows import TestRow
    from fingerpost.store.project import Store
    from fingerpost.task.settings import Task


def evaluate(
    paths: Annotated[list[Path] | None, typer.Argument(help="Model folders, and a file of test rows.")] = None,
    folder: Path = Folder,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML file.")] = None,
    learning_curve: Annotated[bool, typer.Option("--learning-curve", help="Also train on fewer examples.")] = False,
    text: Annotated[str | None, typer.Option(help="The file's column of texts; else 'text' or the like.")] = None,
    label: Annotated[str | None, typer.Option(help="The file's column of labels; else 'label' or the like.")] = None,
    teacher: Annotated[str | None, typer.Option(help="The file's column of a teacher's answers.")] = None,
    yes: bool = Yes,
) -> None:
    """Measure base, teacher and students on the same test rows."""
    from fingerpost.core.errors import InputError

    require_folders(json_file, html)
    files = [path for path in paths or [] if path.is_file()]
    models = [path for path in paths or [] if path not in files]
    if len(files) > 1:
        raise InputError("give one file of test rows")
    if files:
        report = _evaluate_file(files[0], models, text, label, teacher, learning_curve, yes)
        _show(report, json_file, html)
        return
    evaluate_project(Project(folder), models, json_file, html, learning_curve, yes)


def evaluate_project(
    project: Project,
    models: Sequence[Path],
    json_file: Path | None,
    html: Path | None,
    learning_curve: bool,
    yes: bool,
) -> Report:
    """Measure the project's models on its test questions; the report is kept in its folder."""
    from fingerpost.core.utils import require_training

    require_training("measuring")
    from fingerpost.core.errors import InputError
    from fingerpost.evaluation import evaluate as step
    from fingerpost.evaluation.rows import rows_from_store
    from fingerpost.students import load
    from fingerpost.training.dataset import from_store

    folders = list(models) or student_folders(project)
    if not folders:
        raise InputError("there is no student yet; run 'fingerpost train'")
    notes: list[str] = []
    with project.store() as store:
        rows = rows_from_store(project.task, store)
        agree_to_ask(folders, len(rows), yes)
        students = [_student(each) for each in folders]
        teachers = step.teachers_from_store(store, rows, notes)
        report = step.evaluate(
            project.task.name,
            project.task.names,
            rows,
            [step.Contestant("base", load(_base(project))), *teachers, *students],
            spent_usd=store.ledger.account().committed_usd,
            inputs=report_inputs(project, store),
            notes=notes,
            show=show_step,
        )
        quality = step.label_quality(project.task, store, project.embed)
        report = report.model_copy(update={"label_quality": quality})
        if learning_curve:
            examples = from_store(project.task, store, "consensus", project.embed).train
            report = _with_curve(report, project.task, examples, rows)
    project.reports.mkdir(exist_ok=True)
    _show(report, json_file or project.reports / "report.json", html or project.reports / "report.html")
    return report


def student_folders(project: Project) -> list[Path]:
    """The model folders of the project, without the base."""
    from fingerpost.students.folder import MANIFEST

    found = sorted(path.parent for path in project.models.glob(f"*/{MANIFEST}"))
    return [path for path in found if path.name != BASE and not path.name.startswith(".")]


def report_inputs(project: Project, store: Store) -> str:
    """Changes when a report would come out differently: test rows, verdicts, models."""
    from fingerpost.core.text import fingerprint
    from fingerpost.students.folder import MANIFEST

    manifests = [(each / MANIFEST).read_text(encoding="utf-8") for each in student_folders(project)]
    counts = [str(item) for item in [*sorted(store.counts().items()), *store.verdict_counts()]]
    return fingerprint([project.task.model_dump_json(), *counts, *manifests])


def _base(project: Project) -> Path:
    """The untuned base of the project's task, made if it is not there or of another task."""
    from fingerpost.students.encoder.train import fit_base
    from fingerpost.students.folder import MANIFEST, is_of, read_manifest

    folder = project.models / BASE
    if not (folder / MANIFEST).is_file() or not is_of(read_manifest(folder), project.task):
        show_step("exporting the untuned base")
        fit_base(project.task, folder)
    return folder


def _evaluate_file(
    file: Path,
    models: list[Path],
    text: str | None,
    label: str | None,
    teacher: str | None,
    learning_curve: bool,
    yes: bool,
) -> Report:
    from fingerpost.core.utils import require_training

    require_training("measuring")
    from fingerpost.core.errors import InputError
    from fingerpost.data.rows import Columns
    from fingerpost.evaluation import evaluate as step
    from fingerpost.evaluation.rows import rows_from_file
    from fingerpost.students import load
    from fingerpost.students.encoder.train import fit_base
    from fingerpost.students.folder import read_manifest, trained_on
    from fingerpost.task.settings import StudentSettings, Task
    from fingerpost.training.dataset import from_file

    if not models:
        raise InputError("which model? name its folder before the file")
    chosen = Columns(text, label)
    notes: list[str] = []
    seen = set().union(*(trained_on(each) for each in models))
    rows, rejected = rows_from_file(file, chosen, seen, notes)
    agree_to_ask(models, len(rows), yes)
    manifest = read_manifest(models[0])
    task = Task(
        name=file.stem,
        answer_field=manifest.answer_field,
        labels=tuple(manifest.labels),
        student=StudentSettings(
            encoder=manifest.encoder.get("name", StudentSettings().encoder),
            history=manifest.history,
            seed=manifest.seed,
        ),
    )
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / BASE
        show_step("exporting the untuned base")
        fit_base(task, base)
        contestants = [step.Contestant("base", load(base))]
        if teacher is not None:
            contestants.append(_teacher_of_file(file, chosen, teacher, task))
        contestants += [_student(each) for each in models]
        report = step.evaluate(file.stem, task.names, rows, contestants, notes=notes, show=show_step)
    if learning_curve:
        examples = [each for each in from_file(file, chosen).train if each.label in task.names]
        report = _with_curve(report, task, examples, rows)
    if rejected:
        report.notes.append(
            f"{len(rejected)} rows were left out, the first in line {rejected[0].line}: {rejected[0].reason}"
        )
    return report


def _student(folder: Path) -> Contestant:
    """A model to be measured; the answers of one at a provider are timed as they come, and not asked for twice."""
    from fingerpost.evaluation.evaluate import Contestant
    from fingerpost.students import load
    from fingerpost.students.folder import read_manifest

    return Contestant("student", load(folder), live=read_manifest(folder).kind != HOSTED)


def _teacher_of_file(file: Path, chosen: Columns, column: str, task: Task) -> Contestant:
    from dataclasses import replace

    from fingerpost.core.text import question_id
    from fingerpost.core.types import Verdict
    from fingerpost.data.importer import teacher_verdict
    from fingerpost.data.rows import Rejected, read_labelled_rows
    from fingerpost.evaluation.evaluate import Contestant, Recorded

    answers: dict[str, list[Verdict]] = {}
    for item in read_labelled_rows(file, replace(chosen, label=column, teacher=column), task):
        if not isinstance(item, Rejected):
            key = question_id(item.messages)
            answers[key] = [teacher_verdict(item, key, column)]
    return Contestant("teacher", Recorded(column, answers), live=False)


def _with_curve(report: Report, task: Task, examples: Sequence[Example], rows: Sequence[TestRow]) -> Report:
    from fingerpost.evaluation.evaluate import learning_curve

    show_step("training on fewer examples")
    return report.model_copy(update={"learning_curve": learning_curve(task, examples, rows)})


def _show(report: Report, json_file: Path | None, html: Path | None) -> None:
    from fingerpost.evaluation.report import page, tables

    tables.show(report)
    if json_file is not None:
        json_file.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
        print(f"numbers: {json_file}")
    if html is not None:
        html.write_text(page.render(report), encoding="utf-8")
        print(f"report:  {html}")
