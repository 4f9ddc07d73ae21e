"""Prices of hosted students: what training or measuring them costs, and confirmation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from fingerpost.cli.console import show_message
from fingerpost.core.errors import InputError
from fingerpost.core.utils import is_loopback
from fingerpost.students import hosted
from fingerpost.students.folder import read_manifest
from fingerpost.training.dataset import TrainingSet
from fingerpost.training.export import count_tokens

EPOCHS = 3  # of the estimate, where the provider decides


@dataclass(frozen=True, slots=True)
class Hosting:
    """A provider's base model and address. `price` is in US dollars per million training tokens."""

    model: str
    suffix: str | None
    base_url: str | None
    key_env: str
    price: float | None
    yes: bool


def train_hosted(data: TrainingSet, folder: Path, hosting: Hosting, epochs: int | None) -> None:
    """Show what the job costs, ask for confirmation, run the job.

    Raises:
        InputError: no price is known, or there is no terminal to ask on.
    """
    if hosting.price is None and not is_loopback(hosting.base_url):
        raise InputError(
            "what do a million training tokens cost at the provider? give --price, in US dollars (0 if it is free)"
        )
    tokens, counted = count_tokens(hosted.training_lines(data.task, data.train))
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
        on_progress=show_message,
    )
    tokens = manifest.training["tokens"]
    print(f"{folder}: {manifest.hosted['model']}, {len(manifest.labels)} labels, {tokens:,} tokens trained")


def confirm_requests(folders: Sequence[Path], rows: str, yes: bool) -> None:
    """Ask for confirmation before hosted models are measured: each row is a paid request.

    Raises:
        InputError: there is no terminal to ask on.
    """
    addresses = [manifest.hosted for folder in folders if (manifest := read_manifest(folder)).hosted]
    paid = [address["model"] for address in addresses if not is_loopback(address["base_url"])]
    if not paid or yes:
        return
    print(f"{rows} will be sent to {', '.join(paid)}, at the provider's price")
    if not sys.stdin.isatty():
        raise InputError("nothing was asked: give --yes to agree, or name only local models")
    typer.confirm("Send them?", abort=True)
