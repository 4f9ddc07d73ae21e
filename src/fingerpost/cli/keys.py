"""keys: the API keys of the server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.options import Folder
from fingerpost.cli.serve import Data
from fingerpost.project import SERVED

if TYPE_CHECKING:
    from fingerpost.store.server import ServerStore

keys = typer.Typer(help="Keys of the server: add, list, revoke.", no_args_is_help=True, rich_markup_mode=None)


def _keys_of(folder: Path, data: Path | None) -> ServerStore:
    from fingerpost.store.server import DATABASE, ServerStore

    place = data or folder / SERVED
    place.mkdir(parents=True, exist_ok=True)
    return ServerStore(place / DATABASE)


@keys.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose it is.")], folder: Path = Folder, data: Path | None = Data
) -> None:
    """Make a key, and show it this once."""
    print(_keys_of(folder, data).add_key(name))


@keys.command("list")
def list_(folder: Path = Folder, data: Path | None = Data) -> None:
    """All keys, without the keys themselves."""
    from datetime import datetime

    rows = _keys_of(folder, data).all_keys()
    for row in rows:
        made = datetime.fromtimestamp(row.created_at).strftime("%Y-%m-%d")
        print(f"{row.name}\t{row.hint}\tmade {made}{chr(9) + 'revoked' if row.revoked_at else ''}")
    if not rows:
        print("no keys yet; 'fingerpost keys add NAME' makes one")


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose it was.")], folder: Path = Folder, data: Path | None = Data
) -> None:
    """End a key; a server that is running refuses it within seconds."""
    _keys_of(folder, data).revoke_key(name)
    print(f"revoked: {name}")
