"""Cost estimates and confirmation before a hosted student is trained or evaluated."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fingerpost.cli.console import confirm, say
from fingerpost.cli.progress import showing_progress
from fingerpost.core.errors import InputError
from fingerpost.core.utils import is_loopback
from fingerpost.students import hosted
from fingerpost.students.folder import read_manifest
from fingerpost.training.dataset import TrainingSet
from fingerpost.training.export import count_tokens

EPOCHS = 3  # assumed in the estimate if the provider chooses the epochs


@dataclass(frozen=True, slots=True)
class Hosting:
    """Where and how to train a hosted student.

    Attributes:
        model: the provider's base model.
        suffix: part of the fine-tuned model's name.
        base_url: address of the provider; None for OpenAI.
        key_env: environment variable of the API key.
        price: US dollars per million training tokens.
        yes: do not ask for confirmation.
    """

    model: str
    suffix: str | None
    base_url: str | None
    key_env: str
    price: float | None
    yes: bool


def train_hosted(data: TrainingSet, folder: Path, hosting: Hosting, epochs: int | None) -> None:
    """Print the estimated cost of a fine-tuning job, ask for confirmation, and run the job.

    Raises:
        InputError: no price is given, or confirmation is needed but there is no terminal.
        Exit: the user does not confirm.
    """
    if hosting.price is None and not is_loopback(hosting.base_url):
        raise InputError(
            "the provider's price is not known; give --price, in US dollars per million training tokens (0 if it is free)"
        )
    tokens, counted = count_tokens(hosted.training_lines(data.task, data.train))
    epoch_count = epochs or EPOCHS
    cost = tokens * epoch_count * (hosting.price or 0.0) / 1e6
    print(
        f"{len(data.train):,} training and {len(data.dev):,} validation rows; {tokens:,} tokens ({counted}), "
        f"{tokens * epoch_count:,} in {epoch_count} epochs: about ${cost:.2f} to train {hosting.model}"
    )
    if cost and not hosting.yes:
        if not sys.stdin.isatty():
            raise InputError("nothing was sent, because it costs money; add --yes to confirm")
        confirm("Create the job?")
    with showing_progress("train") as show:
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
            on_progress=show,
        )
    tokens = manifest.training["tokens"]
    say(f"{folder}: {manifest.hosted['model']}, {len(manifest.labels)} labels, {tokens:,} tokens trained")


def confirm_requests(folders: Sequence[Path], rows: str, yes: bool) -> None:
    """Ask for confirmation before hosted models are evaluated, because every row is a paid request.

    Args:
        rows: a description of the rows, such as "120 rows".

    Raises:
        InputError: confirmation is needed but there is no terminal.
        Exit: the user does not confirm.
    """
    addresses = [manifest.hosted for folder in folders if (manifest := read_manifest(folder)).hosted]
    paid = [address["model"] for address in addresses if not is_loopback(address["base_url"])]
    if not paid or yes:
        return
    say(f"{rows} will be sent to {', '.join(paid)}, which charges for them")
    if not sys.stdin.isatty():
        raise InputError("nothing was sent, because it costs money; add --yes to confirm, or give only local models")
    confirm("Send them?")
