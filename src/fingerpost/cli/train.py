"""train: train a student, from a project or a labelled file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fingerpost.cli.console import show_rejected, show_step
from fingerpost.cli.hosted import Hosting, train_hosted
from fingerpost.cli.options import Folder, Yes, labels_from
from fingerpost.project import Project

if TYPE_CHECKING:
    from fingerpost.core.verdicts import LabelsFrom
    from fingerpost.store.project import Store
    from fingerpost.students.folder import Manifest
    from fingerpost.training.dataset import TrainingSet

STUDENT, BASE, UNREVIEWED = "student", "base", "without-reviews"

ENCODER, HOSTED = "encoder", "hosted"


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
    from fingerpost.core.errors import InputError

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
    from fingerpost.data.rows import Columns
    from fingerpost.training import train as step
    from fingerpost.training.dataset import from_file

    if output is None:
        raise InputError("where should the model go? name its folder with -o")
    data = from_file(file, Columns(text, label))
    tell_trained(step.train(data, output, show=show_step, **given), output)
    show_rejected(file, data.rejected, len(data.rejected) + len(data.train) + len(data.dev))


def _training_set(file: Path | None, folder: Path, use: LabelsFrom, text: str | None, label: str | None) -> TrainingSet:
    """What to learn from: a file, or the project."""
    from fingerpost.data.rows import Columns
    from fingerpost.training.dataset import from_file, from_store

    if file is not None:
        return from_file(file, Columns(text, label))
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
    from fingerpost.core.utils import require_training
    from fingerpost.task.settings import StudentSettings
    from fingerpost.training import train as step
    from fingerpost.training.dataset import from_store

    require_training("training")
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
            tell_trained(step.train(plain, unreviewed, show=show_step, **given), unreviewed)
    tell_trained(step.train(data, target, show=show_step, **given), target)
    return target


def trained_on_these(project: Project, store: Store, folder: Path, use: LabelsFrom) -> bool:
    """Whether the model in the folder was trained on the labels that are there now."""
    from fingerpost.core.errors import InputError
    from fingerpost.students.folder import MANIFEST, is_of, read_manifest
    from fingerpost.training.dataset import fingerprint_of

    if not (folder / MANIFEST).is_file():
        return False
    try:
        fingerprint = fingerprint_of(project.task, store, use)
    except InputError:
        return False
    manifest = read_manifest(folder)
    return manifest.data_fingerprint == fingerprint and is_of(manifest, project.task)


def tell_trained(manifest: Manifest, folder: Path) -> None:
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    training = manifest.training
    how = f"{training['epochs']} epochs of fine-tuning" if training["epochs"] else "linear head"
    print(
        f"{folder}: {len(manifest.labels)} labels, {training['train_rows']:,} training rows, {how}, "
        f"dev accuracy {training['dev_accuracy']:.3f} (n = {training['dev_rows']:,}), {manifest.precision}, "
        f"{size:.0f} MB, {training['seconds']:.0f} s"
    )
