"""predict: the labels of texts, or of a whole file."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fingerpost.cli.console import show_format, show_rejected
from fingerpost.cli.exit_codes import PARTLY
from fingerpost.cli.options import Delimiter, Encoding, Quote, TextColumn, is_project
from fingerpost.cli.progress import showing_progress
from fingerpost.core.errors import InputError
from fingerpost.core.printable import printable
from fingerpost.core.text import check_text
from fingerpost.core.types import Prediction, Predictor, Progress
from fingerpost.core.utils import chunks
from fingerpost.data.files import columns as columns_of
from fingerpost.data.files import count_lines, delimiter_of_file
from fingerpost.data.formats import UTF_8, FileFormat, delimiter_of, format_of_options, with_detected_encoding
from fingerpost.data.rows import TABLES, TEXT_COLUMNS, Columns, LabelledRow, Rejected, read_labelled_rows
from fingerpost.data.writers import writing
from fingerpost.students import load
from fingerpost.students.folder import MANIFEST

if TYPE_CHECKING:
    from fingerpost.students.encoder.predict import Tiers

BATCH = 1_024  # rows predicted together
STANDARD = "-"
"""Standard input or output."""
STANDARD_INPUT = "fingerpost-standard-input"
"""The name of the file that it is copied to."""


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What is written for a text.

    Attributes:
        top_k: number of labels, the most probable first.
        scores: whether to write the score of every label.
        min_confidence: below it, `fallback` is written in place of the label.
    """

    top_k: int = 1
    scores: bool = False
    min_confidence: float = 0.0
    fallback: str = ""

    def label(self, answer: Prediction, as_list: bool = False) -> Any:
        """The predicted label; with `as_list`, several labels are a list."""
        if self.is_unsure(answer):
            return [label for label in (self.fallback,) if label] if as_list and answer.multi else self.fallback
        return list(answer.labels) if as_list and answer.multi else answer.label

    def is_unsure(self, answer: Prediction) -> bool:
        return answer.confidence < self.min_confidence

    def ranked(self, answer: Prediction) -> list[tuple[str, float]]:
        """The labels after those that are written as the answer, and their scores."""
        written = () if self.is_unsure(answer) else answer.labels
        rest = {label: score for label, score in answer.scores.items() if label not in written}
        return sorted(rest.items(), key=lambda item: -item[1])[: self.top_k - 1]

    def columns(self, answer: Prediction | None, labels: list[str], as_list: bool, reason: str = "") -> dict[str, Any]:
        """The columns that are added to a row; without an answer, they are empty but for the reason."""
        found: dict[str, Any] = {"predicted": None, "confidence": None}
        if answer is not None:
            found = {"predicted": self.label(answer, as_list), "confidence": round(answer.confidence, 4)}
            if self.is_unsure(answer):
                reason = f"confidence below {self.min_confidence:g}"
        ranked = self.ranked(answer) if answer is not None else []
        for place in range(self.top_k - 1):
            label, score = ranked[place] if place < len(ranked) else (None, None)
            found |= {f"predicted_{place + 2}": label}
            found |= {f"confidence_{place + 2}": None if score is None else round(score, 4)}
        if self.scores:
            given = answer.scores if answer is not None else {}
            found |= {f"score_{label}": round(given[label], 4) if label in given else None for label in labels}
        return {**found, "reason": reason or None}


def predict(
    model: Annotated[Path, typer.Argument(help="The model folder.")],
    inputs: Annotated[list[str], typer.Argument(help="Texts, or one file of texts; - reads standard input.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Where to write a file's predictions: .csv, .jsonl, .parquet; - for standard output."
        ),
    ] = None,
    text: str | None = TextColumn,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Write the K most probable labels.")] = 1,
    scores: Annotated[bool, typer.Option("--scores", help="Write the score of every label.")] = False,
    min_confidence: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Below it, write the fallback label of the task in place of the label, or nothing."
        ),
    ] = 0.0,
    fallback: Annotated[
        str | None, typer.Option(help="With --min-confidence: the label to write. Default: the task's fallback label.")
    ] = None,
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
    if is_project(model) and not (model / MANIFEST).is_file():
        raise InputError(f"{model} is a project, not a model folder; did you mean {model}/models/student?")
    student = load(model, threads, cast("Tiers", tiers))
    known = student.manifest.fallback if fallback is None else fallback
    answering = OutputOptions(top_k, scores, min_confidence, known or "")
    form = format_of_options(quote, encoding, delimiter)
    if inputs == [STANDARD]:
        with _standard_input(text or student.manifest.text_column, form) as file:
            if file.suffix == ".txt" and output is None:
                _print_lines(student, file, form, answering)
            else:
                _predict_file(student, file, output or Path(STANDARD), text, form, answering, safe_csv)
        return
    if output is not None and len(inputs) > 1:
        raise InputError("-o takes the answers to one file; run the command for each file")
    if len(inputs) == 1 and (output is not None or _is_file(Path(inputs[0]))):
        _predict_file(student, Path(inputs[0]), output, text, form, answering, safe_csv)
        return
    for number, given in enumerate(inputs, 1):
        if reason := check_text(given):
            raise InputError(f"text {number}: {reason}" if len(inputs) > 1 else reason)
    _print_answers(student, inputs, answering, with_text=len(inputs) > 1)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text too long for a file name
        return False


def _print_answers(student: Predictor, texts: list[str], answering: OutputOptions, with_text: bool) -> None:
    """One line for each text: label and confidence, those of further labels, and the text."""
    for given, answer in zip(texts, student.predict(texts), strict=True):
        pairs = [(answering.label(answer) or "", answer.confidence), *answering.ranked(answer)]
        cells = [cell for label, score in pairs for cell in (label, f"{score:.3f}")]
        if answering.scores:
            cells += [f"{label}={score:.3f}" for label, score in answer.scores.items()]
        line = "\t".join([*cells, given] if with_text else cells)
        print(printable(line) if sys.stdout.isatty() else line)


def _print_lines(student: Predictor, file: Path, form: FileFormat, answering: OutputOptions) -> None:
    """Answers to the lines of plain text."""
    with file.open(encoding=with_detected_encoding(file, form).encoding, errors="replace") as stream:
        for part in chunks((line.strip() for line in stream if line.strip()), BATCH):
            _print_answers(student, part, answering, with_text=True)


@contextmanager
def _standard_input(text: str, form: FileFormat) -> Iterator[Path]:
    """Standard input as a file: JSON Lines, CSV with a header that names a column of texts, or plain text.

    Args:
        text: the column of texts, if it is known.
    """
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / f"{STANDARD_INPUT}.txt"
        with raw.open("wb") as stream:
            while block := sys.stdin.buffer.read(1 << 20):
                stream.write(block)
        with raw.open(encoding=with_detected_encoding(raw, form).encoding, errors="replace") as lines:
            head = [line for line, _ in zip(lines, range(50), strict=False)]
        if not any(line.strip() for line in head):
            raise InputError("standard input is empty; pipe texts, CSV or JSON Lines into the command")
        separator = form.delimiter or delimiter_of(head, form.quotes)
        names = {name.strip().strip('"').lower() for name in head[0].split(separator)}
        kind = ".txt"
        if head[0].lstrip().startswith("{"):
            kind = ".jsonl"
        elif len(head) > 1 and names & ({text.lower()} if text else set(TEXT_COLUMNS)):
            kind = ".csv"
        yield raw.rename(raw.with_suffix(kind))


def _predict_file(
    student: Predictor,
    file: Path,
    output: Path | None,
    text: str | None,
    form: FileFormat,
    answering: OutputOptions,
    safe_csv: bool,
) -> None:
    """Stream a file through the model. Every row is written in its place; one that cannot be used has a reason."""
    if output is None:
        raise InputError(f"where should the predictions of {file} go? name a .csv, .jsonl or .parquet file with -o")
    to_standard = str(output) == STANDARD
    if not to_standard:
        show_format(file, form)
    columns = Columns(_text_column(student, file, text, form), None, "-", format=form)
    rejected: list[Rejected] = []
    done = 0
    with tempfile.TemporaryDirectory() as scratch, showing_progress("predict") as show:
        target = Path(scratch) / f"out{'.jsonl' if file.suffix == '.jsonl' else '.csv'}" if to_standard else output
        as_list = target.suffix.lower() in (".jsonl", ".ndjson")
        total = count_lines(file)
        names = columns_of(file, form) if file.suffix.lower() in TABLES else []
        taken = set(names)
        with writing(target, safe_csv, *_csv_style(file, form)) as writer:
            for chunk in chunks(read_labelled_rows(file, columns, None), BATCH):
                good = [item for item in chunk if isinstance(item, LabelledRow)]
                answers = iter(student.predict([item.messages for item in good]))
                rows = []
                for item in chunk:
                    bad = isinstance(item, Rejected)
                    answer = None if bad else next(answers)
                    reason = f"line {item.line}: {item.reason}" if isinstance(item, Rejected) else ""
                    added = answering.columns(answer, student.labels, as_list, reason)
                    rows.append({**dict.fromkeys(names), **item.values, **_renamed(added, taken)})
                    if isinstance(item, Rejected):
                        rejected.append(item)
                writer.write(rows)
                done += len(chunk)
                show(Progress("predict", done=done, total=max(total, done) if total else None))
        if to_standard:
            sys.stdout.flush()
            with target.open("rb") as stream:
                shutil.copyfileobj(stream, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    if not to_standard:
        print(f"{output}: {done - len(rejected):,} predictions")
        if writer.formulas and not safe_csv:
            print(
                f"  {writer.formulas:,} cells begin with =, +, - or @: a spreadsheet runs them as formulas; --safe-csv writes "
                "' before them",
                file=sys.stderr,
            )
    show_rejected(Path("standard input") if file.stem == STANDARD_INPUT else file, rejected, done)
    if rejected:
        raise typer.Exit(PARTLY)


def _renamed(added: dict[str, Any], taken: set[str]) -> dict[str, Any]:
    """The added columns, under names that the file does not have."""
    return {f"fingerpost_{name}" if name in taken else name: value for name, value in added.items()}


def _text_column(student: Predictor, file: Path, text: str | None, form: FileFormat) -> str | None:
    """The column of texts: the one that is named, else the one that the model was trained on, if the file has it."""
    trained = student.manifest.text_column
    if text is not None or not trained or trained == "messages":
        return text
    return trained if trained in columns_of(file, form) else None


def _csv_style(file: Path, form: FileFormat) -> tuple[str, str]:
    """Delimiter and encoding of the output: those of a CSV file, and a byte-order mark where spreadsheets need one."""
    if file.suffix.lower() not in (".csv", ".tsv"):
        return ",", "utf-8"
    with file.open("rb") as stream:
        marked = stream.read(3) == b"\xef\xbb\xbf"
    plain = with_detected_encoding(file, form).encoding == UTF_8 and not marked
    return delimiter_of_file(file, form), "utf-8" if plain else UTF_8
