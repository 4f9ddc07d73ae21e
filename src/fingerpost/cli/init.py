"""The command `init`: write a commented task.toml, and try the teacher."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.console import next_step, say, show_format
from fingerpost.cli.options import Delimiter, Encoding, Quote, TextColumn
from fingerpost.core.errors import FingerpostError, InputError
from fingerpost.core.label_sets import split_labels
from fingerpost.core.printable import printable
from fingerpost.core.text import humanise
from fingerpost.data.files import columns as columns_of
from fingerpost.data.formats import format_of_options
from fingerpost.data.label_counts import describe_counts, label_warnings
from fingerpost.data.rows import LABEL_COLUMNS, TEXT_COLUMNS, Columns, Rejected, read_labelled_rows
from fingerpost.task.loader import TASK_FILE, load_task
from fingerpost.task.template import render_task

FALLBACKS = ("other", "out_of_scope", "oos", "none", "unknown", "fallback")
MODEL = "gpt-4.1-mini"


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new project.")] = Path(),
    from_: Annotated[Path | None, typer.Option("--from", help="A labelled file; the task gets its labels.")] = None,
    text: str | None = TextColumn,
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
    model: Annotated[
        str | None,
        typer.Option(help=f"The teacher's model, which labels the questions. Default: {MODEL}; a terminal asks."),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Base URL of the teacher's OpenAI-compatible endpoint. Default: OpenAI.")
    ] = None,
    trial: Annotated[
        str | None, typer.Option(metavar="MESSAGE", help="Send this message to the teacher, to see whether it answers.")
    ] = None,
) -> None:
    """Write a commented task.toml with the labels of a file, or with labels that you enter."""
    file = folder / TASK_FILE
    if file.exists():
        raise InputError(f"{file} already exists; edit it, or give another folder")
    in_terminal = sys.stdin.isatty()
    name = name or folder.resolve().name
    data: list[dict[str, str]] = []
    labels: Mapping[str, str]
    if from_ is not None:
        form = format_of_options(quote, encoding, delimiter)
        show_format(from_, form)
        labels = _labels_of(from_, Columns(text, label, multi=multi, format=form))
        named = {"text": text, "label": label, **form.options()}
        data = [
            {"file": str(from_.resolve()), "source": "user", **{key: value for key, value in named.items() if value}}
        ]
    elif in_terminal:
        name, labels = _ask_for_labels(name)
    else:
        raise InputError(
            "there are no labels; give a labelled file with --from, or run the command in a terminal to enter labels"
        )
    if in_terminal and model is None:
        model, base_url = _ask_for_teacher(base_url)
        prompt = prompt or _ask_for_prompt()
    if prompt is not None and not prompt.is_file():
        raise InputError(f"there is no prompt file {prompt}; check the path")
    content = render_task(
        name,
        labels,
        fallback=next((label for label in labels if label.lower() in FALLBACKS), None),
        model=model or MODEL,
        base_url=base_url,
        data=data,
        prompt=str(prompt.resolve()) if prompt else None,
        multi=multi,
    )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    task = load_task(file)
    print(f"wrote {file} with {len(labels)} labels")
    if bare := task.undescribed:
        say(
            f"{len(bare)} labels have no description of their own ({', '.join(bare[:4])}{', ...' if len(bare) > 4 else ''}); "
            f"the teacher labels better if {file} says which messages belong to each"
        )
    if in_terminal and trial is None:
        print("Type a message to try the teacher with; the request costs a fraction of a cent. Enter skips it.")
        trial = typer.prompt("message", default="", show_default=False).strip()
    if trial:
        _try_teacher(folder, trial)
    where = "" if folder == Path() else f" {folder}"
    next_step(*([f"fingerpost run{where} --budget 5"] if data else [f"fingerpost status{where}"]))


def _labels_of(file: Path, columns: Columns) -> dict[str, str]:
    """The labels in a file, sorted, with their names in words as descriptions. The file may have no column of texts.

    Raises:
        InputError: there are fewer than two.
    """
    names = columns_of(file, columns.format)
    lower = {name.lower(): name for name in names}
    label = columns.label or next((lower[usual] for usual in LABEL_COLUMNS if usual in lower), None)
    has_texts = columns.text is not None or "messages" in names or lower.keys() & set(TEXT_COLUMNS)
    readable = columns if has_texts else Columns(label, label, multi=columns.multi, format=columns.format)
    rows = [
        (item.messages[-1].content, item.label)
        for item in read_labelled_rows(file, readable, None)
        if not isinstance(item, Rejected) and item.label
    ]
    counts = Counter(part for _, given in rows for part in (split_labels(given) if columns.multi else (given,)))
    if len(counts) < 2:
        raise InputError(
            f"{file} has {len(counts)} labels, at least two are needed; give the label column with --label"
        )
    say(f"{file}: {len(rows):,} labelled rows, {describe_counts([given for _, given in rows])}")
    if has_texts:
        for warning in label_warnings([text for text, _ in rows], [given for _, given in rows], columns.multi):
            print(printable(f"warning: {warning}"), file=sys.stderr)
    return {found: humanise(found) for found in sorted(counts)}


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


def _ask_for_teacher(base_url: str | None) -> tuple[str, str | None]:
    """Ask in the terminal for the teacher's model and endpoint."""
    print("The teacher is the language model that labels your messages; any OpenAI-compatible endpoint will do.")
    model: str = typer.prompt("Teacher's model", default=MODEL)
    if base_url is None:
        base_url = typer.prompt("Base URL of its endpoint (Enter for OpenAI)", default="", show_default=False).strip()
    return model, base_url or None


def _ask_for_prompt() -> Path | None:
    """Ask in the terminal for the file of the user's own prompt."""
    given = typer.prompt("File with your own prompt (Enter for none)", default="", show_default=False).strip()
    return Path(given) if given else None


def _try_teacher(folder: Path, text: str) -> None:
    """Send one message to the teacher, and print its answer or what is wrong."""
    from fingerpost.project import Project

    try:
        answer = Project(folder).ask_teacher(text)
    except FingerpostError as error:
        print(f"the trial failed: {error}", file=sys.stderr)
        return
    seconds = f", {answer.usage.latency_s:.1f} s" if answer.usage.latency_s is not None else ""
    cost = f", ${answer.usage.cost_usd:.5f}" if answer.usage.cost_usd is not None else ""
    say(f"the teacher answers: {answer.label or 'none of the labels'}{seconds}{cost}")
