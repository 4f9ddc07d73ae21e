"""The command `ui`: the pages for a browser."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.options import Folder
from fingerpost.cli.serve import Data
from fingerpost.core.errors import InputError
from fingerpost.core.utils import is_loopback
from fingerpost.store.server import DATABASE, SERVED, ServerStore


def ui(
    folder: Path = Folder,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any other than this machine needs keys: 'fingerpost keys add'.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8001,
    by: Annotated[
        str | None, typer.Option(help="Name of the reviewer on this machine. Default: the user's name.")
    ] = None,
    double: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the questions that two people answer, to measure their agreement."),
    ] = 0.0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    data: Path | None = Data,
) -> None:
    """Review, compare and watch in the browser."""
    import uvicorn

    from fingerpost.ui.app import ROOT, Ui, UiSettings

    try:
        reviewer = by or getpass.getuser()
    except (OSError, KeyError):  # in a container without users
        raise InputError("this machine has no user name; add --by NAME") from None
    local = host in ("127.0.0.1", "::1", "localhost") or is_loopback(f"http://{host}")
    keys = None if local else _keys(data or folder / SERVED)
    pages = Ui(UiSettings(folder, reviewer, keys, double))
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --host or --port"
        ) from None
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}{ROOT}/"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"{pages.pages.title}: {address}", flush=True)
    if open_browser and sys.stdout.isatty() and (os.environ.get("DISPLAY") or sys.platform in ("darwin", "win32")):
        webbrowser.open(address)
    config = uvicorn.Config(
        pages.app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5
    )
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def _keys(served: Path) -> Callable[[], dict[str, str]]:
    """The names of the keys that may sign in, by hash, read anew each time.

    Raises:
        InputError: there is none.
    """
    served.mkdir(parents=True, exist_ok=True)
    store = ServerStore(served / DATABASE)

    def active() -> dict[str, str]:
        return {key.sha256: key.name for key in store.all_keys() if key.revoked_at is None}

    if not active():
        raise InputError(
            f"a key is needed to sign in, but there is none; create one with 'fingerpost keys add NAME --data {served}'"
        )
    return active
