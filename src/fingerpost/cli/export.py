"""The command `export`: write chat JSONL for fine-tuning elsewhere, or a language model for other engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.console import console
from fingerpost.cli.options import Folder, labels_from, one_folder
from fingerpost.core.utils import require_extra
from fingerpost.project import Project
from fingerpost.students.folder import MANIFEST


def export(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PROJECT|MODEL",
            help="The project; or the folder of a model trained with --student lora, to export for llama.cpp, Ollama, transformers or vLLM.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="With MODEL: the folder to write to. Default: MODEL-export.")
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="With MODEL: also write all weights with the adapter added.")
    ] = False,
    train: Annotated[Path, typer.Option(help="File to write the training rows to.")] = Path("train.jsonl"),
    validation: Annotated[Path, typer.Option(help="File to write the validation rows to.")] = Path("validation.jsonl"),
    folder: Path = Folder,
    validation_fraction: Annotated[
        float,
        typer.Option(
            "--validation-fraction",
            "--share",
            min=0,
            max=0.9,
            help="Fraction of the rows to write to the validation file.",
        ),
    ] = 0.2,
    labels: Annotated[
        str, typer.Option(help="Whose labels to write: best (human, else the teacher's), teacher, or human.")
    ] = "best",
    seed: Annotated[int, typer.Option(help="Seed of the random choice of validation rows.")] = 0,
    price: Annotated[
        float | None, typer.Option(min=0, help="Your provider's price in US dollars per million training tokens.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs, for the cost estimate.")] = 3,
) -> None:
    """Write the labelled questions as chat JSONL for fine-tuning elsewhere, or a language model for other engines."""
    if path is not None and (path / MANIFEST).is_file():
        require_extra("lora", "exporting a language model")
        from fingerpost.students.lora.export import export as export_student

        for written in export_student(path, output or path.with_name(f"{path.name}-export"), merged):
            print(written)
        return
    folder = one_folder(folder, path)
    use = labels_from(labels, ("best", "teacher", "human"))
    exported = Project(folder).export(train, validation, validation_fraction=validation_fraction, use=use, seed=seed)
    print(f"{train}: {exported.train:,} rows    {validation}: {exported.validation:,} rows")
    tokens = exported.train_tokens * epochs
    cost = f", about ${tokens * price / 1e6:.2f}" if price is not None else "; give --price to see the cost"
    console().print(f"{exported.train_tokens:,} tokens ({exported.counted}), {tokens:,} in {epochs} epochs{cost}")
