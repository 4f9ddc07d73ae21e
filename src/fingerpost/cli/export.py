"""export: write chat JSONL for fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.console import console
from fingerpost.cli.options import Folder, labels_from
from fingerpost.project import Project


def export(
    train: Annotated[Path, typer.Option(help="The file for training.")] = Path("train.jsonl"),
    validation: Annotated[Path, typer.Option(help="The file for validation.")] = Path("validation.jsonl"),
    folder: Path = Folder,
    validation_fraction: Annotated[
        float,
        typer.Option("--validation-fraction", "--share", min=0, max=0.9, help="Fraction of the rows for validation."),
    ] = 0.2,
    labels: Annotated[
        str, typer.Option(help="Whose labels: best (human, else the teacher's), teacher, or human.")
    ] = "best",
    seed: Annotated[int, typer.Option(help="Seed of the draw of validation rows.")] = 0,
    price: Annotated[
        float | None, typer.Option(min=0, help="Your provider's price in US dollars per million training tokens.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs, for the estimated price.")] = 3,
) -> None:
    """Write chat JSONL for fine-tuning elsewhere: system, user, assistant."""
    use = labels_from(labels, ("best", "teacher", "human"))
    done = Project(folder).export(train, validation, validation_fraction=validation_fraction, use=use, seed=seed)
    print(f"{train}: {done.train:,} rows    {validation}: {done.validation:,} rows")
    tokens = done.train_tokens * epochs
    cost = f", about ${tokens * price / 1e6:.2f}" if price is not None else "; give --price for the cost"
    console().print(f"{done.train_tokens:,} tokens ({done.counted}), {tokens:,} in {epochs} epochs{cost}")
