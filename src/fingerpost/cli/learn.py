"""train and evaluate: with a project folder, or with files alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fingerpost.cli.hosted import Hosting, agree_to_ask, train_hosted
from fingerpost.cli.project import Folder, Project, Yes, require_folders, show_rejected, show_step

if TYPE_CHECKING:
    from fingerpost.compare import TestRow
    from fingerpost.evaluate import Contestant
    from fingerpost.examples import TrainingSet
    from fingerpost.intake import Columns
    from fingerpost.opinions import LabelsFrom
    from fingerpost.store import Store
    from fingerpost.types import Example, Manifest, Report, Task

STUDENT, BASE, UNREVIEWED = "student", "base", "without-reviews"
ENCODER, HOSTED = "encoder", "hosted"


def labels_from(given: str, known: Sequence[str] = ("consensus", "best", "teacher", "human")) -> LabelsFrom:
    """Check the option --labels."""
    from fingerpost.errors import InputError

    if given not in known:
        raise InputError(f"there are no labels from '{given}'; write {', '.join(known[:-1])} or {known[-1]}")
    return cast("LabelsFrom", given)


def train(
    file: Annotated[Path | None, typer.Argument(help="A file with texts and labels; without it, the project.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The model folder.")] = None,
    folder: Path = Folder,
    labels: Annotated[
        str, typer.Option(help="Whose labels: consensus, best (people's, else the teacher's), teacher, human.")
    ] = "consensus",
    text: Annotated[str | None, typer.Option(help="The file's column of texts; else 'text' or the like.")] = None,
    label: Annotated[str | None, typer.Option(help="The file's column of labels; else 'label' or the like.")] = None,
    encoder: Annotated[str | None, typer.Option(help="A sentence encoder: folder or hub name.")] = None,
    history: Annotated[int | None, typer.Option(min=0, help="Earlier turns that the student sees.")] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Of fine-tuning; 0 for the linear head alone.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes it repeatable.")] = None,
    compare: Annotated[bool, typer.Option(help="Where reviews changed labels, train one without them, too.")] = True,
    student: Annotated[str, typer.Option(help="encoder, on this machine; or hosted, a job at a provider.")] = ENCODER,
    model: Annotated[str, typer.Option(help="Hosted: the provider's base model.")] = "gpt-4.1-mini-2025-04-14",
    suffix: Annotated[str | None, typer.Option(help="Hosted: a part of the model's name.")] = None,
    base_url: Annotated[
        str | None, typer.Option(envvar="OPENAI_BASE_URL", help="Hosted: the endpoint, if it is not OpenAI.")
    ] = None,
    key_env: Annotated[str, typer.Option(help="Hosted: the environment variable with the key.")] = "OPENAI_API_KEY",
    price: Annotated[float | None, typer.Option(min=0, help="Hosted: US dollars per million training tokens.")] = None,
    yes: bool = Yes,
) -> None:
    """Train a student: a sentence encoder with a linear head, as one ONNX graph; or a model at a provider."""
    from fingerpost.errors import InputError

    if student not in (ENCODER, HOSTED):
        raise InputError(f"there is no student '{student}'; write {ENCODER} or {HOSTED}")
    if student == HOSTED:
        data = _training_set(file, folder, labels_from(labels), text, label)
        target = output or (folder / "models" / HOSTED if file is None else None)
        if target is None:
            raise InputError("where should the model go? name its folder with -o")
        train_hosted(data, target, Hosting(model, suffix, base_url, key_env, price, yes), epochs)
        return
    options = {"encoder": encoder, "history": history, "epochs": epochs, "seed": seed}
    given = {key: value for key, value in options.items() if value is not None}
    if file is None:
        train_project(Project(folder), labels_from(labels), output, given, compare)
        return
    from fingerpost import train as step
    from fingerpost.intake import Columns

    if output is None:
        raise InputError("where should the model go? name its folder with -o")
    data = step.from_file(file, Columns(text, label))
    _tell_trained(step.train(data, output, show=show_step, **given), output)
    show_rejected(file, data.rejected, len(data.rejected) + len(data.train) + len(data.dev))


def _training_set(file: Path | None, folder: Path, use: LabelsFrom, text: str | None, label: str | None) -> TrainingSet:
    """What to learn from: a file, or the project."""
    from fingerpost import train as step
    from fingerpost.examples import from_store
    from fingerpost.intake import Columns

    if file is not None:
        return step.from_file(file, Columns(text, label))
    project = Project(folder)
    with project.store() as store:
        return from_store(project.task, store, use, project.embed)


def train_project(
    project: Project, use: LabelsFrom, output: Path | None, options: dict[str, Any], compare: bool = True
) -> Path:
    """Train the project's student; returns its folder.

    With `compare`, where people's reviews have changed the labels, a student without them is trained beside it, so that
    the report can say what the reviews brought. It is kept while the teacher's labels stay the same.
    """
    from fingerpost import train as step
    from fingerpost.examples import from_store
    from fingerpost.types import StudentSettings

    step.require_training("training")
    given = {**project.task.student.model_dump(), **options}
    settings = StudentSettings(**{key: given[key] for key in StudentSettings.model_fields})
    embed = partial(project.embed, settings=settings)
    target = output or project.models / STUDENT
    with project.store() as store:
        data = from_store(project.task, store, use, embed)
        unreviewed = project.models / UNREVIEWED
        stale = bool(options) or not trained_on_these(project, store, unreviewed, "teacher")
        if compare and output is None and data.changed and stale:
            print("without the reviews, to compare:")
            plain = from_store(project.task, store, "teacher", embed)
            _tell_trained(step.train(plain, unreviewed, show=show_step, **given), unreviewed)
    _tell_trained(step.train(data, target, show=show_step, **given), target)
    return target


def trained_on_these(project: Project, store: Store, folder: Path, use: LabelsFrom) -> bool:
    """Whether the model in the folder was trained on the labels that are there now."""
    from fingerpost.artifact import MANIFEST, is_of, read_manifest
    from fingerpost.errors import InputError
    from fingerpost.examples import fingerprint_of

    if not (folder / MANIFEST).is_file():
        return False
    try:
        fingerprint = fingerprint_of(project.task, store, use)
    except InputError:
        return False
    manifest = read_manifest(folder)
    return manifest.data_fingerprint == fingerprint and is_of(manifest, project.task)


def _tell_trained(manifest: Manifest, folder: Path) -> None:
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    training = manifest.training
    how = f"{training['epochs']} epochs of fine-tuning" if training["epochs"] else "linear head"
    print(
        f"{folder}: {len(manifest.labels)} labels, {training['train_rows']:,} training rows, {how}, "
        f"dev accuracy {training['dev_accuracy']:.3f} (n = {training['dev_rows']:,}), {manifest.precision}, "
        f"{size:.0f} MB, {training['seconds']:.0f} s"
    )


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
    from fingerpost.errors import InputError

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
    from fingerpost import train as training

    training.require_training("measuring")
    from fingerpost import evaluate as step
    from fingerpost.errors import InputError
    from fingerpost.examples import from_store
    from fingerpost.students import load

    folders = list(models) or student_folders(project)
    if not folders:
        raise InputError("there is no student yet; run 'fingerpost train'")
    notes: list[str] = []
    with project.store() as store:
        rows = step.rows_from_store(store)
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
    from fingerpost.artifact import MANIFEST

    found = sorted(path.parent for path in project.models.glob(f"*/{MANIFEST}"))
    return [path for path in found if path.name != BASE and not path.name.startswith(".")]


def report_inputs(project: Project, store: Store) -> str:
    """Changes when a report would come out differently: test rows, verdicts, models."""
    from fingerpost.artifact import MANIFEST
    from fingerpost.text import fingerprint

    manifests = [(each / MANIFEST).read_text(encoding="utf-8") for each in student_folders(project)]
    counts = [str(item) for item in [*sorted(store.counts().items()), *store.verdict_counts()]]
    return fingerprint([project.task.model_dump_json(), *counts, *manifests])


def _base(project: Project) -> Path:
    """The untuned base of the project's task, made if it is not there or of another task."""
    from fingerpost.artifact import MANIFEST, is_of, read_manifest
    from fingerpost.students.encoder.training import fit_base

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
    from fingerpost import train as training

    training.require_training("measuring")
    from fingerpost import evaluate as step
    from fingerpost.artifact import read_manifest, trained_on
    from fingerpost.errors import InputError
    from fingerpost.intake import Columns
    from fingerpost.students import load
    from fingerpost.students.encoder.training import fit_base
    from fingerpost.types import StudentSettings, Task

    if not models:
        raise InputError("which model? name its folder before the file")
    chosen = Columns(text, label)
    notes: list[str] = []
    seen = set().union(*(trained_on(each) for each in models))
    rows, rejected = step.rows_from_file(file, chosen, seen, notes)
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
        examples = [each for each in training.from_file(file, chosen).train if each.label in task.names]
        report = _with_curve(report, task, examples, rows)
    if rejected:
        report.notes.append(
            f"{len(rejected)} rows were left out, the first in line {rejected[0].line}: {rejected[0].reason}"
        )
    return report


def _student(folder: Path) -> Contestant:
    """A model to be measured; the answers of one at a provider are timed as they come, and not asked for twice."""
    from fingerpost.artifact import read_manifest
    from fingerpost.evaluate import Contestant
    from fingerpost.students import load

    return Contestant("student", load(folder), live=read_manifest(folder).kind != HOSTED)


def _teacher_of_file(file: Path, chosen: Columns, column: str, task: Task) -> Contestant:
    from dataclasses import replace

    from fingerpost.evaluate import Contestant, Recorded
    from fingerpost.ingest import teacher_verdict
    from fingerpost.intake import Rejected, read_items
    from fingerpost.text import question_id
    from fingerpost.types import Verdict

    answers: dict[str, list[Verdict]] = {}
    for item in read_items(file, replace(chosen, label=column, teacher=column), task):
        if not isinstance(item, Rejected):
            key = question_id(item.messages)
            answers[key] = [teacher_verdict(item, key, column)]
    return Contestant("teacher", Recorded(column, answers), live=False)


def _with_curve(report: Report, task: Task, examples: Sequence[Example], rows: Sequence[TestRow]) -> Report:
    from fingerpost.evaluate import learning_curve

    show_step("training on fewer examples")
    return report.model_copy(update={"learning_curve": learning_curve(task, examples, rows)})


def _show(report: Report, json_file: Path | None, html: Path | None) -> None:
    from fingerpost.report import page, tables

    tables.show(report)
    if json_file is not None:
        json_file.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
        print(f"numbers: {json_file}")
    if html is not None:
        html.write_text(page.render(report), encoding="utf-8")
        print(f"report:  {html}")
