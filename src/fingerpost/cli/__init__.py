"""The command line: parses, calls one step, shows what came of it. Commands import what they need when they run."""

from __future__ import annotations

import sys

import typer

from fingerpost.cli import (
    costs,
    define,
    evaluate,
    export,
    generate,
    import_,
    init,
    keys,
    label,
    predict,
    review,
    run,
    serve,
    status,
    train,
)
from fingerpost.core.errors import FingerpostError
from fingerpost.core.version import __version__

app = typer.Typer(
    name="fingerpost",
    help="Turn an expensive LLM classifier into a small one that is better than its teacher.\n\n"
    "Start with 'fingerpost init'; 'fingerpost status' says what to do next.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    init.init,
    import_.import_,
    generate.generate,
    label.label,
    review.review,
    define.define,
    train.train,
    evaluate.evaluate,
    predict.predict,
    export.export,
    serve.serve,
    run.run,
    status.status,
    costs.costs,
):
    app.command(command.__name__.rstrip("_"))(command)
app.add_typer(keys.keys, name="keys")


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
    """Run the command line; an error of ours becomes one line on standard error, and exit code 2."""
    try:
        app()
    except FingerpostError as error:
        print(f"fingerpost: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "fingerpost: interrupted; what was answered is kept, run the command again to go on",
            file=sys.stderr,
        )
        sys.exit(130)
