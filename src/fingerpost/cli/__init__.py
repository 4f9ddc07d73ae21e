"""The command line: each command parses its options, calls one step and shows the result.

A command's module is imported when the command runs, so that `fingerpost --help` stays fast.
"""

from __future__ import annotations

import errno
import math
import os
import sqlite3
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from fingerpost.core.errors import FingerpostError
from fingerpost.core.printable import printable
from fingerpost.core.version import __version__

TRACEBACK = "FINGERPOST_TRACEBACK"
"""The environment variable that shows the traceback of an unexpected error."""
COMMANDS: dict[str, dict[str, str]] = {
    "Start": {
        "init": "Write a commented task.toml.",
        "run": "Import, label, train and evaluate: every step that is not done yet.",
        "status": "Show what the project has, what it cost and what to do next.",
        "backup": "Copy the database, also while it is used.",
        "repair": "Save what can be read of a damaged database.",
    },
    "Questions": {
        "import": "Import questions, with labels if they have any.",
        "generate": "Have the teacher write questions.",
    },
    "Labels": {
        "label": "Have the teacher label questions.",
        "review": "Correct the few labels that teach the student most.",
        "define": "Improve the descriptions of labels that the teacher misreads.",
        "export": "Write chat JSONL for fine-tuning elsewhere.",
        "costs": "Show what each step cost.",
    },
    "Student": {
        "train": "Train a student, from a project or a labelled file.",
        "evaluate": "Measure base, teacher and students on the same test rows.",
        "predict": "Predict the labels of texts or of a file.",
    },
    "Server": {
        "serve": "Serve students behind OpenAI's endpoints.",
        "keys": "Add, list and revoke the server's API keys.",
    },
}
"""The help of each command, by step."""


def _require_finite(_context: Any, _parameter: Any, value: Any) -> Any:
    """The value of an option. NaN passes every range, and infinity most."""
    if isinstance(value, float) and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


class LazyGroup(TyperGroup):
    """Imports a command's module when the command is used, and lists the commands by step."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for commands in COMMANDS.values() for name in commands]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f"fingerpost.cli.{'import_' if cmd_name == 'import' else cmd_name}")
        if cmd_name == "keys":
            found: Any = typer.main.get_command(module.keys)
        else:
            app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            app.command(cmd_name)(getattr(module, module.__name__.rsplit(".", 1)[1]))
            found = typer.main.get_command(app)
        found.name = cmd_name
        for parameter in found.params:
            parameter.callback = parameter.callback or _require_finite
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        for step, commands in COMMANDS.items():
            with formatter.section(step):
                formatter.write_dl(list(commands.items()))


app = typer.Typer(
    cls=LazyGroup,
    name="fingerpost",
    help="Turn an expensive LLM classifier into a small one that is better than its teacher.\n\n"
    "Start with 'fingerpost init'; 'fingerpost status' says what to do next.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"fingerpost {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line. Any error becomes one line on standard error that says what to do, and exit code 2."""
    try:
        app()
    except KeyboardInterrupt:
        print("fingerpost: interrupted; answered requests are kept, run the command again to resume", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        print(f"fingerpost: {printable(one_line(error))}", file=sys.stderr)
        sys.exit(2)


def one_line(error: Exception) -> str:
    """What went wrong, and what to do about it."""
    if isinstance(error, FingerpostError):
        return str(error)
    found = getattr(error, "orig", error)  # of SQLAlchemy's errors
    if isinstance(found, sqlite3.Error):
        from fingerpost.store.engine import explain

        return explain(found, Path())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space and run the command again"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; check that the path exists, and that you may read and write there"
    if isinstance(error, MemoryError):
        return "there is not enough memory; use fewer rows, or a machine with more memory"
    if isinstance(error, RecursionError):
        return "the input is nested too deeply; check the file for thousands of brackets"
    words = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {words}. This is a mistake in Fingerpost; set {TRACEBACK}=1 for the details"
