"""init, import and export: how questions come in and go out."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from fingerpost.cli.project import SERVED, Folder, Project, console, show_rejected

if TYPE_CHECKING:
    from fingerpost.intake import Columns
    from fingerpost.types import Split

FALLBACKS = ("other", "out_of_scope", "oos", "none", "unknown", "fallback")


def init(
    folder: Annotated[Path, typer.Argument(help="Where to make the project.")] = Path(),
    from_: Annotated[
        Path | None, typer.Option("--from", help="A file with a label column: its labels become the task's.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="The column of labels in that file.")] = None,
    name: Annotated[str | None, typer.Option(help="The task's name.")] = None,
    prompt: Annotated[Path | None, typer.Option(help="Your prompt: a text file with {labels} in it.")] = None,
    model: Annotated[str, typer.Option(help="The teacher's model.")] = "gpt-4.1-mini",
    base_url: Annotated[str | None, typer.Option(help="The teacher's endpoint, if it is not OpenAI.")] = None,
) -> None:
    """Write a commented task.toml, from a file's labels or from answers."""
    from fingerpost.errors import InputError
    from fingerpost.task import TASK_FILE, load_task, render_task
    from fingerpost.text import spoken

    file = folder / TASK_FILE
    if file.exists():
        raise InputError(f"{file} exists already; edit it, or name another folder")
    name = name or folder.resolve().name
    data: list[str] = []
    if from_ is not None:
        labels = {each: spoken(each) for each in _labels_of(from_, label)}
        data = [str(from_.resolve())]
    elif sys.stdin.isatty():
        name, labels = _ask(name)
    else:
        raise InputError("nothing to make a task of; give --from FILE with a label column, or run it in a terminal")
    if prompt is not None and not prompt.is_file():
        raise InputError(f"there is no prompt file {prompt}; check its name and folder")
    text = render_task(
        name,
        labels,
        fallback=next((each for each in labels if each.lower() in FALLBACKS), None),
        model=model,
        base_url=base_url,
        data=data,
        prompt=str(prompt.resolve()) if prompt else None,
    )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    load_task(file)
    print(f"wrote {file} with {len(labels)} labels; describe each in its own words, then run 'fingerpost run'")


def _labels_of(file: Path, column: str | None) -> list[str]:
    from fingerpost.errors import InputError
    from fingerpost.intake import Columns, Rejected, read_items

    counts = Counter(
        item.label
        for item in read_items(file, Columns(label=column), None)
        if not isinstance(item, Rejected) and item.label
    )
    if len(counts) < 2:
        raise InputError(f"{file} has {len(counts)} labels, at least two are needed; name their column with --label")
    return sorted(counts)


def _ask(name: str) -> tuple[str, dict[str, str]]:
    from fingerpost.errors import InputError

    name = typer.prompt("Name of the task", default=name)
    print("Labels, one a line as 'name: what belongs there'; an empty line ends the list.")
    labels: dict[str, str] = {}
    while line := typer.prompt(f"label {len(labels) + 1}", default="", show_default=False).strip():
        label, _, description = line.partition(":")
        labels[label.strip()] = description.strip()
    if len(labels) < 2:
        raise InputError(f"{len(labels)} label given, at least two are needed; run it again")
    return name, labels


def import_(
    files: Annotated[
        list[Path] | None, typer.Argument(help="CSV, JSONL, Parquet, OpenAI chat JSONL, or plain text.")
    ] = None,
    folder: Path = Folder,
    text: Annotated[str | None, typer.Option(help="The column of texts.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of labels.")] = None,
    teacher: Annotated[str | None, typer.Option(help="The labels are the answers of this model, not people's.")] = None,
    by: Annotated[str, typer.Option(help="Who gave the labels.")] = "import",
    source: Annotated[
        str | None, typer.Option(help="Where the questions come from: user (as without it), synthetic, ...")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Take only rows whose split column says this: train, dev or test."),
    ] = None,
    from_log: Annotated[
        bool, typer.Option("--from-log", help="What 'fingerpost serve' was asked; FILES: its folder, else 'served'.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Of the log, only so many: those the student was least sure of.")
    ] = None,
) -> None:
    """Bring in questions, with labels if they have any. Importing again changes nothing."""
    from fingerpost.errors import InputError
    from fingerpost.intake import Columns

    project = Project(folder)
    if from_log:
        for each in files or [folder / SERVED]:
            _import_log(project, each, source or "served", limit)
        return
    if not files:
        raise InputError("which file? name it, or give --from-log for what 'fingerpost serve' was asked")
    columns = Columns(text, label, teacher, by, source or "user", splits_of(only))
    for file in files:
        import_one(project, file, columns)


def _import_log(project: Project, served: Path, source: str, limit: int | None) -> None:
    from fingerpost.errors import InputError
    from fingerpost.ingest import import_log
    from fingerpost.store.served import DATABASE, ServerStore

    if not (served / DATABASE).is_file():
        raise InputError(f"{served} is no folder of 'fingerpost serve'; name the one that it was given with --data")
    log = ServerStore(served / DATABASE)
    with project.store() as store:
        done = import_log(store, project.task, log.logged(), source, limit)
    log.close()
    print(f"{served}: {done.rows:,} requests, {done.new:,} new questions, {done.verdicts:,} new answers of the teacher")
    if done.verdicts and limit is None:
        print(
            "  the teacher was asked what the student was unsure of; 'fingerpost label' asks it the others, for a fair test"
        )
    if done.set_aside:
        print(f"  {done.set_aside} set aside: near-duplicates of questions on another side of the split")


def splits_of(given: list[str] | None) -> tuple[Split, ...]:
    """Check the options that name sides of the split."""
    from fingerpost.errors import InputError

    for each in given or []:
        if each not in ("train", "dev", "test"):
            raise InputError(f"there is no split '{each}'; write train, dev or test")
    return tuple(cast("Split", each) for each in given or ())


def import_one(project: Project, file: Path, columns: Columns) -> None:
    """Import a file, and say what came of it."""
    from fingerpost.ingest import import_file

    with project.store() as store:
        done = import_file(store, project.task, file, columns)
    print(f"{file}: {done.rows:,} rows, {done.new:,} new questions, {done.verdicts:,} new labels")
    if done.set_aside:
        print(f"  {done.set_aside} set aside: near-duplicates of questions on another side of the split")
    show_rejected(file, done.rejected, done.rows)


def export(
    train: Annotated[Path, typer.Option(help="The file for training.")] = Path("train.jsonl"),
    validation: Annotated[Path, typer.Option(help="The file for validation.")] = Path("validation.jsonl"),
    folder: Path = Folder,
    share: Annotated[float, typer.Option(min=0, max=0.9, help="The share for validation.")] = 0.2,
    labels: Annotated[str, typer.Option(help="Whose labels: best (people's first), teacher, human.")] = "best",
    seed: Annotated[int, typer.Option(help="Draws the validation rows.")] = 0,
    price: Annotated[
        float | None, typer.Option(min=0, help="US dollars per million training tokens at your provider.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs, for the price.")] = 3,
) -> None:
    """Write chat JSONL for fine-tuning: system, user, assistant."""
    from fingerpost.cli.learn import labels_from
    from fingerpost.export import export as write

    project = Project(folder)
    with project.store() as store:
        done = write(
            project.task,
            store,
            train,
            validation,
            share=share,
            use=labels_from(labels, ("best", "teacher", "human")),
            seed=seed,
        )
    print(f"{train}: {done.train:,} rows    {validation}: {done.validation:,} rows")
    tokens = done.train_tokens * epochs
    cost = f", about ${tokens * price / 1e6:.2f}" if price is not None else "; --price tells what that costs"
    console().print(f"{done.train_tokens:,} tokens ({done.counted}), {tokens:,} in {epochs} epochs{cost}")
