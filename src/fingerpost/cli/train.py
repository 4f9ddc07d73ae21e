"""train: train a student, from a project or a labelled file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from fingerpost.cli.console import next_step, require_folders, say, show_format, show_rejected, too_many_rejected
from fingerpost.cli.evaluate import show_and_write
from fingerpost.cli.exit_codes import PARTLY
from fingerpost.cli.options import (
    Delimiter,
    Encoding,
    Folder,
    LabelColumn,
    Quote,
    TextColumn,
    Yes,
    labels_from,
    project_and_files,
)
from fingerpost.cli.progress import showing_progress
from fingerpost.core.errors import InputError
from fingerpost.core.printable import printable
from fingerpost.core.types import Tuning
from fingerpost.core.verdicts import LabelsFrom
from fingerpost.data.formats import format_of_options
from fingerpost.data.label_counts import describe_counts, label_warnings
from fingerpost.data.rows import Columns
from fingerpost.labelled_file import TEST_SHARE, train_on_file
from fingerpost.project import Project
from fingerpost.students.folder import Manifest
from fingerpost.training.dataset import TrainingSet, from_file, from_store, levels_of
from fingerpost.training.holdout import MIN_ROWS
from fingerpost.training.train import ENCODER, LORA

HOSTED = "hosted"
FEW_TESTS = 100
"""With fewer test rows, cross-validation is suggested."""


def train(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE|PROJECT", help="A file with texts and labels, or chat JSONL; else the project."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder to write the model to. Default: models/NAME-OF-THE-FILE; of a project, models/student.",
        ),
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
    test_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.5,
            help="Without a split column: the fraction of a file's rows that is held out to measure the model; 0 for none.",
        ),
    ] = TEST_SHARE,
    cross_validate: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=20,
            metavar="K",
            help="K-fold cross-validation: measure on all rows of a small file, with K extra students.",
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write a file's report as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a file's report as one HTML file.")] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Train even if many rows of the file cannot be used.")
    ] = False,
    multi: Annotated[
        bool, typer.Option("--multi", help="Several labels for a text: split each cell of the file at | ; or ,")
    ] = False,
    levels: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,...,HIGH",
            help="Ordinal labels in a file: all levels in order, the lowest first, separated by commas.",
        ),
    ] = None,
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
            min=0,
            help="Epochs of fine-tuning. Default: 3, 2 on a CPU; of a language model 5, on texts 3. Without --tune, 0 means off and "
            "more means on.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random choices in training. Default: 0.")] = None,
    compare: Annotated[
        bool, typer.Option(help="Where reviews changed labels, also train a student without the reviews.")
    ] = True,
    student: Annotated[
        str,
        typer.Option(
            help="encoder, trained on this machine; lora, a language model with an adapter, for replies that are more than one "
            "label; or hosted, a fine-tuning job at a provider."
        ),
    ] = ENCODER,
    base: Annotated[
        str | None,
        typer.Option(
            help="With --student lora: the base language model: a GGUF file, a folder, or a hub name. Default: [student] base of "
            "task.toml."
        ),
    ] = None,
    vary_labels: Annotated[
        bool,
        typer.Option(
            "--vary-labels",
            help="With --student lora: train with changing label lists and integer codes, so that the labels can change later.",
        ),
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="With --student lora: replies that a step learns from. Default: 8.")
    ] = None,
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
    """Train a student: a sentence encoder and a model of n-grams, combined; a language model; or a model at a provider."""
    use = labels_from(labels)
    columns = Columns(text, label, multi=multi, format=format_of_options(quote, encoding, delimiter))
    folder, files = project_and_files(paths or [], folder)
    if len(files) > 1:
        raise InputError("give one file; to train on several, import them into a project, or join them first")
    file = files[0] if files else None
    require_folders(json_file, html)
    if tune not in (None, *get_args(Tuning)):
        raise InputError(f"--tune takes {', '.join(get_args(Tuning))}, not '{tune}'")
    if student not in (ENCODER, LORA, HOSTED):
        raise InputError(f"there is no student '{student}'; write {ENCODER}, {LORA} or {HOSTED}")
    target = output or (folder / "models" / student if file is None else Path("models") / file.stem)
    if file is not None and consensus_encoder is not None:
        raise InputError(
            "--consensus-encoder is for projects: a file has no reviews to combine with a teacher's labels"
        )
    if file is None and multi:
        raise InputError("--multi is for files; for a project, write multi = true in task.toml")
    if file is None and levels:
        raise InputError("--levels is for files; for a project, write ordinal = true in task.toml")
    if multi and levels:
        raise InputError("--multi and --levels cannot be combined")
    if student == HOSTED:
        from fingerpost.cli.hosted import Hosting, train_hosted

        train_hosted(
            _training_set(file, folder, use, columns),
            target,
            Hosting(model, suffix, base_url, key_env, price, yes),
            epochs,
        )
        return
    if student == LORA:
        from fingerpost.cli.lora import Tuning as LoraTuning
        from fingerpost.cli.lora import train_lora

        tuning = LoraTuning(base, vary_labels, batch_size, epochs, seed, history)
        train_lora(file, folder, target, use, columns, tuning, test_share, json_file, html)
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
        project = Project(folder)
        show_trained(project, given, use, output, compare)
        next_step(*project.next_steps())
        return
    folds = cross_validate or 0
    show_format(file, columns.format)
    data = from_file(file, columns, 0.0 if folds else test_share, levels_of(levels))
    _train_on_file(file, target, columns, data, folds, skip_bad_rows, json_file, html, given)


def _train_on_file(
    file: Path,
    target: Path,
    columns: Columns,
    data: TrainingSet,
    folds: int,
    skip_bad_rows: bool,
    json_file: Path | None,
    html: Path | None,
    options: dict[str, Any],
) -> None:
    """Check a file's labels, train on it, and show the model with its score.

    Raises:
        InputError: many rows cannot be used.
        Exit: some rows could not be used.
    """
    examples = [*data.train, *data.dev, *data.test]
    total = len(data.rejected) + len(examples)
    show_rejected(file, data.rejected, total)
    if not skip_bad_rows and too_many_rejected(data.rejected, total):
        raise InputError(
            "nothing was trained, because the file or its options are probably wrong; correct them, or train on the other "
            "rows with --skip-bad-rows"
        )
    given = [example.label for example in examples]
    say(f"{file}: {len(examples):,} rows, {describe_counts(given)}")
    for warning in label_warnings([example.messages[-1].content for example in examples], given, columns.multi):
        print(printable(f"warning: {warning}"), file=sys.stderr)
    if data.test and not folds:
        print(
            f"{len(data.test):,} rows are held out to measure the model, {len(data.train) + len(data.dev):,} train it"
        )
    with showing_progress("train") as show:
        done = train_on_file(data, target, folds=folds, on_progress=show, **options)
    _show_model(target, done.manifest)
    if done.report is not None:
        show_and_write(done.report, json_file, html)
        if len(data.test) < FEW_TESTS and not folds:
            print(
                f"only {len(data.test):,} rows measure the model, so the intervals are wide; --cross-validate 5 measures on "
                f"all {len(examples):,}"
            )
    else:
        print(
            f"not measured: {'fewer than 10 rows' if len(examples) < MIN_ROWS else 'there are no test rows'}; give more rows, "
            "rows with the split 'test', or a --test-share"
        )
    next_step(f'fingerpost predict {target} "..."', f"fingerpost serve {target}")
    if data.rejected:
        raise typer.Exit(PARTLY)


def show_trained(
    project: Project,
    options: dict[str, Any],
    labels: LabelsFrom = "consensus",
    output: Path | None = None,
    compare: bool = True,
) -> None:
    """Train the project's student, and show the result."""
    with showing_progress("train") as show:
        project.on_progress = show
        trained = project.train(labels, folder=output, compare=compare, on_progress=show, **options)
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
