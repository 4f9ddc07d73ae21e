"""predict: the labels of texts, or of a whole file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from fingerpost.cli.console import show_rejected
from fingerpost.cli.options import Delimiter, Encoding, Quote, TextColumn
from fingerpost.core.errors import InputError
from fingerpost.core.printable import printable
from fingerpost.core.text import check_text
from fingerpost.core.types import Prediction, Predictor
from fingerpost.core.utils import chunks
from fingerpost.data.formats import format_of_options
from fingerpost.data.rows import Columns, Rejected, read_labelled_rows
from fingerpost.data.writers import writing
from fingerpost.students import load

if TYPE_CHECKING:
    from fingerpost.students.encoder.predict import Tiers

BATCH = 1_024  # rows predicted together


def predict(
    model: Annotated[Path, typer.Argument(help="The model folder.")],
    inputs: Annotated[list[str], typer.Argument(help="Texts, or one file of texts.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write a file's predictions: .csv, .jsonl, .parquet.")
    ] = None,
    text: str | None = TextColumn,
    tiers: Annotated[
        str,
        typer.Option(
            help="fast: the model of n-grams alone; all: encoder and n-grams; auto: the encoder only where the n-grams are "
            "unsure."
        ),
    ] = "auto",
    encoding: str | None = Encoding,
    delimiter: str | None = Delimiter,
    quote: str = Quote,
    safe_csv: Annotated[
        bool, typer.Option("--safe-csv", help="Write ' before cells of CSV that a spreadsheet would run as formulas.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the computation.")] = 2,
) -> None:
    """Predict the labels of texts, or of a whole file."""
    student = load(model, threads, cast("Tiers", tiers))
    file = Path(inputs[0])
    if len(inputs) == 1 and (output is not None or _is_file(file)):
        columns = Columns(text=text, label=None, teacher="-", format=format_of_options(quote, encoding, delimiter))
        _predict_file(student, file, output, columns, safe_csv)
        return
    for given in inputs:
        if reason := check_text(given):
            raise InputError(reason)
    for given, answer in zip(inputs, student.predict(inputs), strict=True):
        line = f"{answer.label}\t{answer.confidence:.3f}" + (f"\t{given}" if len(inputs) > 1 else "")
        print(printable(line) if sys.stdout.isatty() else line)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text too long for a file name
        return False


def _cell(answer: Prediction, output: Path) -> str | list[str] | None:
    """The predicted label; in JSONL, several labels are a list."""
    return list(answer.labels) if answer.multi and output.suffix.lower() == ".jsonl" else answer.label


def _predict_file(student: Predictor, file: Path, output: Path | None, columns: Columns, safe_csv: bool) -> None:
    """Stream a file through the model; rows that cannot be read are left out, and listed."""
    if output is None:
        raise InputError(f"where should the predictions of {file} go? name a .csv, .jsonl or .parquet file with -o")
    rejected: list[Rejected] = []
    done = 0
    with writing(output, safe_csv) as writer:
        for chunk in chunks(read_labelled_rows(file, columns, None), BATCH):
            good = [item for item in chunk if not isinstance(item, Rejected)]
            rejected += [item for item in chunk if isinstance(item, Rejected)]
            answers = student.predict([item.messages for item in good])
            writer.write(
                [
                    {**item.values, "predicted": _cell(answer, output), "confidence": round(answer.confidence, 4)}
                    for item, answer in zip(good, answers, strict=True)
                ]
            )
            done += len(chunk)
    print(f"{output}: {done - len(rejected):,} predictions")
    if writer.formulas and not safe_csv:
        print(
            f"  {writer.formulas:,} cells begin with =, +, - or @: a spreadsheet runs them as formulas; --safe-csv writes ' "
            "before them",
            file=sys.stderr,
        )
    show_rejected(file, rejected, done)
