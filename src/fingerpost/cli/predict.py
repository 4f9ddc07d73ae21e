"""predict: labels of texts, or of a whole file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fingerpost.cli.console import show_rejected

if TYPE_CHECKING:
    from fingerpost.core.types import Prediction

PREDICT_BATCH = 1_024


def predict(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    inputs: Annotated[list[str], typer.Argument(help="Texts; or one file of them.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write a file's predictions here.")] = None,
    text: Annotated[str | None, typer.Option(help="The file's column of texts.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads to compute with.")] = 2,
) -> None:
    """Predict labels of texts, or of a whole file."""
    from fingerpost.core.errors import InputError
    from fingerpost.core.text import check_text
    from fingerpost.students import load

    router = load(model, threads)
    file = Path(inputs[0])
    if len(inputs) == 1 and (output is not None or _is_file(file)):
        _predict_file(router, file, output, text)
        return
    for given in inputs:
        if reason := check_text(given):
            raise InputError(reason)
    for given, answer in zip(inputs, router.predict(inputs), strict=True):
        print(f"{answer.label}\t{answer.confidence:.3f}" + (f"\t{given}" if len(inputs) > 1 else ""))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text too long for a file name
        return False


def _predict_file(router: Any, file: Path, output: Path | None, text: str | None) -> None:
    """Stream a file through the model; a row that cannot be read is left out, and listed."""
    from fingerpost.core.errors import InputError
    from fingerpost.core.utils import chunks
    from fingerpost.data.rows import Columns, Rejected, read_labelled_rows
    from fingerpost.data.writers import writing

    if output is None:
        raise InputError(f"where should the predictions of {file} go? name a .csv, .jsonl or .parquet file with -o")
    rejected: list[Rejected] = []
    done = 0
    with writing(output) as writer:
        for chunk in chunks(read_labelled_rows(file, Columns(text=text, label=None, teacher="-"), None), PREDICT_BATCH):
            good = [item for item in chunk if not isinstance(item, Rejected)]
            answers = iter(router.predict([item.messages for item in good]))
            rows = []
            for item in chunk:
                if isinstance(item, Rejected):
                    rejected.append(item)
                    continue
                answer: Prediction = next(answers)
                rows.append({**item.values, "predicted": answer.label, "confidence": round(answer.confidence, 4)})
            writer.write(rows)
            done += len(chunk)
    print(f"{output}: {done - len(rejected):,} predictions")
    show_rejected(file, rejected, done)
