"""The command `init`: write a commented task.toml."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.options import Delimiter, Encoding, Quote
from fingerpost.core.errors import InputError
from fingerpost.core.label_sets import split_labels
from fingerpost.core.text import humanise
from fingerpost.data.formats import format_of_options
from fingerpost.data.rows import Columns, Rejected, read_labelled_rows
from fingerpost.task.loader import TASK_FILE, load_task
from fingerpost.task.template import render_task

FALLBACKS = ("other", "out_of_scope", "oos", "none", "unknown", "fallback")


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new project.")] = Path(),
    from_: Annotated[Path | None, typer.Option("--from", help="A labelled file; the task gets its labels.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of labels in the file of --from. Default: 'label' or a similar name.")
    ] = None,
    encoding: str | None = Encoding,
    delimiter: str | None = Delimiter,
    quote: str = Quote,
    multi: Annotated[
        bool, typer.Option("--multi", help="A message may have several labels, in a cell separated by | ; or ,")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the task. Default: the folder's name.")] = None,
    prompt: Annotated[
        Path | None,
        typer.Option(help="A text file with your own prompt, with {labels} where the list of labels belongs."),
    ] = None,
    model: Annotated[str, typer.Option(help="The teacher's model, which labels the questions.")] = "gpt-4.1-mini",
    base_url: Annotated[
        str | None, typer.Option(help="Base URL of the teacher's OpenAI-compatible endpoint. Default: OpenAI.")
    ] = None,
) -> None:
    """Write a commented task.toml with the labels of a file, or with labels that you enter."""
    file = folder / TASK_FILE
    if file.exists():
        raise InputError(f"{file} already exists; edit it, or give another folder")
    name = name or folder.resolve().name
    data: list[str] = []
    if from_ is not None:
        labels = {
            found: humanise(found)
            for found in _labels_of(
                from_, Columns(label=label, multi=multi, format=format_of_options(quote, encoding, delimiter))
            )
        }
        data = [str(from_.resolve())]
    elif sys.stdin.isatty():
        name, labels = _ask_for_labels(name)
    else:
        raise InputError(
            "there are no labels; give a labelled file with --from, or run the command in a terminal to enter labels"
        )
    if prompt is not None and not prompt.is_file():
        raise InputError(f"there is no prompt file {prompt}; check the path")
    text = render_task(
        name,
        labels,
        fallback=next((label for label in labels if label.lower() in FALLBACKS), None),
        model=model,
        base_url=base_url,
        data=data,
        prompt=str(prompt.resolve()) if prompt else None,
        multi=multi,
    )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    load_task(file)
    print(f"wrote {file} with {len(labels)} labels; describe each label there, then run 'fingerpost run'")


def _labels_of(file: Path, columns: Columns) -> list[str]:
    """The labels in a file, sorted.

    Raises:
        InputError: there are fewer than two.
    """
    counts = Counter(
        label
        for item in read_labelled_rows(file, columns, None)
        if not isinstance(item, Rejected) and item.label
        for label in (split_labels(item.label) if columns.multi else (item.label,))
    )
    if len(counts) < 2:
        raise InputError(
            f"{file} has {len(counts)} labels, at least two are needed; give the label column with --label"
        )
    return sorted(counts)


def _ask_for_labels(name: str) -> tuple[str, dict[str, str]]:
    """Ask in the terminal for the task's name and its labels with descriptions.

    Raises:
        InputError: fewer than two labels were entered.
    """
    name = typer.prompt("Name of the task", default=name)
    print("Enter one label per line as 'name: which messages belong to it'. End with an empty line.")
    labels: dict[str, str] = {}
    while line := typer.prompt(f"label {len(labels) + 1}", default="", show_default=False).strip():
        label, _, description = line.partition(":")
        labels[label.strip()] = description.strip()
    if len(labels) < 2:
        raise InputError(f"{len(labels)} label given, at least two are needed; run the command again")
    return name, labels
