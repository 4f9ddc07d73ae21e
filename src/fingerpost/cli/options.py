"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

if TYPE_CHECKING:
    from fingerpost.core.types import Split
    from fingerpost.core.verdicts import LabelsFrom

Folder = typer.Option(Path(), "-C", "--project", help="The project's folder.", show_default="here")

Yes = typer.Option(False, "--yes", "-y", help="Do not ask before money is spent.")

Budget = typer.Option(
    None,
    "--budget",
    min=0,
    help="US dollars that this project may cost in all, what it has cost so far included.",
)

SERVED = "served"  # the folder of a project's server


def labels_from(given: str, known: Sequence[str] = ("consensus", "best", "teacher", "human")) -> LabelsFrom:
    """Check the option --labels."""
    from fingerpost.core.errors import InputError

    if given not in known:
        raise InputError(f"there are no labels from '{given}'; write {', '.join(known[:-1])} or {known[-1]}")
    return cast("LabelsFrom", given)


def splits_of(given: list[str] | None) -> tuple[Split, ...]:
    """Check the options that name sides of the split."""
    from fingerpost.core.errors import InputError

    for each in given or []:
        if each not in ("train", "dev", "test"):
            raise InputError(f"there is no split '{each}'; write train, dev or test")
    return tuple(cast("Split", each) for each in given or ())
