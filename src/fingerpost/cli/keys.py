"""The command `keys`: manage the API keys of the server."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.console import say
from fingerpost.cli.help import epilog
from fingerpost.cli.options import Folder
from fingerpost.cli.serve import Data
from fingerpost.store.server import DATABASE, SERVED, ServerStore

keys = typer.Typer(
    help="Add, list and revoke the server's API keys.",
    epilog=epilog("keys"),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


def _open_store(folder: Path, data: Path | None) -> ServerStore:
    """Open the server's database, and create it if it is missing."""
    served = data or folder / SERVED
    served.mkdir(parents=True, exist_ok=True, mode=0o700)
    return ServerStore(served / DATABASE)


@keys.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the key, such as the application that uses it.")],
    folder: Path = Folder,
    data: Path | None = Data,
) -> None:
    """Create an API key and print it. It cannot be shown again."""
    print(_open_store(folder, data).add_key(name))


@keys.command("list")
def list_(folder: Path = Folder, data: Path | None = Data) -> None:
    """List the names and creation dates of all API keys, but not the keys."""
    rows = _open_store(folder, data).all_keys()
    for row in rows:
        created = datetime.fromtimestamp(row.created_at).strftime("%Y-%m-%d")
        say(f"{row.name}\t{row.hint}\tcreated {created}{chr(9) + 'revoked' if row.revoked_at else ''}")
    if not rows:
        print("there are no keys; create one with 'fingerpost keys add NAME'")


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the key.")], folder: Path = Folder, data: Path | None = Data
) -> None:
    """Revoke an API key. A running server rejects it within seconds."""
    _open_store(folder, data).revoke_key(name)
    say(f"revoked the key {name}")
