"""Training at a provider: what it would cost, consent, and the job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fingerpost.cli.console import show_step

if TYPE_CHECKING:
    from fingerpost.training.dataset import TrainingSet

EPOCHS = 3  # what the estimate reckons with where the provider decides


@dataclass(frozen=True, slots=True)
class Hosting:
    """Where to train, what, and at which price in US dollars per million training tokens."""

    model: str
    suffix: str | None
    base_url: str | None
    key_env: str
    price: float | None
    yes: bool


def train_hosted(data: TrainingSet, folder: Path, hosting: Hosting, epochs: int | None) -> None:
    """Say what it costs, ask, run the job.

    Raises:
        InputError: no price is known, or no consent could be asked for.
    """
    from fingerpost.core.errors import InputError
    from fingerpost.core.utils import is_loopback
    from fingerpost.students import hosted
    from fingerpost.training.export import count_tokens

    local = is_loopback(hosting.base_url)
    if hosting.price is None and not local:
        raise InputError(
            "what do a million training tokens cost at the provider? give --price, in US dollars (0 if it is free)"
        )
    tokens, counted = count_tokens(hosted.lines_of(data.task, data.train))
    times = epochs or EPOCHS
    cost = tokens * times * (hosting.price or 0.0) / 1e6
    print(
        f"{len(data.train):,} training and {len(data.dev):,} validation rows; {tokens:,} tokens ({counted}), "
        f"{tokens * times:,} in {times} epochs: about ${cost:.2f} to train {hosting.model}"
    )
    if cost and not hosting.yes:
        if not sys.stdin.isatty():
            raise InputError("nothing was sent: give --yes to agree to the price")
        typer.confirm("Create the job?", abort=True)
    manifest = hosted.fit(
        data.train,
        data.dev,
        data.task,
        folder,
        model=hosting.model,
        suffix=hosting.suffix,
        base_url=hosting.base_url,
        key_env=hosting.key_env,
        epochs=epochs,
        labels_from=data.labels_from,
        data_fingerprint=data.fingerprint,
        show=show_step,
    )
    print(
        f"{folder}: {manifest.hosted['model']}, {len(manifest.labels)} labels, {manifest.training['tokens']:,} tokens trained"
    )


def agree_to_ask(folders: Sequence[Path], rows: int, yes: bool) -> None:
    """Before hosted models are measured: each row is a paid request.

    Raises:
        InputError: no consent could be asked for.
    """
    from fingerpost.core.errors import InputError
    from fingerpost.core.utils import is_loopback
    from fingerpost.students.folder import read_manifest

    asked = [found.hosted for each in folders if (found := read_manifest(each)).hosted]
    paid = [each["model"] for each in asked if not is_loopback(each["base_url"])]
    if not paid or yes:
        return
    print(f"{rows:,} test rows will be asked of {', '.join(paid)}, at the provider's price")
    if not sys.stdin.isatty():
        raise InputError("nothing was asked: give --yes to agree, or name only local models")
    typer.confirm("Ask?", abort=True)
