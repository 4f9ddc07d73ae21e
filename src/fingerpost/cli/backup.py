"""The command `backup`: a consistent copy of a project's or a server's database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fingerpost.store.rescue import back_up
from fingerpost.store.server import DATABASE


def backup(
    target: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    folder: Annotated[Path, typer.Option("-C", "--project", help="The folder of a project or of a server.")] = Path(),
) -> None:
    """Copy the database to a file, also while other commands write to it. Copying fingerpost.db by hand may lose rows."""
    back_up(folder / DATABASE, target)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB; to restore it, copy it to {folder / DATABASE}")
