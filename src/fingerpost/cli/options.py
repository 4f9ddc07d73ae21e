"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import typer

from fingerpost.core.errors import InputError
from fingerpost.core.types import Split
from fingerpost.core.verdicts import LabelsFrom
from fingerpost.task.loader import TASK_FILE

Folder = typer.Option(".", "-C", "--project", help="The project's folder.", show_default="the current folder")
Yes = typer.Option(False, "--yes", "-y", help="Spend money without asking for confirmation.")
Budget = typer.Option(
    None, "--budget", min=0, help="Cap in US dollars on what the whole project may cost, past costs included."
)
TextColumn = typer.Option(None, "--text", help="The file's column of texts. Default: 'text' or a similar name.")
Quote = typer.Option(
    "auto", "--quote", metavar="auto|none", help="none: double quotes in a CSV file are ordinary characters."
)
Encoding = typer.Option(
    None, "--encoding", help="The file's encoding, such as windows-1252. Default: detected.", metavar="NAME"
)
Delimiter = typer.Option(
    None, "--delimiter", help="The character between fields of a CSV file, or tab. Default: detected.", metavar="CHAR"
)
LabelColumn = typer.Option(None, "--label", help="The file's column of labels. Default: 'label' or a similar name.")


def labels_from(given: str, known: Sequence[str] = ("consensus", "best", "teacher", "human")) -> LabelsFrom:
    """Check the option --labels."""
    if given not in known:
        raise InputError(f"there are no labels from '{given}'; write {', '.join(known[:-1])} or {known[-1]}")
    return cast("LabelsFrom", given)


def splits_of(given: Sequence[str] | None) -> tuple[Split, ...]:
    """Check the options that name splits."""
    for name in given or []:
        if name not in ("train", "dev", "test"):
            raise InputError(f"there is no split '{name}'; write train, dev or test")
    return tuple(cast("Split", name) for name in given or ())


def is_project(path: Path) -> bool:
    """Whether the path is a project's folder."""
    return (path / TASK_FILE).is_file()


def project_and_files(paths: Sequence[Path], folder: Path) -> tuple[Path, list[Path]]:
    """The project's folder, which may be named by -C or as the first path, and the other paths.

    Raises:
        InputError: two different projects are named.
    """
    if not paths or not is_project(paths[0]):
        return folder, list(paths)
    return one_folder(folder, paths[0]), list(paths[1:])


def one_folder(option: Path, argument: Path | None) -> Path:
    """The project's folder, given by the option -C, as an argument, or both.

    Raises:
        InputError: the two differ.
    """
    if argument is None:
        return option
    if option != Path() and option.resolve() != argument.resolve():
        raise InputError(f"two projects are named, {argument} and {option}; leave one of them out")
    return argument
