"""train: train a student, from a project or a labelled file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from fingerpost.cli.console import show_message, show_rejected
from fingerpost.cli.options import Delimiter, Encoding, Folder, LabelColumn, Quote, TextColumn, Yes, labels_from
from fingerpost.core.errors import InputError
from fingerpost.core.types import Tuning
from fingerpost.core.utils import require_training
from fingerpost.core.verdicts import LabelsFrom
from fingerpost.data.formats import format_of_options
from fingerpost.data.rows import Columns
from fingerpost.project import Project
from fingerpost.students.folder import Manifest
from fingerpost.training.dataset import TrainingSet, from_file, from_store
from fingerpost.training.train import train as train_student

ENCODER, HOSTED = "encoder", "hosted"


def train(
    file: Annotated[
        Path | None, typer.Argument(help="A file with texts and labels, or chat JSONL. Default: the project.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write the model to. Required with a file; else models/student."),
    ] = None,
    folder: Path = Folder,
    labels: Annotated[
        str,
        typer.Option(help="Whose labels: consensus, best (human, else the teacher's), teacher, or human."),
    ] = "consensus",
    text: str | None = TextColumn,
    label: str | None = LabelColumn,
    encoding: str | None = Encoding,
    delimiter: str | None = Delimiter,
    quote: str = Quote,
    multi: Annotated[
        bool, typer.Option("--multi", help="Several labels for a text: split each cell of the file at | ; or ,")
    ] = False,
    encoder: Annotated[
        str | None, typer.Option(help="The sentence encoder: a folder or a hub name. Default: auto, by the language.")
    ] = None,
    consensus_encoder: Annotated[
        str | None, typer.Option(help="Another encoder for the consensus with the reviews; it may be larger.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=16, help="Tokens that the encoder reads at once. Default: what 95 % of the texts fit into."),
    ] = None,
    history: Annotated[
        int | None, typer.Option(min=0, help="Earlier turns of a conversation that the student sees. Default: 2.")
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(
            metavar="auto|on|off",
            help="Whether to fine-tune the encoder; auto, the default, does it if a trial on some rows promises a gain.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=0, help="Epochs of fine-tuning. Default: 3, 2 on a CPU. Without --tune, 0 means off and more means on."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random choices in training. Default: 0.")] = None,
    compare: Annotated[
        bool, typer.Option(help="Where reviews changed labels, also train a student without the reviews.")
    ] = True,
    student: Annotated[
        str, typer.Option(help="encoder, trained on this machine; or hosted, a fine-tuning job at a provider.")
    ] = ENCODER,
    model: Annotated[
        str, typer.Option(help="With --student hosted: the provider's base model.")
    ] = "gpt-4.1-mini-2025-04-14",
    suffix: Annotated[
        str | None, typer.Option(help="With --student hosted: text that the provider adds to the model's name.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(envvar="OPENAI_BASE_URL", help="With --student hosted: the provider's address. Default: OpenAI."),
    ] = None,
    key_env: Annotated[
        str, typer.Option(help="With --student hosted: the environment variable with the API key.")
    ] = "OPENAI_API_KEY",
    price: Annotated[
        float | None,
        typer.Option(min=0, help="With --student hosted: the price in US dollars per million training tokens."),
    ] = None,
    yes: bool = Yes,
) -> None:
    """Train a student: a sentence encoder and a model of n-grams, combined; or a model at a provider."""
    use, columns = (
        labels_from(labels),
        Columns(text, label, multi=multi, format=format_of_options(quote, encoding, delimiter)),
    )
    if tune not in (None, *get_args(Tuning)):
        raise InputError(f"--tune takes {', '.join(get_args(Tuning))}, not '{tune}'")
    if student not in (ENCODER, HOSTED):
        raise InputError(f"there is no student '{student}'; write {ENCODER} or {HOSTED}")
    target = output or (folder / "models" / HOSTED if file is None else None)
    if file is not None and consensus_encoder is not None:
        raise InputError(
            "--consensus-encoder is for projects: a file has no reviews to combine with a teacher's labels"
        )
    if file is None and multi:
        raise InputError("--multi is for files; for a project, write multi = true in task.toml")
    if file is not None and target is None:
        raise InputError("where should the model go? name its folder with -o")
    if student == HOSTED:
        from fingerpost.cli.hosted import Hosting, train_hosted

        assert target is not None
        train_hosted(
            _training_set(file, folder, use, columns),
            target,
            Hosting(model, suffix, base_url, key_env, price, yes),
            epochs,
        )
        return
    options = {
        "encoder": encoder,
        "max_tokens": max_tokens,
        "history": history,
        "tune": tune,
        "epochs": epochs,
        "seed": seed,
    }
    if file is None:
        options["consensus_encoder"] = consensus_encoder
    given = {name: value for name, value in options.items() if value is not None}
    if file is None:
        show_trained(Project(folder), given, use, output, compare)
        return
    require_training("training")
    assert target is not None
    data = from_file(file, columns)
    _show_model(target, train_student(data, target, on_progress=show_message, **given))
    show_rejected(file, data.rejected, len(data.rejected) + len(data.train) + len(data.dev))


def show_trained(
    project: Project,
    options: dict[str, Any],
    labels: LabelsFrom = "consensus",
    output: Path | None = None,
    compare: bool = True,
) -> None:
    """Train the project's student, and show the result."""
    trained = project.train(labels, folder=output, compare=compare, on_progress=show_message, **options)
    if trained.unreviewed is not None:
        _show_model(trained.unreviewed.folder, trained.unreviewed.manifest)
    _show_model(trained.folder, trained.manifest)


def _training_set(file: Path | None, folder: Path, use: LabelsFrom, columns: Columns) -> TrainingSet:
    if file is not None:
        return from_file(file, columns)
    project = Project(folder)
    with project.store() as store:
        return from_store(project.task, store, use, project.embed_for_consensus)


def _show_model(folder: Path, manifest: Manifest) -> None:
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    training = manifest.training
    views = [name for name in ("encoder", "lexical") if getattr(manifest.stack, name)]
    how = f"{' and '.join(views)} view" + ("s" if len(views) > 1 else "")
    how += f", {training['epochs']} epochs of fine-tuning" if training["epochs"] else ""
    how += f", a fast tier for about {manifest.fast.coverage:.0%} of texts" if manifest.fast else ""
    print(
        f"{folder}: {len(manifest.labels)} labels, {training['train_rows']:,} training rows, {how}, "
        f"dev accuracy {training['dev_accuracy']:.3f} (n = {training['dev_rows']:,}), {manifest.precision}, "
        f"{size:.{1 if size < 10 else 0}f} MB, {training['seconds']:.0f} s"
    )
