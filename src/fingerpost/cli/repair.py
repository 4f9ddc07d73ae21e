"""The command `repair`: a new database with what can be read of a damaged one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fingerpost.store.rescue import repair as rescue
from fingerpost.store.server import DATABASE


def repair(
    folder: Annotated[Path, typer.Option("-C", "--project", help="The folder of a project or of a server.")] = Path(),
) -> None:
    """Save what can be read of a damaged database. Stop all other commands first; the damaged file is kept."""
    counts, damaged = rescue(folder / DATABASE)
    saved = ", ".join(f"{count:,} {table}" for table, count in counts.items() if count)
    print(f"saved {saved or 'nothing'}; the damaged database is {damaged}")
