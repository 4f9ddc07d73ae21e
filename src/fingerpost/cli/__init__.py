"""The command line: each command parses its options, calls one step and shows the result.

A command's module is imported when the command runs, so that `fingerpost --help` stays fast.
"""

from __future__ import annotations

import difflib
import errno
import math
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from importlib import import_module
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.models import ArgumentInfo

from fingerpost.cli.exit_codes import BUDGET, DONE, FAILED, INTERRUPTED
from fingerpost.cli.help import epilog
from fingerpost.core.errors import BudgetError, FingerpostError, InputError
from fingerpost.core.printable import printable
from fingerpost.core.utils import require_extra
from fingerpost.core.version import __version__

TRACEBACK = "FINGERPOST_TRACEBACK"
"""The environment variable that shows the traceback of an unexpected error."""
STOPPED = "fingerpost: interrupted; what was answered or stored is kept, run the command again to continue"
COMMANDS: dict[str, dict[str, str]] = {
    "Start": {
        "init": "Write a commented task.toml.",
        "run": "Import, label, train and evaluate: every step that is not done yet.",
        "status": "Show what the project has, what it cost and what to do next.",
        "backup": "Copy the database, also while it is used.",
        "repair": "Save what can be read of a damaged database.",
        "forget": "Erase a person's message from the project and its server.",
        "docs": "Show a page of the documentation.",
    },
    "Questions": {
        "import": "Import questions, with labels if they have any.",
        "generate": "Have the teacher write questions.",
    },
    "Labels": {
        "label": "Have the teacher label questions.",
        "ui": "Review, compare and watch in the browser.",
        "review": "Correct the few labels that teach the student most.",
        "define": "Improve the descriptions of labels that the teacher misreads.",
        "export": "Write chat JSONL, or a language model, for use elsewhere.",
        "costs": "Show what each step cost.",
    },
    "Student": {
        "train": "Train a student, from a project or a labelled file.",
        "evaluate": "Measure base, teacher and students on the same test rows.",
        "predict": "Predict the labels of texts or of a file.",
        "tone": "Train a language model to write in a person's voice.",
    },
    "Server": {
        "serve": "Serve students behind OpenAI's endpoints.",
        "decisions": "List the decisions that the proxy has seen, and set their modes.",
        "keys": "Add, list and revoke the server's API keys.",
    },
}
"""The help of each command, by step."""
GROUPS = ("keys", "tone")
"""Commands that have commands of their own."""
EXTRAS: dict[str, str] = {
    **dict.fromkeys(("predict", "docs"), ""),
    **dict.fromkeys(("generate", "review", "run", "train", "evaluate"), "train"),
    **dict.fromkeys(("serve", "decisions"), "serve"),
    "ui": "ui",
}
"""The extra that a command needs; those that are not listed need `project`. It is checked before anything else."""


def _require_finite(_context: Any, _parameter: Any, value: Any) -> Any:
    """The value of an option. NaN passes every range, and infinity most."""
    if isinstance(value, float) and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def _with_shared_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command that also takes --quiet, and the project's folder both as an argument and as the option -C."""
    parameters = dict(signature(function, eval_str=True).parameters)
    added: list[Parameter] = []
    folder = parameters.get("folder")
    named = [name for name, parameter in parameters.items() if _is_argument(parameter)]
    if folder is not None and named == ["folder"]:
        option = typer.Option("-C", "--project", help="Same as the argument.", show_default=False)
        added.append(
            Parameter("other", Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Path | None, option])
        )
    elif folder is not None and not named:
        argument = typer.Argument(metavar="PROJECT", help="Same as -C.", show_default=False)
        added.append(
            Parameter("other", Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Path | None, argument])
        )
    if "quiet" not in parameters:
        option = typer.Option("-q", "--quiet", help="Show no progress.")
        added.append(
            Parameter("no_progress", Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option])
        )

    @wraps(function)
    def command(*, other: Path | None = None, no_progress: bool = False, **given: Any) -> Any:
        from fingerpost.cli.options import one_folder
        from fingerpost.cli.progress import set_quiet

        set_quiet(no_progress)
        if other is not None:
            given["folder"] = one_folder(given["folder"], other)
        try:
            with _recorded(function.__name__.rstrip("_"), given):
                return function(**given)
        except KeyboardInterrupt:  # typer would end without a word
            print(STOPPED, file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None

    keyword_only = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters.values()]
    command.__signature__ = Signature([*keyword_only, *added])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*keyword_only, *added)}
    return command


def _recorded(command: str, given: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Records a run of a command on a project, for the pages."""
    from fingerpost.cli.options import is_project
    from fingerpost.store.runs import RECORDED, recording

    named = [given.get("folder"), *(given.get("paths") or [])]
    project = next((path for path in named if isinstance(path, Path) and is_project(path)), None)
    return recording(project, command) if project is not None and command in RECORDED else nullcontext()


def _is_argument(parameter: Parameter) -> bool:
    """Whether a command's parameter is a positional argument."""
    marks = [*getattr(parameter.annotation, "__metadata__", ()), parameter.default]
    return any(isinstance(mark, ArgumentInfo) for mark in marks)


class LazyGroup(TyperGroup):
    """Imports a command's module when the command is used, and lists the commands by step."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for commands in COMMANDS.values() for name in commands]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.list_commands(ctx):
            return None
        if extra := EXTRAS.get(cmd_name, "project"):
            require_extra(extra, f"'fingerpost {cmd_name}'")
        module = import_module(f"fingerpost.cli.{'import_' if cmd_name == 'import' else cmd_name}")
        if cmd_name in GROUPS:
            group = getattr(module, cmd_name)
            for command in group.registered_commands if cmd_name == "tone" else ():
                if not hasattr(command.callback, "__wrapped__"):
                    command.callback = _with_shared_options(command.callback)
            found: Any = typer.main.get_command(group)
        else:
            app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            function = getattr(module, module.__name__.rsplit(".", 1)[1])
            app.command(cmd_name, epilog=epilog(cmd_name))(_with_shared_options(function))
            found = typer.main.get_command(app)
        found.name = cmd_name
        for parameter in found.params:
            parameter.callback = parameter.callback or _require_finite
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], names, n=1)
            hint = f"did you mean {close[0]}?" if close else "'fingerpost --help' lists them"
            raise InputError(f"there is no command '{args[0]}'; {hint}")
        return super().resolve_command(ctx, args)

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
    """Run the command line and exit.

    The exit codes are in `exit_codes`. Any error becomes one line on standard error that says what to do; wrong usage of a
    command also shows that command's usage.
    """
    try:
        sys.exit(app(standalone_mode=False))
    except (KeyboardInterrupt, typer.Abort):
        print(STOPPED, file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has ended, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # wrong usage of a command
            error.show()
            sys.exit(FAILED)
        if os.environ.get(TRACEBACK):
            raise
        print(f"fingerpost: {printable(one_line(error))}", file=sys.stderr)
        sys.exit(BUDGET if isinstance(error, BudgetError) else FAILED)


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
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("fingerpost"):
        return f"the package {error.name} is missing; install what all commands need: pip install 'fingerpost[all]'"
    words = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {words}. This is a mistake in Fingerpost; set {TRACEBACK}=1 for the details"
