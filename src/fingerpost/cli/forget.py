"""The command `forget`: erase a person's message everywhere, with a receipt."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.console import next_step, require_folders, say
from fingerpost.cli.options import Folder, is_project
from fingerpost.core.errors import InputError
from fingerpost.project.erasure import forget as erase
from fingerpost.store.server import DATABASE
from fingerpost.task.loader import TASK_FILE, load_task


def forget(
    target: Annotated[str, typer.Argument(metavar="ID|TEXT", help="The message, or the id of the question.")],
    folder: Path = Folder,
    containing: Annotated[
        bool, typer.Option("--containing", help="Erase every message that contains TEXT, such as an e-mail address.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="The server's folder.", show_default="the folder 'served' in the project's folder"),
    ] = None,
    receipt: Annotated[Path | None, typer.Option("--receipt", help="Write the receipt to this file, as JSON.")] = None,
) -> None:
    """Erase a message from the database, embeddings, models' lists, reports, and the server's log and files."""
    if not is_project(folder) and not (folder / DATABASE).is_file() and data is None:
        raise InputError(f"{folder} is no project; name its folder with -C, or the server's with --data")
    require_folders(receipt)
    task = load_task(folder / TASK_FILE) if is_project(folder) else None
    done = erase(folder, task, target, containing=containing, served=data)
    print(f"erased at {done.erased_at}:")
    for name, count in done.erased.items():
        print(f"  {count:,} {name}")
    for key in done.ids:
        print(f"  question {key}")
    for file in done.changed_files:
        say(f"  {file}")
    for model in done.models_to_retrain:
        say(f"{model} was trained on the message; train it again")
    for file in done.files_still_containing:
        say(f"{file} still contains the message; delete it there, or 'fingerpost run' imports it again")
    if receipt is not None:
        receipt.write_text(json.dumps(asdict(done), indent=1) + "\n", encoding="utf-8")
        print(f"receipt: {receipt}")
    if done.models_to_retrain and task is not None:
        next_step("fingerpost train" if folder == Path() else f"fingerpost train {folder}")
